"""Half the rows at once, twice the accumulation: what a run does by itself when memory runs out.

Only where the job allowed it beforehand, and at most twice. The effective batch stays, and with it
the rows of each step: what is learned differs by rounding, and by the random numbers of dropout.
"""

from __future__ import annotations

from collections.abc import Sequence

from training_backend.job import TrainingJob
from training_backend.lifecycle import failures
from training_backend.protocol import Event, RunFailed, WarningRaised

MOST = 2
CODE = "batch_halved"


def halved(job: TrainingJob) -> TrainingJob | None:
    """The job with half the rows at once (less where that divides no step); None from one row on.

    Every step still has the same rows.
    """
    rows = job.training.per_device_train_batch_size
    effective = rows * job.training.gradient_accumulation_steps
    fewer = next((n for n in range(rows // 2, 0, -1) if effective % n == 0), None)
    if fewer is None:
        return None
    changes = {
        "per_device_train_batch_size": fewer,
        "gradient_accumulation_steps": effective // fewer,
    }
    return job.model_copy(update={"training": job.training.model_copy(update=changes)})


def is_due(job: TrainingJob, code: str, earlier: Sequence[Event], *, on_card: bool = False) -> bool:
    """Whether a training that failed with `code` is to go on by itself with half the rows.

    Where a card trains, the batch lies on the card: fewer rows make no room in the computer.

    Args:
        earlier: the run's events before this attempt, with the note that it began with.
    """
    return (
        code in (("out_of_vram",) if on_card else failures.OUT_OF_MEMORY)
        and job.training.halve_batch_when_out_of_memory
        and _times(earlier) < MOST
        and halved(job) is not None
    )


def note(
    before: TrainingJob, now: TrainingJob, earlier: Sequence[Event], step: int | None
) -> WarningRaised | None:
    """What a run says that goes on with half the rows; None where that is not what changed.

    Args:
        before: the job of the attempt before.
        earlier: the run's events up to the end of that attempt.
        step: from which it goes on; None for the beginning.
    """
    last = next((e for e in reversed(earlier) if isinstance(e, RunFailed)), None)
    if last is None or not last.goes_on or now != halved(before):
        return None
    params = {
        "step": step or 0,
        "rows": now.training.per_device_train_batch_size,
        "rows_before": before.training.per_device_train_batch_size,
        "batches": now.training.gradient_accumulation_steps,
        "time": _times(earlier) + 1,
        "most": MOST,
    }
    return WarningRaised(
        code=CODE,
        message="Memory ran out after step {step}. As the job allows, the run went on by itself "
        "with {rows} instead of {rows_before} rows at once, accumulated {batches} times: each step "
        "still learns from the same rows. (Halving {time} of at most {most}.)".format(**params),
        params=params,
    )


def _times(events: Sequence[Event]) -> int:
    """How often the run has halved its batch by itself."""
    return sum(isinstance(event, WarningRaised) and event.code == CODE for event in events)
