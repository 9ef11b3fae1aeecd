"""Settings to begin with, from the goal, the model, the data and the device; each with its reason.

The rules are those of the LoRA and QLoRA papers and of what practice added: rank 16 and alpha
twice the rank to begin, all linear layers, 16-bit LoRA where it fits and 4-bit where memory is
short, smaller micro-batches and recomputation before anything that costs quality. Light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from training_backend import vram
from training_backend.computer.devices import Device
from training_backend.job import TrainingJob
from training_backend.job_rules import conflicts
from training_backend.memory import make_fit
from training_backend.memory.make_fit import Lengths

Goal = Literal["style", "facts", "format", "reasoning"]
GOALS: tuple[Goal, ...] = get_args(Goal)

EFFECTIVE_BATCH = 16
SMALL_BATCH = 8  # of little data, which otherwise gives few steps
FEW_ROWS = 200
SOME_ROWS = 1_000
MANY_ROWS = 10_000
SMALL_MODEL = 500_000_000  # parameters; such a model takes and needs larger steps


@dataclass(frozen=True)
class Advice:
    """One setting with the value to take and one sentence why."""

    field: str
    value: Any
    reason: str


def advise(
    job: TrainingJob,
    goal: Goal,
    device: Device,
    *,
    parameters: int | None = None,
    rows: int | None = None,
    lengths: Lengths | None = None,
) -> tuple[list[Advice], list[str]]:
    """What to set, in the order of the form, and honest remarks beside it.

    Args:
        parameters: of the base model.
        rows: of the data, where they were counted.
        lengths: tokens with the number of rows that have so many.

    Raises:
        TraceNeeded, UserError: as `vram.estimate_job`.
    """
    small = parameters is not None and parameters < SMALL_MODEL
    # An adapter to start from has its own rank, alpha and layers.
    adapter = _adapter(goal, rows) if job.model.adapter is None else []
    found = [*adapter, *_schedule(goal, small, rows), *_length(job, lengths)]
    planned = make_fit.changed(job, {item.field: item.value for item in found})
    batch = SMALL_BATCH if rows is not None and rows < SOME_ROWS else EFFECTIVE_BATCH
    memory, remarks = _memory(planned, device, batch)
    order = [*memory, *found]
    return order, [*remarks, *_remarks(goal, rows)]


def _adapter(goal: Goal, rows: int | None) -> list[Advice]:
    rank = {"style": 16, "facts": 32, "format": 8, "reasoning": 32}[goal]
    why = {
        "style": "16 is a good start and enough for a way of speaking.",
        "facts": "New facts need more room in the adapter than a style does.",
        "format": "A format is easily learned; 8 serves most tasks.",
        "reasoning": "Complex reasoning gains from 32 to 64; beyond 64 little is won.",
    }[goal]
    few = rows is not None and rows < FEW_ROWS
    return [
        Advice("lora.r", rank, why),
        Advice("lora.lora_alpha", 2 * rank, "Twice the rank is a good start."),
        Advice(
            "lora.lora_dropout",
            0.05 if few else 0.0,
            "Few rows are soon learned by heart; leaving out a little helps against that."
            if few
            else "Fastest; only few rows, soon learned by heart, need it.",
        ),
        Advice(
            "lora.target_modules",
            "all-linear",
            "All attention and MLP layers learn more than a few, and QLoRA needs all of them.",
        ),
    ]


def _schedule(goal: Goal, small: bool, rows: int | None) -> list[Advice]:
    epochs, why = _epochs(goal, rows)
    rate, why_rate = (
        (1e-3, "A small model learns a new style only with larger steps; up to 1e-3 is sound.")
        if small and goal in ("style", "format")
        else (2e-4, "The usual rate for LoRA; a higher one can destabilise.")
    )
    return [
        Advice("training.num_train_epochs", epochs, why),
        Advice("training.max_steps", -1, "The whole data is gone through."),
        Advice("training.learning_rate", rate, why_rate),
    ]


def _epochs(goal: Goal, rows: int | None) -> tuple[float, str]:
    if rows is not None and rows > MANY_ROWS:
        return 1.0, "With so many rows once is mostly enough."
    if rows is not None and rows < FEW_ROWS:
        return 3.0, "More often, and so few rows would be learned by heart."
    if goal == "facts":
        return 4.0, "Facts stick only when they are met several times."
    return 3.0, "Two or three times suit this much data."


def _length(job: TrainingJob, lengths: Lengths | None) -> list[Advice]:
    """The shortest usual limit that keeps nearly all rows whole."""
    if not lengths:
        return []
    total = sum(count for _, count in lengths)
    for limit in (256, 512, 1024, 2048, 4096, 8192):
        whole = sum(count for size, count in lengths if size <= limit)
        if whole >= 0.99 * total:
            return [
                Advice(
                    "training.max_length",
                    limit,
                    f"Keeps {100 * whole / total:.3g} % of your rows whole; longer costs memory "
                    "for nothing.",
                )
            ]
    return []


def _memory(job: TrainingJob, device: Device, batch: int) -> tuple[list[Advice], list[str]]:
    """4 bits or 16, rows at once and recomputation, by what fits comfortably."""
    choices = [
        (in_4bit, recomputes, rows)
        for in_4bit in (False, True)
        for recomputes in (False, True)
        for rows in (8, 4, 2, 1)
        if recomputes or rows >= 2  # recomputing beats a single row at a time
        # Some starts of an adapter need the 16-bit model.
        if not conflicts(make_fit.changed(job, _memory_fields(in_4bit, recomputes, rows, batch)))
    ]
    for in_4bit, recomputes, rows in choices:
        candidate = make_fit.changed(job, _memory_fields(in_4bit, recomputes, rows, batch))
        if _estimate(candidate, device).fit == "comfortable":
            return _memory_advice(device, in_4bit, recomputes, rows, batch), []
    remarks = ["Even so it does not fit comfortably: see “Make it fit”, or take a smaller model."]
    return (_memory_advice(device, *choices[-1], batch) if choices else []), remarks


def _estimate(job: TrainingJob, device: Device) -> vram.Estimate:
    """With dropout, which takes a trace of its own, as far as that was made already."""
    try:
        return vram.estimate_job(job, device)
    except vram.TraceNeeded:
        return vram.estimate_job(make_fit.changed(job, {"lora.lora_dropout": 0.0}), device)


def _memory_fields(in_4bit: bool, recomputes: bool, rows: int, batch: int) -> dict[str, Any]:
    return {
        "quantization.load_in_4bit": in_4bit,
        "training.activation_checkpointing": recomputes,
        "training.activation_checkpointing_every_n_layers": 1,
        "training.per_device_train_batch_size": rows,
        "training.gradient_accumulation_steps": batch // rows,
    }


def _memory_advice(
    device: Device, in_4bit: bool, recomputes: bool, rows: int, batch: int
) -> list[Advice]:
    fidelity = "a little closer to full fine-tuning."
    reasons = {
        "quantization.load_in_4bit": "Memory is short for the 16-bit model; 4 bits cost 1–2 % of "
        "quality and some speed."
        if in_4bit
        else f"The 16-bit model fits: {'faster, and ' if device.kind != 'cpu' else ''}{fidelity}",
        "training.activation_checkpointing": "Saves most of the activations; about a third slower."
        if recomputes
        else "There is room to keep the activations, which is faster.",
        "training.activation_checkpointing_every_n_layers": "All layers alike.",
        "training.per_device_train_batch_size": "As many rows at once as fit comfortably.",
        "training.gradient_accumulation_steps": f"{batch} rows a step suit this much data.",
    }
    fields = _memory_fields(in_4bit, recomputes, rows, batch)
    return [Advice(field, value, reasons[field]) for field, value in fields.items()]


def _remarks(goal: Goal, rows: int | None) -> list[str]:
    remarks = []
    if goal == "facts":
        remarks.append(
            "LoRA is weak at new facts. Where answers must be right, looking them up in documents "
            "at question time (retrieval) often serves better."
        )
    if rows is not None and rows < FEW_ROWS:
        remarks.append(
            f"{rows:,} rows are few. A style can work with 50 to 200 good ones; anything else "
            "wants more."
        )
    return remarks
