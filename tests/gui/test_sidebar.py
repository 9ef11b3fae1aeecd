"""The memory at the foot is read all the time, from the card where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel, QProgressBar
from pytestqt.qtbot import QtBot

from app.widgets import sidebar
from app.widgets.sidebar import MemoryMeter
from tests.fake_nvml import FakeCard, FakeNvml
from training_backend import preferences
from training_backend.computer.nvidia import GpuSample
from training_backend.preferences import Preferences

GIB = 2**30


class FakeReader:
    def __init__(self, sample: GpuSample | None) -> None:
        self._sample = sample

    def read(self) -> GpuSample | None:
        return self._sample


def card(used: int) -> GpuSample:
    return GpuSample(0, "NVIDIA RTX 4090", None, used, 24 * GIB, 0.97, 71.0, 310.0)


def texts(meter: MemoryMeter) -> list[str]:
    return [label.text() for label in meter.findChildren(QLabel)]


def test_card_is_shown(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidebar, "READ_EVERY_MS", 20)
    FakeNvml(monkeypatch)
    monkeypatch.setattr(sidebar, "GpuReader", lambda uuid: FakeReader(card(12 * GIB)))
    meter = MemoryMeter()
    qtbot.addWidget(meter)
    meter.show()
    qtbot.waitUntil(lambda: texts(meter) == ["NVIDIA RTX 4090", "12.0 of 24.0 GB, 71 °C"])
    assert meter.findChild(QProgressBar).value() == 500


def test_memory_of_the_computer_without_a_card(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeNvml(monkeypatch, cuda=None)  # the card is there, but training cannot use it
    meter = MemoryMeter()
    qtbot.addWidget(meter)
    assert texts(meter)[0] == "Memory, no GPU found"
    assert texts(meter)[1].endswith("GB")


def test_the_chosen_card_is_shown_once_it_is_chosen(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, lorasmith_home: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sidebar, "READ_EVERY_MS", 20)
    FakeNvml(monkeypatch, FakeCard("GPU-a", "First"), FakeCard("GPU-b", "Second"))
    meter = MemoryMeter()
    qtbot.addWidget(meter)
    meter.show()
    qtbot.waitUntil(lambda: texts(meter)[0] == "First")
    preferences.save(Preferences(gpu="GPU-b"))
    meter.reopen()
    qtbot.waitUntil(lambda: texts(meter)[0] == "Second")


def test_nothing_is_read_while_hidden(qtbot: QtBot) -> None:
    meter = MemoryMeter()
    qtbot.addWidget(meter)
    meter.show()
    assert meter._timer.isActive()
    meter.hide()
    assert not meter._timer.isActive()
