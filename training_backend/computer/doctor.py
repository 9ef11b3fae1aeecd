"""What is installed here, what this computer has, and what would work on it."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training_backend import __version__, preferences
from training_backend.computer import nvidia, torch_build
from training_backend.computer.devices import Device, chosen_gpu, this_device
from training_backend.computer.nvidia import Gpu
from training_backend.computer.other_gpus import OtherGpu
from training_backend.errors import UserError
from training_backend.hardware import Hardware, probe
from training_backend.hub import hub_models
from training_backend.hub.hub_errors import endpoint
from training_backend.job import DatasetSection, ModelSection, TrainingJob, TrainingSection
from training_backend.memory.badges import badge
from training_backend.models import curated
from training_backend.models.catalog_entry import CatalogEntry
from training_backend.models.demo_model import demo_model_ready

_PACKAGES = (
    "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets",
    "huggingface_hub", "safetensors", "gguf", "PySide6-Essentials", "pyqtgraph",
)  # fmt: skip
_OPTIONAL = ("PySide6-Essentials", "pyqtgraph")
_GIB = 2**30

_CPU_BILLIONS = 0.5  # beyond this a step on a CPU takes minutes
# What is asked of a card for a first answer: short texts, one at a time.
_MODEST_JOB = TrainingJob(
    model=ModelSection(id="demo"),
    dataset=DatasetSection(path="demo"),
    training=TrainingSection(per_device_train_batch_size=1, max_length=512),
)

# AMD's chips that bitsandbytes 0.50 quantises to 4 bits on (its README); x stands for any.
_AMD_4BIT = ("gfx908", "gfx90a", "gfx942", "gfx950", "gfx1250", "gfx101", "gfx103", "gfx110",
             "gfx115", "gfx120")  # fmt: skip


def report(*, ask_hub: bool = False) -> dict[str, Any]:
    """Everything as one JSON document; no package is imported for it, torch included.

    Args:
        ask_hub: whether to see if the Hugging Face Hub answers; without it no connection is
            opened.

    Keys: `lorasmith` and `python` (versions), `hardware` (see `hardware.Hardware`), `packages`
    (name to version or None), `torch_cuda`, `torch_hip` and `torch_xpu` (the versions that torch
    was built for, or None), `device` (what training takes: see `devices.Device`), `cards` (for
    each of `hardware.gpus`: `uuid`, `chosen`, and `problem`, a clause on why it cannot be used or
    ""), `demo_model_ready`, `hub` (`endpoint`, `offline`, and `answers`: a sentence, None where it
    was not asked), `works` (what would work: `name`, `works`, `note`), `recommended`
    (`device`, `billions_4bit`, `billions_16bit`, `text`), `problems` and `hints` (sentences).
    """
    hardware = probe()
    build = torch_build.installed()
    packages = {name: _version(name) for name in _PACKAGES}
    card = chosen_gpu(hardware.gpus)
    device = this_device(hardware)
    return {
        "lorasmith": __version__,
        "python": platform.python_version(),
        "hardware": hardware.to_json(),
        "packages": packages,
        "torch_cuda": build.cuda,
        "torch_hip": build.hip,
        "torch_xpu": build.xpu,
        "device": asdict(device),
        "cards": [_card(gpu, hardware, card) for gpu in hardware.gpus],
        "demo_model_ready": demo_model_ready(),
        "hub": _hub(ask_hub),
        "works": _works(hardware, card),
        "recommended": _recommended(device),
        "problems": _problems(hardware, card, packages),
        "hints": _hints(hardware, card),
    }


def _hub(ask: bool) -> dict[str, Any]:
    answers = None
    if ask:
        try:
            hub_models.search("", limit=1)
            answers = "it answers"
        except UserError as error:
            answers = error.message
    return {"endpoint": endpoint(), "offline": preferences.is_offline(), "answers": answers}


def _card(gpu: Gpu, hardware: Hardware, chosen: Gpu | None) -> dict[str, Any]:
    hidden = gpu not in nvidia.visible(hardware.gpus)
    problem = "CUDA_VISIBLE_DEVICES leaves it out" if hidden else ""
    problem = torch_build.installed().why_not(gpu) or problem
    return {"uuid": gpu.uuid, "chosen": gpu == chosen, "problem": problem}


def _works(hardware: Hardware, card: Gpu | None) -> list[dict[str, Any]]:
    rows: list[tuple[str, bool, str]] = []
    if card is not None:
        capability = card.compute_capability
        in_4_bit = capability is None or capability >= torch_build.OLDEST_FOR_4BIT
        numbers = "bf16" if card.bf16 else "fp16: this card is too old for bf16"
        rows += [
            (
                "4-bit training (QLoRA) on the GPU",
                in_4_bit,
                f"on {card.name}" if in_4_bit else f"{card.name} is too old for bitsandbytes",
            ),
            ("16-bit training (LoRA) on the GPU", True, numbers),
        ]
    elif hardware.gpus:
        reasons = {_card(gpu, hardware, None)["problem"]: None for gpu in hardware.gpus}
        rows.append(("Training on a GPU", False, "; ".join(reasons)))
    else:
        rows += _other_cards(hardware)
    rows += [
        ("4-bit training (QLoRA) on the processor", True, "slow; for small models and for trying"),
        ("16-bit training (LoRA) on the processor", True, "bf16, as slow, with more memory"),
        ("Merging and exporting", True, "on the processor, one tensor at a time"),
    ]
    return [{"name": name, "works": works, "note": note} for name, works, note in rows]


def _other_cards(hardware: Hardware) -> list[tuple[str, bool, str]]:
    """What holds without a card from NVIDIA that can be used. Nothing here has been tried."""
    if hardware.apple_silicon:
        note = (
            "Lorasmith uses the processor here. PyTorch and bitsandbytes know this GPU, 4-bit "
            "included, but 8-bit optimizers not yet; Lorasmith has not been tried on it"
        )
        return [("Training on the GPU of Apple silicon", False, note)]
    amd = [gpu for gpu in hardware.other_gpus if gpu.maker == "AMD"]
    intel = [gpu for gpu in hardware.other_gpus if gpu.maker == "Intel"]
    rows = [_amd(gpu) for gpu in amd]
    if intel:
        note = (
            "Lorasmith uses the processor here. PyTorch and bitsandbytes know Arc and Data Center "
            "Max cards; Lorasmith has not been tried on them"
        )
        rows.append(("Training on Intel graphics", False, note))
    return rows or [("Training on a GPU", False, hardware.no_gpu_because)]


def _amd(gpu: OtherGpu) -> tuple[str, bool, str]:
    what = f"Training on {gpu.name}"
    if torch_build.installed().hip is None:
        return what, False, (
            "it needs PyTorch for ROCm, which Lorasmith does not install; Lorasmith has not been "
            "tried on AMD's cards"
        )  # fmt: skip
    if gpu.architecture and not gpu.architecture.startswith(_AMD_4BIT):
        return what, True, f"in 16-bit only: bitsandbytes does not know {gpu.architecture}; untried"
    return what, True, "PyTorch and bitsandbytes support it; Lorasmith has not been tried on it"


def _recommended(device: Device) -> dict[str, Any]:
    """The largest models of the catalogue that fit, in 4-bit and in 16-bit."""
    on_card = device.kind != "cpu"
    fits = {entry: badge(entry, _MODEST_JOB, device) for entry in curated.models()}
    in_16_bit = _largest(entry for entry, fit in fits.items() if fit in ("comfortable", "tight"))
    in_4_bit = _largest(
        entry for entry, fit in fits.items() if fit in ("comfortable", "tight", "fits_in_4bit")
    )
    if in_4_bit is None or in_16_bit is None:
        text = (
            f"little memory is free on {device.name}: close other programs, or use the processor."
        )
    elif on_card:
        text = (
            f"models of up to about {_size(in_4_bit)} parameters in 4-bit (such as "
            f"{in_4_bit.title}), or {_size(in_16_bit)} in 16-bit (such as {in_16_bit.title}), on "
            f"short texts, with what is free on {device.name} now."
        )
    else:
        text = (
            f"models of up to about {_CPU_BILLIONS * 1000:.0f} million parameters, on the "
            "processor: a step takes seconds. For larger ones an NVIDIA card is needed."
        )
    limit = float("inf") if on_card else _CPU_BILLIONS
    return {
        "device": device.name if on_card else "cpu",
        "billions_4bit": min(limit, _billions(in_4_bit)),
        "billions_16bit": min(limit, _billions(in_16_bit)),
        "text": text,
    }


def _largest(entries: Iterable[CatalogEntry]) -> CatalogEntry | None:
    return max(entries, key=_billions, default=None)


def _billions(entry: CatalogEntry | None) -> float:
    return round((entry.parameters or 0) / 1e9, 1) if entry else 0.0


def _size(entry: CatalogEntry) -> str:
    size = _billions(entry)
    return f"{size:.0f} billion" if size >= 10 else f"{size:g} billion"


def _problems(hardware: Hardware, card: Gpu | None, packages: dict[str, str | None]) -> list[str]:
    build = torch_build.installed()
    problems = [
        f"The package {name} is not installed."
        for name, found in packages.items()
        if found is None and name not in _OPTIONAL
    ]
    if hardware.gpus and packages["torch"] and build == torch_build.TorchBuild():
        problems.append(
            "There is an NVIDIA card, but the installed PyTorch is for the processor only. "
            "Run packaging/bootstrap.py again: it picks the build that fits."
        )
    elif card is None:
        problems += [
            f"{gpu.name} cannot be used: {reason}."
            for gpu in hardware.gpus
            if (reason := build.why_not(gpu))
        ]
    problems += [
        f"There is an NVIDIA card ({gpu.name}), but NVIDIA's driver is not running. Install it, "
        "then run packaging/bootstrap.py again."
        for gpu in hardware.other_gpus
        if gpu.maker == "NVIDIA"
    ]
    places = [(hardware.home, hardware.disk_free_bytes)]
    if hardware.models_free_bytes is None:
        problems.append(f"The drive of the models' folder is not there: {hardware.models_folder}.")
    elif hardware.models_free_bytes != hardware.disk_free_bytes:  # it is another drive
        places.append((hardware.models_folder, hardware.models_free_bytes))
    problems += [
        f"Little room is left on the disk: {free / _GIB:.1f} GiB for {folder}."
        for folder, free in places
        if free < 5 * _GIB
    ]
    return problems


def _hints(hardware: Hardware, card: Gpu | None) -> list[str]:
    hints = []
    if card is not None and card.wddm:
        hints.append(
            "On Windows, what does not fit on the card moves into the computer's memory without a "
            "word, and training becomes about eight times slower: leave a part of the card free."
        )
    if any(gpu.mig for gpu in hardware.gpus):
        hints.append("A card here is divided (MIG): training takes one instance of it.")
    if card is not None and card.used_bytes > card.total_bytes // 4:
        hints.append(
            f"Other programs hold {card.used_bytes / _GIB:.1f} GiB of {card.name}. Closing them "
            "leaves more for training."
        )
    if hardware.ram_limited:
        hints.append("This program may use only a part of the computer's memory (a container).")
    return hints


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
