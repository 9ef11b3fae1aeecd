"""How much memory a job needs, part by part, before it starts.

Plain Python: it evaluates what was traced once per model (`memory_traces`), adds what follows
from the settings alone (`memory_parts`, `memory_optimizer`), and what was measured on this
computer (`memory_records`). A step has several moments that can be its peak: the turn from
forward to backward with the loss, the backward pass of one of the last layers, that of the first
layer (`memory_step`), and the optimizer's own step. The answer is the largest of them. Every
number has its formula and source in `docs/memory.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from training_backend.computer.devices import Device
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.memory import memory_needs, memory_parts, memory_records, memory_traces
from training_backend.memory.memory_needs import Needs
from training_backend.memory.memory_optimizer import optimizer_name, optimizer_part, update_bytes
from training_backend.memory.memory_parts import MIB, Part, PartName
from training_backend.memory.memory_step import step_bytes
from training_backend.memory.memory_traces import Trace, TraceNeeded
from training_backend.models.model_config import config_of

__all__ = [
    "Estimate",
    "Fit",
    "Part",
    "TraceNeeded",
    "estimate_job",
    "estimate_parameters",
    "evaluate",
    "fit_of",
    "optimizer_name",
]

Fit = Literal["comfortable", "tight", "does_not_fit"]

# Above this share of what is free it is tight: other programs grow, allocations fragment.
COMFORTABLE = 0.85


@dataclass(frozen=True)
class Estimate:
    """The memory of a job on a device. `measured` is true when a probe replaced the estimate."""

    parts: tuple[Part, ...]
    total_bytes: int
    device: Device
    fit: Fit
    needs: Needs
    measured: bool = False

    def part(self, name: PartName) -> Part:
        return next(part for part in self.parts if part.name == name)


def fit_of(total_bytes: int, device: Device) -> Fit:
    """Whether so many bytes fit into what is free on the device."""
    if total_bytes > device.available_bytes:
        return "does_not_fit"
    share = total_bytes / max(1, device.available_bytes)
    return "tight" if share > COMFORTABLE else "comfortable"


def estimate_job(job: TrainingJob, device: Device, *, corrected: bool = True) -> Estimate:
    """The memory that a job needs at its peak, on full batches at `max_length`.

    Needs neither weights nor data. Takes a few milliseconds.

    Args:
        corrected: whether to heed what was measured on this computer.

    Raises:
        TraceNeeded: when the model, or such settings of it, were never traced.
        UserError: when the model is not known at all, or the method's memory is not.
    """
    _refuse_unknown(job)
    config = config_of(job)
    trace = memory_traces.find(memory_traces.fingerprint(config, job)) if config else None
    if trace is None:
        raise TraceNeeded
    found = evaluate(trace, job, device)
    if not corrected:
        return found
    measured = memory_records.measured(job, device)
    total = found.total_bytes + memory_records.correction(device) if measured is None else measured
    return _with_total(found, total, measured is not None)


def _refuse_unknown(job: TrainingJob) -> None:
    """Raises `UserError` for methods whose memory no formula here tells."""
    lora = job.lora
    unknown = {
        "training.objective": ("preference tuning", job.training.objective == "dpo"),
        "training.method": ("training every weight", job.training.method == "full"),
        "lora.modules_to_save": ("training parts in full", lora.modules_to_save != "none"),
        "lora.layers_to_transform": ("LoRA on some blocks", lora.layers_to_transform != "all"),
    }
    for field, (what, is_so) in unknown.items():
        if is_so:
            raise UserError(
                "estimate_unknown",
                "How much memory {what} takes is not known beforehand.",
                "Start with a batch size of 1, and raise it while memory is left."
                if field == "training.objective"
                else "Measure it by one real step: the button Measure, or the command probe.",
                field=field,
                what=what,
            )


def estimate_parameters(parameters: int, job: TrainingJob, device: Device) -> int:
    """Total bytes for a model of which only its number of parameters is known.

    Interpolated between the traces that come with the program, on a logarithmic scale.
    """
    known = sorted(memory_traces.shipped(), key=lambda trace: trace.parameters)
    below = [trace for trace in known if trace.parameters <= parameters][-1:] or known[:1]
    above = [trace for trace in known if trace.parameters > parameters][:1] or known[-1:]
    small, large = below[0], above[0]
    low, high = (evaluate(trace, job, device).total_bytes for trace in (small, large))
    if small is large:  # smaller or larger than all: by its weights
        per_parameter = memory_parts.weight_bytes(small, job) / small.parameters
        return max(0, int(low + (parameters - small.parameters) * per_parameter))
    share = math.log(parameters / small.parameters) / math.log(large.parameters / small.parameters)
    return int(low * (high / low) ** share)


def evaluate(trace: Trace, job: TrainingJob, device: Device) -> Estimate:
    """What a traced model needs with these settings on this device."""
    card = device.kind != "cpu"
    adapted = [linear for linear in trace.linears if linear.adapted]
    trained = sum(memory_parts.trained_sizes(adapted, job))
    optimizer = optimizer_part(optimizer_name(job, device), adapted, job)
    gradients = 4 * trained
    accumulates = job.training.gradient_accumulation_steps > 1

    # Beside weights, adapter and optimizer: the largest of several moments.
    top, bottom = step_bytes(trace, job, device, gradients)
    update = gradients + update_bytes(optimizer_name(job, device), adapted, job.lora.r, card)
    peak = max(top, bottom, update)
    held = gradients if accumulates or peak > top else 0
    activations = peak - held

    parts = (
        memory_parts.weights_part(trace, job),
        memory_parts.adapter_part(adapted, job),
        memory_parts.gradients_part(held, trained),
        optimizer,
        memory_parts.activations_part(trace, job, device, activations),
        memory_parts.overhead_part(device, activations),
    )
    total = sum(part.bytes for part in parts)
    needs = memory_needs.needs(trace, job, device, total, trained)
    return Estimate(parts, total, device, fit_of(total, device), needs)


def _with_total(found: Estimate, total: int, measured: bool) -> Estimate:
    """The estimate with another total, the difference put to what no formula tells."""
    difference = total - found.total_bytes
    if not difference:
        return found if not measured else _replaced(found, found.parts, total, True)
    last = found.part("overhead")
    word = "measured here" if measured else "measured here with other settings"
    changed = Part(
        last.name,
        last.bytes + difference,
        f"{last.formula}; {difference / MIB:+,.0f} MiB {word}",
        last.source,
    )
    parts = (*(part for part in found.parts if part is not last), changed)
    return _replaced(found, parts, total, measured)


def _replaced(found: Estimate, parts: tuple[Part, ...], total: int, measured: bool) -> Estimate:
    fit = fit_of(total, found.device)
    return Estimate(parts, total, found.device, fit, found.needs, measured)
