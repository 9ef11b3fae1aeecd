"""How much memory a job needs, part by part, before it starts.

Plain Python: it evaluates what was traced once per model (`memory_traces.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training_backend.devices import Device
from training_backend.job import TrainingJob

PartName = Literal["weights", "adapter", "gradients", "optimizer", "activations", "overhead"]
Fit = Literal["comfortable", "tight", "does_not_fit"]


@dataclass(frozen=True)
class Part:
    """One part of the memory: bytes, the formula with its numbers filled in, and its source."""

    name: PartName
    bytes: int
    formula: str
    source: str


@dataclass(frozen=True)
class Needs:
    """What else a job needs: RAM and disk in bytes."""

    training_ram: int
    training_disk: int
    merge_ram: int
    merge_disk: int
    gguf_ram: int
    gguf_disk: int


@dataclass(frozen=True)
class Estimate:
    """The memory of a job on a device. `measured` is true when a probe replaced the estimate."""

    parts: tuple[Part, ...]
    total_bytes: int
    device: Device
    fit: Fit
    needs: Needs
    measured: bool = False


class TraceNeeded(Exception):
    """This model has not been traced for such settings; ask the helper for "trace"."""


# Above this share of what is free it is tight: other programs grow, allocations fragment.
_COMFORTABLE_SHARE = 0.9


def fit_of(total_bytes: int, device: Device) -> Fit:
    """Whether so many bytes fit into what is free on the device."""
    if total_bytes > device.available_bytes:
        return "does_not_fit"
    share = total_bytes / max(1, device.available_bytes)
    return "tight" if share > _COMFORTABLE_SHARE else "comfortable"


def optimizer_name(job: TrainingJob, device: Device) -> str:
    """The optimizer that the job means: "auto" is paged 8-bit AdamW on a card, AdamW elsewhere."""
    if job.training.optim != "auto":
        return job.training.optim
    return "paged_adamw_8bit" if device.kind in ("cuda", "xpu") else "adamw_torch"


def estimate_parameters(parameters: int, job: TrainingJob, device: Device) -> int:
    """Total bytes for a model of which only its number of parameters is known.

    Interpolated between the traces that come with the program; right to about a fifth.
    """
    raise NotImplementedError


def estimate_job(job: TrainingJob, device: Device) -> Estimate:
    """The memory that a job needs at its peak, on full batches at `max_length`.

    Needs neither weights nor data. Takes a few milliseconds.

    Raises:
        TraceNeeded: when the model, or such settings of it, were never traced.
        UserError: when the model is not known at all.
    """
    raise NotImplementedError
