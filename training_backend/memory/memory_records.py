"""What probes measured on this computer: `memory/measurements.json` below home.

A measurement of the very same settings replaces the estimate; those of other settings tell how
much this computer's card takes beyond what the traces account for.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from typing import Any

from training_backend import paths
from training_backend.computer.devices import Device
from training_backend.files import write_json_atomic
from training_backend.job import TrainingJob

KEPT = 200  # newest measurements; more would tell nothing new
FEW = 3  # below this many, one odd measurement could mislead

# What of a job decides about memory, besides the model.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "model": ("id", "revision", "adapter"),
    "quantization": (),
    "lora": (
        "r",
        "lora_dropout",
        "target_modules",
        "layers_to_transform",
        "modules_to_save",
        "use_rslora",
        "use_dora",
    ),
    "training": (
        "method",
        "objective",
        "per_device_train_batch_size",
        "max_length",
        "packing",
        "padding_free",
        "activation_checkpointing",
        "activation_checkpointing_every_n_layers",
        "optim",
        "torch_compile",
        "fast_paths",
    ),
}


def remember(
    job: TrainingJob,
    device: Device,
    estimate_bytes: int,
    measured_bytes: int,
    *,
    longest_tokens: int | None = None,
) -> None:
    """Store what one real step of `job` took at its peak on `device`.

    Args:
        estimate_bytes: what the estimate said of the same job, without any correction.
        measured_bytes: what the process held, all included.
        longest_tokens: tokens in the longest row of the batch, where it was shorter than
            `max_length`; such a measurement corrects but does not replace an estimate.
    """
    entry = {
        "job": _key(job),
        "device": _device_key(device),
        "estimate_bytes": estimate_bytes,
        "measured_bytes": measured_bytes,
        "full_length": longest_tokens is None or longest_tokens >= job.training.max_length,
        "time": time.time(),
    }
    entries = [
        old for old in _entries() if (old["job"], old["device"]) != (entry["job"], entry["device"])
    ]
    folder = paths.home() / "memory"
    folder.mkdir(exist_ok=True)
    write_json_atomic(folder / "measurements.json", [*entries, entry][-KEPT:])


def measured(job: TrainingJob, device: Device) -> int | None:
    """Bytes that this job took here with full rows, if that was measured; no imagined card's."""
    if device.imagined:
        return None
    for entry in reversed(_entries()):
        if (entry["job"], entry["device"]) == (_key(job), _device_key(device)):
            return int(entry["measured_bytes"]) if entry["full_length"] else None
    return None


def correction(device: Device) -> int:
    """Bytes to add to every estimate on this device: the median of what was measured beyond it.

    0 until there are a few measurements. May be negative.
    """
    if device.imagined:
        return 0
    beyond = [
        entry["measured_bytes"] - entry["estimate_bytes"]
        for entry in _entries()
        if entry["device"] == _device_key(device)
    ]
    return int(statistics.median(beyond)) if len(beyond) >= FEW else 0


def same_memory(job: TrainingJob, other: TrainingJob) -> bool:
    """Whether two jobs take the same memory on rows of the same length."""
    return _key(job) == _key(other)


def _entries() -> list[dict[str, Any]]:
    """All measurements, oldest first; a damaged file reads as none."""
    try:
        text = (paths.home() / "memory" / "measurements.json").read_text(encoding="utf-8")
        entries = json.loads(text)
        return [
            entry
            for entry in entries
            if {"job", "device", "estimate_bytes", "measured_bytes", "full_length"} <= set(entry)
        ]
    except (OSError, ValueError, TypeError):
        return []


def _key(job: TrainingJob) -> str:
    document = job.model_dump(mode="json")
    chosen = {
        section: {name: document[section].get(name) for name in names or document[section]}
        for section, names in _SETTINGS.items()
    }
    # With more than one micro-batch a step holds gradients while it goes on.
    chosen["training"]["accumulates"] = job.training.gradient_accumulation_steps > 1
    text = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _device_key(device: Device) -> str:
    return device.uuid or f"{device.kind} {device.name}"
