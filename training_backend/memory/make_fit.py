"""What to change when a job does not fit its device, and what to do with memory left over.

Every change keeps the effective batch (rows at once times accumulation), so the run learns the
same from each step. The order is that of least harm first: what costs only time, then what costs
precision, then what costs data or ability. Light; each change is an estimate of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training_backend import vram
from training_backend.computer.devices import Device
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.job_rules import conflicts
from training_backend.models import curated
from training_backend.vram import Estimate, Fit

SHORTEST = 128  # tokens; below that few rows are worth learning from
SMALLEST_RANK = 8  # serves most tasks; less seldom helps memory
# Lengths with the number of rows that have each; as in the report of the data's check.
Lengths = Sequence[tuple[float, int]]


@dataclass(frozen=True)
class Suggestion:
    """One change of a job, or several at once.

    `changes` are fields (`section.key`) with their new values. `saved_bytes` is negative where
    memory is spent for speed. `title` and `cost` are English sentences.
    """

    code: str
    title: str
    cost: str
    changes: dict[str, Any]
    saved_bytes: int
    total_bytes: int
    fit: Fit

    @property
    def fits(self) -> bool:
        return self.fit != "does_not_fit"


@dataclass(frozen=True)
class Plan:
    """Changes that together make a job fit; or, with `fits` false, all that could be done."""

    steps: tuple[Suggestion, ...]
    changes: dict[str, Any]
    total_bytes: int
    fits: bool


def suggestions(
    job: TrainingJob, device: Device, lengths: Lengths | None = None
) -> list[Suggestion]:
    """Changes that need less memory, each on its own, the one of least harm first.

    Each goes as far as it must for the job to fit, or, where that fits already but is tight, to
    fit comfortably.

    Args:
        lengths: of the rows in tokens, to tell what a shorter limit would cut.

    Raises:
        TraceNeeded, UserError: as `vram.estimate_job`.
    """
    now = vram.estimate_job(job, device)
    wanted = ("comfortable", "tight") if now.fit == "does_not_fit" else ("comfortable",)
    found = []
    for kind in _KINDS:
        options = list(_options(kind, job, now, device, lengths))
        # The mildest that is enough; where none is, the one that saves most.
        fitting = [option for option in options if option.fit in wanted]
        best = fitting[0] if fitting else max(options, key=lambda o: o.saved_bytes, default=None)
        if best is not None:
            found.append(best)
    return found


def plan(job: TrainingJob, device: Device, lengths: Lengths | None = None) -> Plan:
    """The fewest changes, in the order of least harm, that together make the job fit.

    Raises:
        TraceNeeded, UserError: as `vram.estimate_job`.
    """
    steps: list[Suggestion] = []
    made, estimate = job, vram.estimate_job(job, device)
    for kind in _KINDS:
        if estimate.fit != "does_not_fit":
            break
        options = list(_options(kind, made, estimate, device, lengths))
        fitting = [option for option in options if option.fits]
        if not options:
            continue
        step = fitting[0] if fitting else max(options, key=lambda option: option.saved_bytes)
        steps.append(step)
        made = changed(made, step.changes)
        estimate = vram.estimate_job(made, device)
    steps = _as_mild_as_possible(job, device, lengths, steps)
    changes = _changes(steps)
    total = vram.estimate_job(changed(job, changes), device)
    return Plan(tuple(steps), changes, total.total_bytes, total.fit != "does_not_fit")


def faster(job: TrainingJob, device: Device) -> list[Suggestion]:
    """What would make the run faster or finer and still fit comfortably; the best first.

    Raises:
        TraceNeeded, UserError: as `vram.estimate_job`.
    """
    now = vram.estimate_job(job, device)
    found = []
    for kind in _SPENDING:
        options = [o for o in _options(kind, job, now, device, None) if o.fit == "comfortable"]
        if options:
            found.append(options[0])
    return found


def unmeasured(job: TrainingJob, device: Device) -> Iterator[Suggestion]:
    """The mildest change of each kind that needs less memory, where it cannot be told how much.

    Its sizes mean nothing.
    """
    for kind in _KINDS:
        for title, cost, changes in _ways(kind, job, device, None):
            if not conflicts(changed(job, changes)):
                yield Suggestion(kind, title, cost, changes, 0, 0, "tight")
                break


def _as_mild_as_possible(
    job: TrainingJob, device: Device, lengths: Lengths | None, steps: list[Suggestion]
) -> list[Suggestion]:
    """Drop what later steps made needless, and take back as much of the rest as they allow.

    The last kinds first: they do the most harm.
    """
    kept = list(steps)
    if not steps or not steps[-1].fits:
        return kept
    for step in reversed(steps):
        others = [other for other in kept if other is not step]
        without = changed(job, _changes(others))
        estimate = vram.estimate_job(without, device)
        if estimate.fit != "does_not_fit":
            kept = others
            continue
        options = _options(step.code, without, estimate, device, lengths)
        milder = next((option for option in options if option.fits), step)
        kept = [milder if other is step else other for other in kept]
    return kept


def _changes(steps: Sequence[Suggestion]) -> dict[str, Any]:
    return {field: value for step in steps for field, value in step.changes.items()}


# --- the kinds of change ----------------------------------------------------------------------

_KINDS = (
    "micro_batch", "checkpointing", "optimizer", "four_bit", "max_length", "rank", "smaller_model",
)  # fmt: skip
_SPENDING = ("less_checkpointing", "larger_batch", "sixteen_bit")


def _options(
    kind: str, job: TrainingJob, now: Estimate, device: Device, lengths: Lengths | None
) -> Iterator[Suggestion]:
    """The changes of one kind, the mildest first; of those that should save, the ones that do."""
    saves = kind in _KINDS
    for title, cost, changes in _ways(kind, job, device, lengths):
        other = changed(job, changes)
        if conflicts(other):
            continue
        try:
            after = vram.estimate_job(other, device)
        except (vram.TraceNeeded, UserError):
            continue
        saved = now.total_bytes - after.total_bytes
        if saved > 0 or not saves:
            yield Suggestion(kind, title, cost, changes, saved, after.total_bytes, after.fit)


def _ways(
    kind: str, job: TrainingJob, device: Device, lengths: Lengths | None
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Titles, costs and changes; where the figures come from is said in docs/memory.md."""
    training = job.training
    match kind:
        case "micro_batch":
            yield from _micro_batches(job, smaller=True)
        case "larger_batch":
            yield from _micro_batches(job, smaller=False)
        case "checkpointing":
            every = training.activation_checkpointing_every_n_layers
            now = every if training.activation_checkpointing else None
            for step in (4, 3, 2, 1):
                if not training.activation_checkpointing or step < every:
                    yield (
                        "Compute the activations of every layer again"
                        if step == 1
                        else f"Compute the activations of one layer in {step} again",
                        f"Up to {_percent(1 - _work(now) / _work(step))} slower; the result is "
                        "the same.",
                        _checkpointing(step),
                    )
        case "less_checkpointing" if training.activation_checkpointing:
            every = training.activation_checkpointing_every_n_layers
            yield (
                "Keep all activations instead of computing them again",
                f"Up to {_percent(_work(every) / _work(None) - 1)} faster; the result is the same.",
                {"training.activation_checkpointing": False},
            )
            for step in (4, 3, 2):
                if step > every:
                    yield (
                        f"Compute the activations of only one layer in {step} again",
                        f"Up to {_percent(_work(every) / _work(step) - 1)} faster; the result is "
                        "the same.",
                        _checkpointing(step),
                    )
        case "optimizer" if vram.optimizer_name(job, device) == "adamw_torch":
            on_card = device.kind != "cpu"
            yield (
                "Hold the optimizer's memory in 8 bits"
                + (", and in RAM when the card is full" if on_card else ""),
                "Hardly slower; results are about the same.",
                {"training.optim": "paged_adamw_8bit" if on_card else "adamw_8bit"},
            )
        case "four_bit" if not job.quantization.load_in_4bit:
            yield (
                "Load the model in 4 bits (QLoRA)",
                ("About 22 % slower" if device.kind != "cpu" else "About as fast on a processor")
                + "; quality within 1–2 % of 16-bit LoRA.",
                {"quantization.load_in_4bit": True},
            )
        case "sixteen_bit" if job.quantization.load_in_4bit:
            yield (
                "Train on the 16-bit model (LoRA instead of QLoRA)",
                ("About 25 % faster, and a" if device.kind != "cpu" else "About as fast, but a")
                + " little closer to full fine-tuning.",
                {"quantization.load_in_4bit": False},
            )
        case "max_length":
            yield from _shorter(training.max_length, lengths)
        case "rank" if job.model.adapter is None:  # an adapter to start from has its own
            yield from _smaller_ranks(job)
        case "smaller_model":
            for entry in curated.smaller(job.model.id):
                yield (
                    f"Take a smaller model: {entry.title}",
                    "Faster, but it knows and can do less.",
                    {"model.id": entry.id, "model.revision": None, "model.adapter": None},
                )


