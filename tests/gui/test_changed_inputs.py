"""A run whose data changed goes on only when the person says so."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QMessageBox
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from training_backend import runs
from training_backend.errors import UserError
from training_backend.job import parse_job
from training_backend.lifecycle import inputs
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import RunFailed
from training_backend.runs import Run


def _run(code: str) -> Run:
    run = runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))
    inputs.check(run, {"data": "1"}, False)
    writer = JournalWriter(run.folder)
    writer.append(RunFailed.of(UserError(code, "The data changed since the run began.")))
    writer.close()
    return run


@pytest.fixture
def window(qtbot: QtBot) -> MainWindow:
    window = MainWindow()
    qtbot.addWidget(window)
    window.show()
    qtbot.waitUntil(lambda: len(window._pages) == len(window._builders))
    return window


@pytest.fixture
def resumed(window: MainWindow, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """What the trainer is asked to go on with; it does nothing here."""
    asked: list[Run] = []
    monkeypatch.setattr(window.training, "resume", asked.append)
    return asked


def _question(window: MainWindow) -> QMessageBox | None:
    return window.findChild(QMessageBox, "inputsChanged")


def _press(window: MainWindow, words: str) -> None:
    box = _question(window)
    assert box is not None
    next(button for button in box.buttons() if words in button.text()).click()


def test_another_end_is_resumed_without_asking(
    qtbot: QtBot, window: MainWindow, resumed: list[Run]
) -> None:
    run = _run("out_of_ram")
    window.desk.resume(run)
    qtbot.waitUntil(lambda: resumed == [run])
    assert _question(window) is None


def test_a_change_is_accepted_only_by_its_button(
    qtbot: QtBot, window: MainWindow, resumed: list[Run]
) -> None:
    run = _run("inputs_changed")
    window.desk.resume(run)
    qtbot.waitUntil(lambda: _question(window) is not None)
    assert not resumed
    _press(window, "Look again")
    assert resumed == [run] and inputs.waits_for_consent(run)

    qtbot.waitUntil(lambda: _question(window) is None)
    window.desk.resume(run)
    qtbot.waitUntil(lambda: _question(window) is not None)
    _press(window, "Go on")
    assert resumed == [run, run] and not inputs.waits_for_consent(run)
