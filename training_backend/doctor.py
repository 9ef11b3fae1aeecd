"""What is installed here, what this computer has, and what would work on it."""

from __future__ import annotations

import importlib.util
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training_backend.demo_model import demo_model_ready
from training_backend.hardware import Gpu, Hardware, probe

_PACKAGES = (
    "torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets",
    "huggingface_hub", "safetensors", "gguf", "PySide6-Essentials", "pyqtgraph",
)  # fmt: skip
_OPTIONAL = ("PySide6-Essentials", "pyqtgraph")
_GIB = 2**30

# Rules of thumb for a first answer; `estimate` reckons a given job exactly. GiB taken by each
# billion parameters, and by everything else (short texts, batch 1, recomputation on).
_GIB_PER_BILLION_4BIT = 0.75
_GIB_PER_BILLION_16BIT = 2.6
_GIB_BESIDES = 2.5
_CPU_BILLIONS = 0.5  # beyond this a step on a CPU takes minutes


def report() -> dict[str, Any]:
    """Everything as one JSON document; no package is imported for it, torch included.

    Keys: `python`, `hardware` (see `hardware.Hardware`), `packages` (name to version or None),
    `torch_cuda` (the CUDA version that torch was built for, or None), `demo_model_ready`,
    `works` (what would work: `name`, `works`, `note`), `recommended` (`device`,
    `billions_4bit`, `billions_16bit`, `text`) and `problems` (sentences).
    """
    hardware = probe()
    packages = {name: _version(name) for name in _PACKAGES}
    cuda = _torch_cuda()
    card = _best_card(hardware, cuda)
    return {
        "python": platform.python_version(),
        "hardware": hardware.to_json(),
        "packages": packages,
        "torch_cuda": cuda,
        "demo_model_ready": demo_model_ready(),
        "works": _works(hardware, card),
        "recommended": _recommended(hardware, card),
        "problems": _problems(hardware, packages, cuda),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report in plain words, some twenty lines."""
    hardware = report["hardware"]
    lines = ["This computer"]
    for gpu in hardware["gpus"]:
        lines.append(
            f"  GPU         {gpu['name']}: {_gib(gpu['free_bytes'])} of "
            f"{_gib(gpu['total_bytes'])} free"
        )
    if not hardware["gpus"]:
        lines.append("  GPU         none from NVIDIA that can be used")
    lines += [
        f"  Processor   {hardware['cpu']}, {hardware['cores']} cores",
        f"  Memory      {_gib(hardware['ram_available_bytes'])} of "
        f"{_gib(hardware['ram_total_bytes'])} free",
        f"  Disk        {_gib(hardware['disk_free_bytes'])} free for {hardware['home']}",
        f"  System      {hardware['system']}, Python {report['python']}",
        "",
        "What would work here",
    ]
    lines += [
        f"  {'yes' if row['works'] else 'no ':3} {row['name']}: {row['note']}"
        for row in report["works"]
    ]
    lines += ["", f"Recommended: {report['recommended']['text']}"]
    ready = "ready" if report["demo_model_ready"] else "not prepared yet"
    lines += [f"Demo model: {ready}.", "", "Packages"]
    lines += [f"  {name:19} {found or 'missing'}" for name, found in report["packages"].items()]
    if report["problems"]:
        lines += ["", "Problems", *(f"  ! {problem}" for problem in report["problems"])]
    return "\n".join(lines)


def _best_card(hardware: Hardware, cuda: str | None) -> Gpu | None:
    """The card with most free memory that the installed torch can use."""
    usable = [gpu for gpu in hardware.gpus if cuda and _is_young_enough(gpu, cuda)]
    return max(usable, key=lambda gpu: gpu.free_bytes, default=None)


def _is_young_enough(gpu: Gpu, cuda: str) -> bool:
    """PyTorch for CUDA 13 dropped Volta and older, that for CUDA 12 Maxwell to Pascal."""
    oldest = (7, 5) if int(cuda.partition(".")[0]) >= 13 else (7, 0)
    return gpu.compute_capability is None or gpu.compute_capability >= oldest


def _works(hardware: Hardware, card: Gpu | None) -> list[dict[str, Any]]:
    rows: list[tuple[str, bool, str]] = []
    if card is not None:
        numbers = "bf16" if card.bf16 else "fp16: this card is too old for bf16"
        rows += [
            ("4-bit training (QLoRA) on the GPU", True, f"on {card.name}"),
            ("16-bit training (LoRA) on the GPU", True, numbers),
        ]
    else:
        note = "the installed PyTorch cannot use the card"
        rows.append(("Training on a GPU", False, note if hardware.gpus else _without_gpu(hardware)))
    rows += [
        ("4-bit training (QLoRA) on the processor", True, "slow; for small models and for trying"),
        ("16-bit training (LoRA) on the processor", True, "bf16, as slow, with more memory"),
        ("Merging and exporting", True, "on the processor, one tensor at a time"),
    ]
    return [{"name": name, "works": works, "note": note} for name, works, note in rows]


def _recommended(hardware: Hardware, card: Gpu | None) -> dict[str, Any]:
    free = (card.free_bytes if card else hardware.ram_available_bytes) / _GIB
    limit = float("inf") if card else _CPU_BILLIONS
    sizes = [
        _rounded(min(limit, max(0.0, free - _GIB_BESIDES) / cost))
        for cost in (_GIB_PER_BILLION_4BIT, _GIB_PER_BILLION_16BIT)
    ]
    if card is None:
        text = (
            f"models of up to about {_billions(sizes[0])} parameters, on the processor: "
            "a step takes seconds. For larger ones an NVIDIA card is needed."
        )
    elif sizes[0] == 0:
        text = f"little memory is free on {card.name}: close other programs, or use the processor."
    else:
        text = (
            f"models of up to about {_billions(sizes[0])} parameters in 4-bit, or "
            f"{_billions(sizes[1])} in 16-bit, with what is free on {card.name} now."
        )
    return {
        "device": card.name if card else "cpu",
        "billions_4bit": sizes[0],
        "billions_16bit": sizes[1],
        "text": text,
    }


def _problems(hardware: Hardware, packages: dict[str, str | None], cuda: str | None) -> list[str]:
    problems = [
        f"The package {name} is not installed."
        for name, found in packages.items()
        if found is None and name not in _OPTIONAL
    ]
    if cuda:
        problems += [
            f"{gpu.name} is too old for the installed PyTorch (CUDA {cuda})."
            for gpu in hardware.gpus
            if not _is_young_enough(gpu, cuda)
        ]
    elif hardware.gpus and packages["torch"]:
        problems.append(
            "There is an NVIDIA card, but the installed PyTorch is for the processor only. "
            "Run packaging/bootstrap.py again: it picks the build that fits."
        )
    if hardware.disk_free_bytes < 5 * _GIB:
        problems.append(f"Little room is left on the disk: {_gib(hardware.disk_free_bytes)}.")
    return problems


def _without_gpu(hardware: Hardware) -> str:
    if hardware.apple_silicon:
        return "Apple silicon, whose GPU Lorasmith has not been tried on"
    return hardware.no_gpu_because


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch_cuda() -> str | None:
    """The CUDA version of the installed torch, read from its version file, not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found.group(1) if found else None


def _rounded(billions: float) -> float:
    """Rounded down to what people say: whole billions, below ten half ones, below one tenths."""
    step = 1.0 if billions >= 10 else 0.5 if billions >= 1 else 0.1
    return round(int(billions / step + 1e-9) * step, 1)


def _billions(size: float) -> str:
    return f"{size * 1000:.0f} million" if size < 1 else f"{size:g} billion"


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
