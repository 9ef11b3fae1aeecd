"""Train an ended run for longer: a longer job in the same run, from its newest checkpoint.

The schedule of the learning rate spans all steps then, those done and those added, as if they
had been planned together; the warm-up keeps its number of steps. So a rate that had fallen
rises first, to where the longer schedule stands at that step (`train.py` sees to it), and the
moments of the optimizer go on. With a constant rate the extended run equals, bit for bit, one
that was as long from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from training_backend.errors import UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle import checkpoints, journal
from training_backend.memory import memory_records
from training_backend.protocol import Event, MetricsLogged, RunCompleted, RunStopped
from training_backend.runs import Run

CONSTANT = ("constant", "constant_with_warmup")
_PACES = 100


@dataclass(frozen=True)
class Reached:
    """How far an ended run came.

    `end` is the step that it was to end at; of a run that stopped early, where it did.
    `steps_per_epoch` and `seconds_per_step` are None where the journal does not tell.
    """

    job: TrainingJob
    step: int
    end: int
    checkpoint: int
    stopped_early: bool
    steps_per_epoch: float | None
    seconds_per_step: float | None

    def counts_epochs(self) -> bool:
        """Whether epochs, not steps, say where the run ends."""
        return self.job.training.max_steps <= 0 and not self.stopped_early

    def steps_of(self, epochs: float) -> int | None:
        """About how many steps so many epochs are; None where that is not known."""
        if self.steps_per_epoch is None:
            return None
        return max(1, round(self.steps_per_epoch * epochs))


def reached(run: Run) -> Reached:
    """Raises `UserError` where the run cannot be extended."""
    job = run.training_job()
    state = run.state()
    if state not in ("completed", "stopped"):
        raise UserError(
            "not_extendable",
            "Run {run} is {state}; only a run that has completed or was stopped can be extended.",
            "Wait until it ends." if state in ("running", "queued") else "Resume it first.",
            run=run.id,
            state=state,
        )
    saved = checkpoints.finished(run.checkpoints)
    if not saved:
        raise UserError(
            "no_checkpoint_left",
            "Run {run} has no checkpoint left to go on from.",
            "Start a new run instead; it can begin with this one's adapter.",
            run=run.id,
        )
    newest, ended, pace = _numbers(run)
    early = isinstance(ended, RunCompleted) and ended.early_stopped_after is not None
    step = newest.step if newest else saved[-1].step
    if isinstance(ended, RunCompleted | RunStopped) and ended.step is not None:
        step = ended.step
    return Reached(
        job=job,
        step=step,
        end=newest.total_steps if newest and not early else step,
        checkpoint=saved[-1].step,
        stopped_early=early,
        steps_per_epoch=newest.step / newest.epoch if newest and newest.epoch > 0 else None,
        seconds_per_step=pace,
    )


def longer(run: Reached, *, epochs: float | None = None, steps: int | None = None) -> TrainingJob:
    """The run's job with so many epochs or steps more.

    Raises `UserError`, or `JobError` for more than a job may ask for.
    """
    training = run.job.training
    document = run.job.model_dump(mode="json")
    if steps is None and epochs is not None and run.counts_epochs():
        document["training"]["num_train_epochs"] = training.num_train_epochs + epochs
    else:
        added = run.steps_of(epochs) if steps is None and epochs is not None else steps
        if added is None:
            raise UserError(
                "epoch_length_unknown",
                "It is not known how many steps an epoch of this run has.",
                "Say how many steps to add.",
            )
        document["training"]["max_steps"] = run.end + added
    if 0 < training.warmup_steps < 1:  # a share of the run; it is over, and does not grow
        document["training"]["warmup_steps"] = float(math.ceil(training.warmup_steps * run.end))
    revised = parse_job(document, run.job.name)
    assert isinstance(revised, TrainingJob)
    return revised


def is_longer(before: TrainingJob, now: TrainingJob) -> bool:
    """Whether a job was revised to go on for longer, and not to need less memory.

    It may ask for as many steps as before: of a run that stopped early, which now does not.
    """
    asked = (before.training.max_steps, before.training.num_train_epochs)
    asks = (now.training.max_steps, now.training.num_train_epochs)
    return asks != asked or memory_records.same_memory(before, now)


def _numbers(run: Run) -> tuple[MetricsLogged | None, Event | None, float | None]:
    """The newest step, the run's last word, and the seconds a step took lately."""
    ended: Event | None = None
    newest: MetricsLogged | None = None
    paces: list[float] = []
    for events, _ in journal.pieces(run.folder):
        for event in events:
            ended = event
            if not isinstance(event, MetricsLogged):
                continue
            if newest is not None and event.step > newest.step and event.elapsed > newest.elapsed:
                paces.append((event.elapsed - newest.elapsed) / (event.step - newest.step))
            newest = event
    # The middle one: a pause or a test on the held-out rows lies between two steps as well.
    return newest, ended, median(paces[-_PACES:]) if paces else None
