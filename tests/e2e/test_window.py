"""The whole path in the real window: Start, live charts, Stop and save, export, reload."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from PySide6.QtCore import QCoreApplication, QEvent, Qt
from PySide6.QtWidgets import QApplication, QPushButton, QWizard
from pytestqt.qtbot import QtBot

from app import background, theme
from app.dialogs.export_wizard import ExportWizard
from app.main_window import MainWindow
from app.pages.train import TrainPage
from app.widgets.charts.plot import Plot
from training_backend import runs
from training_backend.protocol import RunCompleted, RunFailed, RunStopped, Terminal

LONG = 500_000  # ms: what trains or exports, on a busy computer
SETTINGS = {
    "name": "end to end",
    "training.max_steps": 2_000,  # it is stopped long before
    "training.max_length": 64,
    "training.per_device_train_batch_size": 1,
    "training.gradient_accumulation_steps": 1,
    "training.activation_checkpointing": False,
    "evaluation.prompts": [],
}
# A process of its own, with nothing of ours in it: what any other program would do.
RELOAD = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = sys.argv[1]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
text = tokenizer.apply_chat_template(
    [{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt",
    return_dict=True,
)
with torch.no_grad():
    assert torch.isfinite(model(**text).logits).all()
"""


@pytest.fixture
def window(
    qapp: QApplication,
    qtbot: QtBot,
    home_with_demo_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[MainWindow]:
    monkeypatch.setenv("LORASMITH_NO_WARM_UP", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    theme.apply(qapp, "light")
    made = MainWindow()
    for field, value in SETTINGS.items():
        made.draft.set_value(field, value)
    made.show()
    qtbot.waitUntil(lambda: made.findChild(Plot, "vramChart") is not None)
    yield made
    made.closing.close_now()
    background.shutdown()
    made.deleteLater()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


def _points(window: MainWindow, chart: str) -> int:
    """How many points stand in the chart, as drawn."""
    items = window.findChild(Plot, chart).listDataItems()
    return max((len(item.xData) for item in items if item.xData is not None), default=0)


def _press(qtbot: QtBot, window: MainWindow, name: str) -> None:
    button = window.findChild(QPushButton, name)
    assert button.isVisible(), name
    assert button.isEnabled(), name
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_start_watch_stop_export_reload(window: MainWindow, qtbot: QtBot) -> None:
    _press(qtbot, window, "navTrain")
    _press(qtbot, window, "startButton")

    qtbot.waitUntil(lambda: _points(window, "lossChart") >= 2, timeout=LONG)
    qtbot.waitUntil(lambda: _points(window, "vramChart") >= 2)
    memory_early = _points(window, "vramChart")
    qtbot.waitUntil(lambda: _points(window, "lossChart") >= 4)
    qtbot.waitUntil(lambda: _points(window, "vramChart") > memory_early)

    page = window.findChild(TrainPage)
    _press(qtbot, window, "pauseButton")
    pause = page.buttons.steer.pause
    qtbot.waitUntil(lambda: pause.isEnabled() and pause.text() == "Go on")
    points = _points(window, "lossChart")
    _press(qtbot, window, "pauseButton")
    qtbot.waitUntil(lambda: _points(window, "lossChart") > points)

    with qtbot.waitSignal(window.training.run_ended, timeout=LONG) as ended:
        _press(qtbot, window, "stopButton")
    run, terminal = ended.args
    assert isinstance(terminal, RunStopped)
    assert terminal.checkpoint is not None
    qtbot.waitUntil(lambda: page.buttons.resume.isVisible())

    window.desk.export(run)
    qtbot.waitUntil(lambda: window.findChild(QWizard, "exportWizard") is not None)
    wizard = window.findChild(QWizard, "exportWizard")
    export = wizard.button(QWizard.WizardButton.CommitButton)
    while not export.isVisible():
        qtbot.mouseClick(wizard.button(QWizard.WizardButton.NextButton), Qt.MouseButton.LeftButton)
    cast(ExportWizard, wizard).place.check.setChecked(False)
    with qtbot.waitSignal(window.exports.run_ended, timeout=LONG) as exported:
        _press(qtbot, window, "exportStartButton")
    folder = exported.args[1].folder
    wizard.accept()

    reload = subprocess.run(
        [sys.executable, "-c", RELOAD, folder], cwd=folder, capture_output=True, text=True
    )
    assert reload.returncode == 0, reload.stderr
    assert "torch" not in sys.modules


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_queued_runs_of_which_one_fails_end_unattended(
    window: MainWindow, qtbot: QtBot, tmp_path: Path
) -> None:
    """Added while the first is live; nobody presses anything after that."""
    ends: list[Terminal | None] = []
    window.training.run_ended.connect(lambda _, terminal: ends.append(terminal))
    window.draft.set_value("training.max_steps", 2)
    window.draft.set_value("name", "first")
    _press(qtbot, window, "navTrain")
    _press(qtbot, window, "startButton")
    qtbot.waitUntil(lambda: window.training.active() is not None)
    window.draft.set_value("name", "without its data")
    doomed = tmp_path / "rows.jsonl"
    doomed.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    before = window.draft.document()["dataset"]
    window.draft.choose_data(str(doomed))
    _press(qtbot, window, "queueButton")
    qtbot.waitUntil(lambda: len(window.queue.state.entries) == 1)
    doomed.unlink()  # as a drive that was pulled out
    window.draft.choose_data(before["path"])
    window.draft.set_value("name", "last")
    _press(qtbot, window, "queueButton")
    with qtbot.waitSignal(window.queue.drained, timeout=LONG):
        pass
    found = {summary.name: summary for summary in runs.list_runs()}
    states = {name: summary.state for name, summary in found.items()}
    assert states == {"first": "completed", "without its data": "failed", "last": "completed"}
    failure = found["without its data"].run.events()[-1]
    assert isinstance(failure, RunFailed)
    assert "rows.jsonl" in failure.message
    assert [type(end) for end in ends] == [RunCompleted, RunCompleted]
    page = cast(TrainPage, window.page("navTrain"))
    assert page.run() == found["last"].run  # it was live on the page that showed the first
    assert "torch" not in sys.modules
