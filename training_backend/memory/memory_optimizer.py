"""What an optimizer keeps of a LoRA from step to step, and takes for a moment while it steps."""

from __future__ import annotations

import math

from training_backend.computer.devices import Device
from training_backend.job import TrainingJob
from training_backend.memory.memory_parts import Part, trained_sizes
from training_backend.memory.memory_traces import Linear

# Running means that bitsandbytes keeps of each trained number, a byte each.
_MEANS_IN_8BIT = {"adamw_8bit": 2, "paged_adamw_8bit": 2, "lion_8bit": 1, "ademamix_8bit": 3}


def optimizer_name(job: TrainingJob, device: Device) -> str:
    """The optimizer that the job means: "auto" is paged 8-bit AdamW on a card, AdamW elsewhere."""
    if job.training.optim != "auto":
        return job.training.optim
    return "paged_adamw_8bit" if device.kind in ("cuda", "xpu") else "adamw_torch"


def optimizer_part(name: str, adapted: list[Linear], job: TrainingJob) -> Part:
    """The optimizer's states of the trained tensors of each adapted layer."""
    counts = trained_sizes(adapted, job)
    trained = sum(counts)
    if name in ("adamw_torch", "adamw_torch_fused", "paged_adamw_32bit"):
        return Part(
            "optimizer",
            8 * trained,
            f"{trained:,} trained numbers × 8 bytes: two running means in 32-bit" + _paged(name),
            "AdamW (arXiv 1711.05101), as PyTorch holds it",
        )
    if name in _MEANS_IN_8BIT:
        means = _MEANS_IN_8BIT[name]
        small = sum(n for n in counts if n < 4096)
        size = 4 * small + sum(n + 4 * math.ceil(n / 256) for n in counts if n >= 4096)
        return Part(
            "optimizer",
            means * size,
            f"{trained - small:,} trained numbers × {means} bytes and {means} scales for every 256 "
            "of them"
            + (f"; {small:,} in small matrices × {4 * means} bytes" if small else "")
            + _paged(name),
            "8-bit optimizers (arXiv 2110.02861), as bitsandbytes holds them",
        )
    if name == "adafactor":
        edges = sum(x.count * (2 * job.lora.r + x.rows + x.columns) for x in adapted)
        if job.lora.use_dora:  # what has one dimension is not factored
            edges += sum(x.count * x.rows for x in adapted)
        return Part(
            "optimizer",
            4 * edges,
            f"{edges:,} row and column means × 4 bytes",
            "Adafactor (arXiv 1804.04235), factored and without momentum",
        )
    return Part("optimizer", 0, "0: plain SGD keeps no state", "PyTorch's SGD without momentum")


def update_bytes(name: str, adapted: list[Linear], rank: int, card: bool) -> int:
    """What the optimizer takes for a moment while it updates the trained numbers."""
    sizes = [rank * max(x.rows, x.columns) for x in adapted]
    largest = max(sizes, default=0)
    if name == "adamw_torch" and card:  # all at once, for speed
        return 4 * rank * sum(x.count * (x.rows + x.columns) for x in adapted)
    return 8 * largest if name in ("adamw_torch", "adafactor") else 0


def _paged(name: str) -> str:
    return "; it can give way to RAM when the card is full" if "paged" in name else ""