def _micro_batches(job: TrainingJob, *, smaller: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Other ways to write the same effective batch as rows times accumulation."""
    rows = job.training.per_device_train_batch_size
    effective = rows * job.training.gradient_accumulation_steps
    sizes = [size for size in range(1, min(effective, 64) + 1) if effective % size == 0]
    chosen = [s for s in reversed(sizes) if s < rows] if smaller else [s for s in sizes if s > rows]
    for size in chosen if smaller else reversed(chosen):
        noun = "row" if size == 1 else "rows"
        yield (
            f"{size} {noun} at once instead of {rows}, accumulated {effective // size} times",
            "A little slower; each step still learns from the same rows."
            if smaller
            else "Faster where the card is not busy; each step still learns from the same rows.",
            {
                "training.per_device_train_batch_size": size,
                "training.gradient_accumulation_steps": effective // size,
            },
        )


def _work(recomputed_every: int | None) -> float:
    """Arithmetic of a step in multiples of the forward pass.

    Once forward and once backward, since the base takes no gradients of its own, and once more
    for the layers that are computed again; None for no layer. Other work is not in it, so that a
    ratio says how much slower or faster a step is at most.
    """
    return 2.0 + (1.0 / recomputed_every if recomputed_every else 0.0)


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def _checkpointing(every: int) -> dict[str, Any]:
    return {
        "training.activation_checkpointing": True,
        "training.activation_checkpointing_every_n_layers": every,
    }


def _shorter(length: int, lengths: Lengths | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for share in (0.75, 0.5, 0.375, 0.25, 0.125):
        shorter = int(length * share) // 8 * 8
        if SHORTEST <= shorter < length:
            yield (
                f"Cut rows at {shorter:,} tokens instead of {length:,}",
                _cut(shorter, lengths),
                {"training.max_length": shorter},
            )


def _cut(length: int, lengths: Lengths | None) -> str:
    if not lengths:
        return "What is longer is lost; the Data page shows how much that is."
    rows = sum(count for _, count in lengths)
    tokens = sum(size * count for size, count in lengths)
    longer = [(size, count) for size, count in lengths if size > length]
    if not longer:
        return "No row of your data is that long, so nothing is lost."
    cut = 100 * sum(count for _, count in longer) / rows
    lost = 100 * sum((size - length) * count for size, count in longer) / tokens
    return f"Cuts {cut:.2g} % of your rows; {lost:.2g} % of all tokens are lost."


def _smaller_ranks(job: TrainingJob) -> Iterator[tuple[str, str, dict[str, Any]]]:
    rank = job.lora.r // 2
    while rank >= SMALLEST_RANK:
        yield (
            f"Rank {rank} instead of {job.lora.r}, alpha in proportion",
            "A smaller adapter; rank 8 still serves most tasks.",
            {
                "lora.r": rank,
                "lora.lora_alpha": max(1, round(job.lora.lora_alpha * rank / job.lora.r)),
            },
        )
        rank //= 2


def changed(job: TrainingJob, changes: dict[str, Any]) -> TrainingJob:
    """The job with a suggestion's changes made."""
    sections: dict[str, dict[str, Any]] = {}
    for field, value in changes.items():
        section, _, key = field.partition(".")
        sections.setdefault(section, {})[key] = value
    return job.model_copy(
        update={
            section: getattr(job, section).model_copy(update=values)
            for section, values in sections.items()
        }
    )
