"""What to do about a run that ran out of memory: the ranked changes, by what is known of it. Light.

An estimate may have said that the job fits: rows are padded to one another, memory falls to pieces,
other programs take their share. That it did not fit is the better knowledge. So the changes are
sought for a device that holds less than the estimate of this job, by the share that was missing.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from training_backend import vram
from training_backend.computer.devices import Device, this_device
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle import evidence
from training_backend.lifecycle.evidence import Evidence
from training_backend.memory import make_fit
from training_backend.memory.make_fit import Plan, Suggestion
from training_backend.runs import Run
from training_backend.vram import Estimate

SHORT_BY = 0.05  # where it is not known how much more was asked for
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_ASKED = re.compile(r"tried to allocate (\d+(?:\.\d+)?) (bytes|[KMGT]iB)", re.IGNORECASE)

# With these, weights and optimizer of a checkpoint mean the same as before.
_GO_ON = {
    "training.per_device_train_batch_size",
    "training.gradient_accumulation_steps",
    "training.activation_checkpointing",
    "training.activation_checkpointing_every_n_layers",
}


@dataclass(frozen=True)
class Fixes:
    """Changes of a run's job that need less memory, and what they go by.

    Attributes:
        estimate: of the job as it was, on a device that is too small for it; None where its memory
            cannot be told beforehand. Then the sizes in `suggestions` mean nothing.
        plan: what together is likely to be enough.
        suggestions: each on its own, the one of least harm first.
        in_ram: it was the computer's memory that ran out, though a card does the training.
    """

    job: TrainingJob
    evidence: Evidence
    estimate: Estimate | None
    plan: Plan
    suggestions: tuple[Suggestion, ...]
    in_ram: bool = False


def find(run: Run, device: Device | None = None) -> Fixes:
    """The fixes for a run that has ended; for a thread.

    Raises:
        TraceNeeded: the model was never looked at (`vram.estimate_job`).
        UserError: the job file is damaged.
    """
    job = run.training_job()
    known = evidence.gather(run)
    device = device or this_device()
    if device.kind != "cpu" and known.code != "out_of_vram":
        # The batch lies on the card; RAM is taken by what is loaded, and by other programs.
        smaller = (one for one in make_fit.unmeasured(job, device) if one.code == "smaller_model")
        return Fixes(job, known, None, _NO_PLAN, tuple(smaller), in_ram=True)
    try:
        estimate = vram.estimate_job(job, device)
        if estimate.fit != "does_not_fit":
            device = _too_small(device, estimate, known)
            estimate = vram.estimate_job(job, device)
        plan = make_fit.plan(job, device)
        return Fixes(job, known, estimate, plan, tuple(make_fit.suggestions(job, device)))
    except UserError as error:
        if error.code != "estimate_unknown":
            raise
        return Fixes(job, known, None, _NO_PLAN, tuple(make_fit.unmeasured(job, device)))


def without_estimate(run: Run) -> Fixes:
    """As `find`, where the model's memory cannot be found out."""
    job, device = run.training_job(), this_device()
    return Fixes(job, evidence.gather(run), None, _NO_PLAN, tuple(make_fit.unmeasured(job, device)))


def goes_on(fixes: Fixes, changes: dict[str, Any]) -> bool:
    """Whether the run itself can go on with these changes; else they begin a new one.

    One without a checkpoint has nothing yet that could not go with them.
    """
    if fixes.evidence.saved_step is None:
        return "model.id" not in changes
    possible = set(_GO_ON)
    if not fixes.job.training.packing:  # else the rows lie in other sequences
        possible.add("training.max_length")
    if fixes.job.lora.init_lora_weights in ("default", "gaussian"):  # else it changed the base
        possible.add("quantization.load_in_4bit")
    return changes.keys() <= possible


def asked_bytes(log: str) -> int | None:
    """How much memory was asked for when there was none, by PyTorch's own words in a log."""
    found = _ASKED.findall(log)
    if not found:
        return None
    amount, unit = found[-1]
    return int(float(amount) * _UNITS[unit])


_NO_PLAN = Plan((), {}, 0, False)


def _too_small(device: Device, estimate: Estimate, known: Evidence) -> Device:
    """The device as it must be, going by the estimate, since the job did not fit.

    What was asked for and what was held by then tell by which share it is too small.
    """
    asked = asked_bytes(known.log)
    held = known.memory and (known.memory.process_bytes or known.memory.device_used_bytes)
    short_by = asked / (held + asked) if asked and held else SHORT_BY
    room = int(estimate.total_bytes * (1 - short_by))
    return dataclasses.replace(device, total_bytes=device.used_by_others_bytes + room)
