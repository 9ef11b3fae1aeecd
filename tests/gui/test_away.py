"""What became of the queue while nobody looked is told once, with what can be done next."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest
from PySide6.QtWidgets import QApplication, QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app.desks.run_desk import RunDesk
from app.desktop.notifier import Notifier
from app.main_window import MainWindow
from app.pages.runs import RunsPage
from app.settings import Settings
from app.widgets.runs.queue_card import QueueCard
from app.widgets.runs.summary_card import SummaryCard
from tests.gui.settling import settle
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import MetricsLogged, RunCompleted, RunFailed, RunStarted, Terminal
from training_backend.queueing import queue_summary, run_queue
from training_backend.runs import Run
from training_backend.starting_points.demo import demo_job
from training_backend.summaries.run_facts import RunFacts


def _end(run: Run, terminal: Terminal) -> None:
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(MetricsLogged(step=1, total_steps=1, epoch=1.0, loss=1.25))
    writer.append(terminal)
    writer.close()


def _queued(*names: str) -> list[Run]:
    return run_queue.add([demo_job().model_copy(update={"name": name}) for name in names])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(Notifier, "tell", lambda self, title, text: found.append((title, text)))
    return found


@pytest.fixture
def window(qtbot: QtBot, told: list[tuple[str, str]]) -> Iterator[MainWindow]:
    """A window that is not the first of this home."""
    Settings().set_told_until(time.time())
    made = MainWindow()
    qtbot.addWidget(made)
    yield made
    made.closing.close_now()


def _shown(qtbot: QtBot, window: MainWindow) -> None:
    window.show()
    qtbot.waitUntil(lambda: window.is_built("navRuns"))


def _card(window: MainWindow) -> SummaryCard:
    return cast(SummaryCard, window.findChild(SummaryCard))


def _texts(window: MainWindow) -> list[str]:
    return [label.text() for label in _card(window).findChildren(QLabel)]


def test_what_ended_while_the_window_was_closed_is_told_at_its_start_and_once(
    qtbot: QtBot, window: MainWindow
) -> None:
    good, bad, saved = _queued("good", "bad <b>", "saved")
    _end(good, RunCompleted(folder="x"))
    _end(bad, RunFailed(code="x", message="The disk is full.", remedy="Make room."))
    _end(saved, RunFailed(code="x", message="Out of memory."))
    (saved.checkpoints / "checkpoint-5").mkdir(parents=True)
    _shown(qtbot, window)
    qtbot.waitUntil(lambda: _card(window).isVisible())
    assert window.page("navRuns").isVisible()
    texts = _texts(window)
    assert {"good", "bad <b>", "The disk is full. Make room.", "Out of memory."} <= set(texts)
    assert any(text.startswith("loss 1.250") for text in texts)
    assert any("1 run came to the end, 2 failed" in text for text in texts)
    buttons = [button.accessibleName() for button in _card(window).findChildren(QPushButton)]
    assert {"Open: good", "Open: bad <b>", "Resume: saved"} <= set(buttons)
    # Above a queue, in the smallest window, nothing lies over anything else.
    _queued(*(f"waits {number}" for number in range(8)))
    window.queue.refresh()
    queue = cast(QueueCard, window.findChild(QueueCard))
    qtbot.waitUntil(lambda: queue.rows.rowCount() == 8)
    window.resize(1040, 640)
    qtbot.waitUntil(lambda: window.height() == 640)
    qtbot.wait(50)
    table = queue.table.geometry()
    assert table.height() >= 60
    assert table.bottom() < queue.up_button.geometry().top()
    assert _card(window).geometry().bottom() < queue.geometry().top()
    window.close()
    again = MainWindow()
    qtbot.addWidget(again)
    _shown(qtbot, again)
    settle(qtbot)
    assert not _card(again).isVisible()


def test_its_buttons_lead_on_and_dismiss_takes_it_away(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Run] = []
    monkeypatch.setattr(RunDesk, "open_run", lambda self, run: opened.append(run))
    (run,) = _queued("good")
    _end(run, RunCompleted(folder="x"))
    _shown(qtbot, window)
    qtbot.waitUntil(lambda: _card(window).isVisible())
    open_button = next(b for b in _card(window).findChildren(QPushButton) if b.text() == "Open")
    open_button.click()
    assert opened == [run]
    window.findChild(QPushButton, "dismissSummaryButton").click()
    assert not _card(window).isVisible()
    assert (Settings().told_until() or 0) > run.events()[-1].time


def test_who_has_gone_to_a_page_by_then_keeps_it(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer, ended_since = threading.Event(), queue_summary.ended_since

    def slow(since: float) -> list[RunFacts]:
        may_answer.wait(30)
        return ended_since(since)

    here = QApplication.activeWindow
    monkeypatch.setattr(queue_summary, "ended_since", slow)
    monkeypatch.setattr(QApplication, "activeWindow", object)  # it is ours
    (run,) = _queued("good")
    _end(run, RunCompleted(folder="x"))
    _shown(qtbot, window)
    window.go_to("navSettings")
    may_answer.set()
    qtbot.waitUntil(lambda: _card(window).isVisibleTo(_card(window).parentWidget()))
    monkeypatch.setattr(QApplication, "activeWindow", here)
    assert window.page("navSettings").isVisible()


def test_a_queue_that_ends_in_the_background_is_notified_and_shown(
    qtbot: QtBot,
    window: MainWindow,
    told: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _shown(qtbot, window)
    window.go_to("navSettings")
    (run,) = _queued("good")
    _end(run, RunCompleted(folder="x"))
    here = QApplication.activeWindow
    monkeypatch.setattr(QApplication, "activeWindow", lambda: None)
    window.queue.drained.emit()
    qtbot.waitUntil(lambda: _card(window).isVisible())
    monkeypatch.setattr(QApplication, "activeWindow", here)
    assert told == [("The queue has ended", "1 run came to the end.")]
    assert cast(RunsPage, window.page("navRuns")).isVisible()


def test_who_sees_the_queue_end_is_told_nothing_more(
    qtbot: QtBot,
    window: MainWindow,
    told: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _shown(qtbot, window)
    (run,) = _queued("good")
    _end(run, RunCompleted(folder="x"))
    monkeypatch.setattr(QApplication, "activeWindow", object)
    window.queue.drained.emit()
    settle(qtbot)
    assert not _card(window).isVisible()
    assert told == []


def test_a_run_of_its_own_is_notified_at_its_end(
    qtbot: QtBot, window: MainWindow, told: list[tuple[str, str]]
) -> None:
    (run,) = _queued("alone")
    window.training.run_ended.emit(run, RunFailed(code="x", message="The disk is full."))
    assert told == [("Training has failed", "alone: The disk is full.")]
