"""Measure: one real step from the window, what it says of it, and when that no longer counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app.desks.probe_controller import Measurement, ProbeController
from app.draft import JobDraft
from app.run_controller import RunController
from app.widgets.settings.probe_panel import ProbePanel
from training_backend.protocol import MemoryMeasured, PhaseChanged

SMALL = {
    "training.max_steps": 100,
    "training.max_length": 32,
    "training.per_device_train_batch_size": 1,
    "training.gradient_accumulation_steps": 1,
}
GIB = 2**30


@pytest.fixture
def training(qtbot: QtBot) -> Iterator[RunController]:
    made = RunController()
    yield made
    made.shutdown()


@pytest.fixture
def controller(training: RunController) -> Iterator[ProbeController]:
    made = ProbeController(training)
    yield made
    made.shutdown()


@pytest.fixture
def draft() -> JobDraft:
    made = JobDraft()
    made.set_values(SMALL)
    return made


@pytest.fixture
def panel(qtbot: QtBot, draft: JobDraft, controller: ProbeController) -> ProbePanel:
    made = ProbePanel(draft, controller)
    qtbot.addWidget(made)
    made.resize(700, 60)
    made.show()
    return made


def says(panel: ProbePanel) -> str:
    return panel.findChild(QLabel, "measureText").text()


def result(**values: Any) -> MemoryMeasured:
    known: dict[str, Any] = {
        "device": "cuda", "device_total_bytes": 24 * GIB, "fits": True, "longest_tokens": 32,
        "measured_bytes": int(7.2 * GIB), "full_length": True, "estimate_bytes": 7 * GIB,
        "run_seconds": 1200.0,
    }  # fmt: skip
    return MemoryMeasured(**{**known, **values})


def give(controller: ProbeController, draft: JobDraft, **values: Any) -> None:
    """As if this had just been measured."""
    controller.newest = Measurement(draft.job(), result(**values))
    controller.ended.emit()


def test_what_was_measured_stands_beside_the_estimate_until_settings_differ(
    panel: ProbePanel, controller: ProbeController, draft: JobDraft
) -> None:
    assert "one real step" in says(panel)
    give(controller, draft)
    assert says(panel) == (
        "Measured 7.2 GB (estimate 7.0) with rows of 32 tokens. The whole run takes about 20 min."
    )
    draft.set_value("training.learning_rate", 1e-4)  # which takes no memory
    assert says(panel).startswith("Measured 7.2 GB (estimate")
    draft.set_value("lora.r", 64)
    assert says(panel) == "Measured with other settings: 7.2 GB."
    assert not panel.text.isEnabled()
    draft.set_value("lora.r", 0)
    assert not panel.button.isEnabled()
    draft.set_value("lora.r", 16)
    assert says(panel).startswith("Measured 7.2 GB (estimate")
    assert panel.button.isEnabled() and panel.text.isEnabled()


def test_running_out_of_memory_offers_to_make_it_fit(
    qtbot: QtBot, panel: ProbePanel, controller: ProbeController, draft: JobDraft
) -> None:
    fix = panel.findChild(QPushButton, "measureMakeItFit")
    assert not fix.isVisible()
    give(controller, draft, fits=False, ran_out="in the second step", measured_bytes=23 * GIB)
    assert says(panel) == ("Does not fit: out of memory in the second step, at 23.0 GB of 24.0 GB.")
    with qtbot.waitSignal(panel.make_it_fit_requested):
        qtbot.mouseClick(fix, Qt.MouseButton.LeftButton)
    draft.set_value("training.per_device_train_batch_size", 2)
    assert not fix.isVisible()


def test_how_far_it_is_is_told_with_the_time_left(
    panel: ProbePanel, controller: ProbeController
) -> None:
    controller.began.emit()
    assert panel.button.text() == "Cancel"
    controller.progressed.emit(
        PhaseChanged(phase="measuring", fraction=0.5, detail="32 tokens a row", seconds_left=20.0)
    )
    assert says(panel) == "Trying one step, 32 tokens a row, 50 %, about 20 s left"


@pytest.mark.slow
def test_a_real_step_of_the_demo_model(
    qtbot: QtBot,
    home_with_demo_model: Path,
    panel: ProbePanel,
    controller: ProbeController,
    training: RunController,
) -> None:
    training.warm_up()
    qtbot.waitUntil(lambda: training._warm is not None)
    warmed = training._warm
    with qtbot.waitSignal(controller.measured, timeout=500_000) as told:
        qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    assert told.args[0].result.fits and told.args[0].result.measured_bytes > 300_000_000
    qtbot.waitUntil(lambda: says(panel).startswith("Measured "))
    assert training._warm is None and warmed is not None  # its worker did it
    folder = home_with_demo_model / "probe-runs"
    qtbot.waitUntil(lambda: not list(folder.iterdir()))
    # And once more, cancelled while the libraries are imported.
    with qtbot.waitSignal(controller.ended):
        qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
        qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
        assert says(panel) == "Cancelling"
    assert says(panel).startswith("Measured ")  # what was known before
    qtbot.waitUntil(lambda: not list(folder.iterdir()))


def test_no_step_is_tried_while_a_training_holds_the_memory(
    qtbot: QtBot, panel: ProbePanel, training: RunController, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "is_busy", lambda: True)
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    error = panel.findChild(QLabel, "measureError")
    assert "A training is under way" in error.text()
    assert panel.button.text() == "Measure"
