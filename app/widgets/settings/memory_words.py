"""Memory in plain words: the device, whether a job fits it, what moves each part."""

from __future__ import annotations

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

from app.widgets import figures
from training_backend.computer.devices import Device
from training_backend.memory.memory_parts import PartName
from training_backend.vram import Estimate

_PARTS: dict[PartName, tuple[str, str]] = {
    "weights": (
        str(QT_TRANSLATE_NOOP("memory", "Model")),
        str(QT_TRANSLATE_NOOP("memory", "4-bit loading, or a smaller model")),
    ),
    "adapter": (
        str(QT_TRANSLATE_NOOP("memory", "Adapter")),
        str(QT_TRANSLATE_NOOP("memory", "the rank and the adapted layers")),
    ),
    "gradients": (
        str(QT_TRANSLATE_NOOP("memory", "Gradients")),
        str(QT_TRANSLATE_NOOP("memory", "the rank and the adapted layers")),
    ),
    "optimizer": (
        str(QT_TRANSLATE_NOOP("memory", "Optimizer")),
        str(QT_TRANSLATE_NOOP("memory", "the optimizer, the rank and the adapted layers")),
    ),
    "activations": (
        str(QT_TRANSLATE_NOOP("memory", "Activations")),
        str(QT_TRANSLATE_NOOP("memory", "batch size, longest row and activation checkpointing")),
    ),
    "overhead": (
        str(QT_TRANSLATE_NOOP("memory", "Overhead")),
        str(QT_TRANSLATE_NOOP("memory", "nothing here; Measure finds out what it really is")),
    ),
}


def part_name(part: PartName) -> str:
    return _tr(_PARTS[part][0])


def part_moved_by(part: PartName) -> str:
    """The settings that a part depends on."""
    return _tr(_PARTS[part][1])


def device_name(device: Device) -> str:
    """Whose memory it is."""
    if device.kind == "cpu":
        return _tr("this computer's RAM, training on the processor")
    return device.name


def verdict(estimate: Estimate) -> tuple[str, str]:
    """Whether it fits, in a sentence, with the colour's role."""
    free = estimate.device.available_bytes
    words = {
        "comfortable": (_tr("Fits comfortably: {needed} of {free} free"), "good"),
        "tight": (_tr("Tight: {needed} of {free} free"), "careful"),
        "does_not_fit": (_tr("Does not fit: {missing} too much"), "error"),
    }
    template, role = words[estimate.fit]
    text = template.format(
        needed=figures.decimal(estimate.total_bytes / figures.GIGABYTE, 1),
        free=figures.gigabytes(free),
        missing=figures.gigabytes(estimate.total_bytes - free),
    )
    return (_tr("{verdict} (measured)").format(verdict=text) if estimate.measured else text), role


def needs(estimate: Estimate) -> list[tuple[str, str]]:
    """What else a job needs, by what it is for."""
    found = estimate.needs
    return [
        (_tr("RAM while training"), figures.gigabytes(found.training_ram)),
        (_tr("Disk for checkpoints and adapter"), figures.gigabytes(found.training_disk)),
        (_tr("RAM to merge"), figures.gigabytes(found.merge_ram)),
        (_tr("Disk for the merged model"), figures.gigabytes(found.merge_disk)),
        (_tr("RAM to make a GGUF file"), figures.gigabytes(found.gguf_ram)),
        (_tr("Disk to make a GGUF file"), figures.gigabytes(found.gguf_disk)),
    ]


def _tr(text: str) -> str:
    return QCoreApplication.translate("memory", text)
