"""What becomes of a run when its window is closed, hidden, or ended by the system."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QAbstractButton, QMessageBox, QSystemTrayIcon
from pytestqt.qtbot import QtBot

from app.desktop.end_signals import EndSignals
from app.desktop.notifier import Notifier
from app.desktop.one_window import bring_to_front
from app.main_window import MainWindow
from app.settings import Settings
from training_backend import runs
from training_backend.protocol import MetricsLogged, RunStopped
from training_backend.runs import Run


@pytest.fixture
def window(qtbot: QtBot) -> Iterator[MainWindow]:
    made = MainWindow()
    qtbot.addWidget(made)
    made.show()
    qtbot.waitUntil(lambda: made.is_built("navRuns"))
    yield made
    made.closing.close_now()


@pytest.fixture
def run(window: MainWindow) -> Run:
    """Under way, for all that the window knows."""
    made = runs.create(window.draft.job())
    window.training._run = made
    window.training.run_opened.emit(made)
    return made


@pytest.fixture
def with_tray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a desktop that has one; Qt's off-screen one has none."""
    monkeypatch.setattr(QSystemTrayIcon, "isSystemTrayAvailable", lambda: True)


def _end(window: MainWindow, run: Run) -> None:
    window.training._run = None
    window.training.run_ended.emit(run, RunStopped(step=3, checkpoint="x"))


def _press(qtbot: QtBot, window: MainWindow, text: str) -> None:
    window.close()
    dialog = window.findChild(QMessageBox, "closeDialog")
    next(b for b in dialog.buttons() if b.text().replace("&", "") == text).click()
    qtbot.waitUntil(lambda: window.findChild(QMessageBox, "closeDialog") is None)


def _icons(window: MainWindow) -> list[QSystemTrayIcon]:
    return window.tray.findChildren(QSystemTrayIcon)


def _choices(window: MainWindow) -> dict[str, QAction]:
    (icon,) = _icons(window)
    actions = icon.contextMenu().actions()
    return {action.text(): action for action in actions if not action.isSeparator()}


def test_staying_open_changes_nothing(qtbot: QtBot, window: MainWindow, run: Run) -> None:
    _press(qtbot, window, "Stay open")
    assert window.isVisible()
    assert not run.requested("stop")
    assert not _icons(window)


def test_stop_and_save_closes_when_the_run_has_ended(
    qtbot: QtBot, window: MainWindow, run: Run
) -> None:
    _press(qtbot, window, "Stop and save")
    assert run.requested("stop")
    assert window.isVisible()
    assert window.findChild(QAbstractButton, "stopButton").text() == "Saving"
    with qtbot.waitSignal(window.closed):
        _end(window, run)
    assert not window.isVisible()


def test_a_run_that_ended_while_the_question_stood_does_not_hold_the_window(
    qtbot: QtBot, window: MainWindow, run: Run
) -> None:
    window.close()
    dialog = window.findChild(QMessageBox, "closeDialog")
    _end(window, run)
    button = next(b for b in dialog.buttons() if b.text().replace("&", "") == "Stop and save")
    with qtbot.waitSignal(window.closed):
        button.click()


@pytest.mark.usefixtures("with_tray")
def test_in_the_tray_the_run_is_followed_and_a_click_shows_the_window(
    qtbot: QtBot, window: MainWindow, run: Run
) -> None:
    _press(qtbot, window, "Keep training in the tray")
    assert not window.isVisible()
    assert not run.requested("stop")
    window.training.event_arrived.emit(
        MetricsLogged(step=7, total_steps=90, epoch=0.1, loss=1.0, seconds_left=125.0)
    )
    (icon,) = _icons(window)
    assert icon.isVisible()
    assert icon.toolTip() == "Lorasmith: step 7 of 90, about 2 min left"
    choices = _choices(window)
    assert list(choices) == ["Show Lorasmith", "Stop and save", "Stop, save and quit"]
    choices["Stop and save"].trigger()
    assert run.requested("stop")
    assert not choices["Stop and save"].isEnabled()
    icon.activated.emit(QSystemTrayIcon.ActivationReason.Trigger)
    qtbot.waitUntil(lambda: window.isVisible() and not _icons(window))


@pytest.mark.usefixtures("with_tray")
def test_the_window_stays_within_reach_when_its_run_has_ended(
    qtbot: QtBot, window: MainWindow, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Notifier, "tell", lambda _, title, __: told.append(title))
    _press(qtbot, window, "Keep training in the tray")
    _end(window, run)
    assert told == ["Training has stopped"]
    (icon,) = _icons(window)
    assert icon.toolTip() == "Lorasmith: stopped"
    assert "Quit" in _choices(window)
    bring_to_front(window)  # as a second start does
    qtbot.waitUntil(lambda: window.isVisible() and not _icons(window))


@pytest.mark.usefixtures("with_tray")
def test_quitting_from_the_tray_saves_first(qtbot: QtBot, window: MainWindow, run: Run) -> None:
    _press(qtbot, window, "Keep training in the tray")
    _choices(window)["Stop, save and quit"].trigger()
    assert run.requested("stop")
    with qtbot.waitSignal(window.closed):
        _end(window, run)
    qtbot.waitUntil(lambda: not _icons(window))


@pytest.mark.usefixtures("with_tray")
def test_a_notice_and_a_hidden_window_share_one_icon(
    qtbot: QtBot, window: MainWindow, run: Run
) -> None:
    window.tray.tell("Training has finished", "first try")
    _press(qtbot, window, "Keep training in the tray")
    window.tray.tell("Training has finished", "second try")
    assert len(_icons(window)) == 1
    window.tray._tidy()  # the notice is over
    assert len(_icons(window)) == 1


def test_without_a_tray_the_window_is_minimised(qtbot: QtBot, window: MainWindow, run: Run) -> None:
    _press(qtbot, window, "Keep training, minimised")
    assert window.isMinimized()
    assert not _icons(window)
    window.close()  # from the task bar: the question is seen
    assert not window.isMinimized()
    assert window.findChild(QMessageBox, "closeDialog").isVisible()


def test_the_end_of_the_session_asks_the_run_and_not_the_person(
    window: MainWindow, run: Run
) -> None:
    window.draft.set_value("name", "before the end")
    window.closing.end_of_session()
    assert run.requested("stop")
    assert window.isVisible()  # the person may still take the logging out back
    assert Settings().draft() == window.draft.document()
    window.closing.end()
    assert not window.isVisible()
    assert window.findChild(QMessageBox, "closeDialog") is None


def test_after_a_logging_out_that_was_taken_back_the_next_run_is_asked_about(
    window: MainWindow, run: Run
) -> None:
    window.closing.end_of_session()
    _end(window, run)
    window.training._run = run
    window.training.run_opened.emit(run)
    window.close()
    assert window.isVisible()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_to_end_is_heard_by_an_idle_window(qtbot: QtBot, name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    signals = EndSignals()
    try:
        with qtbot.waitSignal(signals.asked):
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_DFL  # the next one ends us at once
    finally:
        signals.release()
    assert signal.getsignal(number) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_who_was_started_with_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = EndSignals()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signals.release()
    finally:
        signal.signal(signal.SIGHUP, before)
