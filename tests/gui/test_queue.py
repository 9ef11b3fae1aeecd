"""The queue in the window: its order, who starts next, what stops it; training is stood in for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from PySide6.QtCore import QModelIndex, QObject, Qt, Signal
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QLabel, QMessageBox
from pytestqt.qtbot import QtBot

from app import background
from app.desks.queue_controller import QueueController
from app.desktop.keep_awake import KeepAwake
from app.main_window import MainWindow
from app.models.queue_model import TIME
from app.pages.train import TrainPage
from app.run_controller import RunController
from app.widgets.runs.queue_card import QueueCard
from tests.gui.settling import settle
from training_backend import preferences, runs
from training_backend.computer.stay_awake import StayAwake, _cannot
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle import preflight
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import RunCompleted, RunFailed, RunStarted, RunStopped, Terminal
from training_backend.queueing import queue_file, run_queue
from training_backend.runs import Run

REAL_CHECK = preflight.check


class StandIn(QObject):
    """A `RunController` that trains nothing: a run ends when the test says so."""

    run_opened = Signal(object)
    run_ended = Signal(object, object)
    refused = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[Run] = []
        self.live: Run | None = None
        self.stopped = False

    def resume(self, run: Run) -> None:
        self.begun.append(run)
        self.live, self.stopped = run, False

    def end(self, terminal: Terminal) -> None:
        run, self.live = self.live, None
        assert run is not None
        _end(run, terminal)
        self.run_ended.emit(run, terminal)

    def is_busy(self) -> bool:
        return self.live is not None

    def stop_was_asked(self) -> bool:
        return self.stopped

    def names(self) -> list[str]:
        return [run.training_job().name for run in self.begun]


def _end(run: Run, terminal: Terminal) -> None:
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(terminal)
    writer.close()


def _job(model: Path, name: str) -> TrainingJob:
    job = parse_job(
        {"version": 1, "name": name, "model": {"id": str(model)}, "dataset": {"path": "demo"}}
    )
    assert isinstance(job, TrainingJob)
    return job


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Enough of a model for the checks before a run."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    return folder


@pytest.fixture
def training() -> StandIn:
    return StandIn()


@pytest.fixture
def queue(
    qtbot: QtBot, training: StandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[QueueController]:
    monkeypatch.setattr(run_queue.preflight, "check", lambda job: None)  # no real model here
    made = QueueController(cast(RunController, training))
    yield made
    made.shutdown()
    background.shutdown()


@pytest.fixture
def card(qtbot: QtBot, queue: QueueController, training: StandIn) -> Iterator[QueueCard]:
    awake = KeepAwake(cast(RunController, training), queue)
    made = QueueCard(queue, awake)
    qtbot.addWidget(made)
    made.resize(900, 300)
    yield made
    awake.shutdown()
    qtbot.waitUntil(  # one that is importing takes a moment to see it
        lambda: not any(thread.name == "stay-awake" for thread in threading.enumerate()),
    )


def _names(queue: QueueController) -> list[str]:
    return [entry.name for entry in queue.state.entries]


def _add(qtbot: QtBot, queue: QueueController, model: Path, *names: str) -> None:
    queue.add([_job(model, name) for name in names])
    qtbot.waitUntil(lambda: _names(queue)[-len(names) :] == list(names))


def test_nothing_starts_until_the_person_says_so(
    qtbot: QtBot, queue: QueueController, training: StandIn, card: QueueCard, model: Path
) -> None:
    assert not card.isVisibleTo(None)
    _add(qtbot, queue, model, "one", "two")
    assert not card.isHidden()
    settle(qtbot)
    assert training.begun == []
    card.go_button.click()
    qtbot.waitUntil(lambda: training.names() == ["one"])
    assert queue_file.is_worked_on()


def test_the_next_run_follows_one_that_completed_and_one_that_failed(
    qtbot: QtBot, queue: QueueController, training: StandIn, model: Path
) -> None:
    _add(qtbot, queue, model, "one", "two", "three")
    queue.start()
    qtbot.waitUntil(lambda: training.names() == ["one"])
    training.end(RunCompleted(folder="x"))
    qtbot.waitUntil(lambda: training.names() == ["one", "two"])
    training.end(RunFailed(code="x", message="Out of memory."))
    qtbot.waitUntil(lambda: training.names() == ["one", "two", "three"])
    with qtbot.waitSignal(queue.drained):
        training.end(RunCompleted(folder="x"))
    qtbot.waitUntil(lambda: not queue_file.is_worked_on())
    assert not queue.is_going()
    assert [run.state() for run in training.begun] == ["completed", "failed", "completed"]


def test_a_run_added_while_another_is_under_way_follows_it(
    qtbot: QtBot, queue: QueueController, training: StandIn, model: Path
) -> None:
    by_hand = runs.create(_job(model, "by hand"))
    training.resume(by_hand)
    _add(qtbot, queue, model, "next")
    qtbot.waitUntil(queue.is_going)
    assert training.names() == ["by hand"]
    training.end(RunCompleted(folder="x"))
    qtbot.waitUntil(lambda: training.names() == ["by hand", "next"])


def test_a_run_that_was_stopped_pauses_the_queue_and_the_card_says_so(
    qtbot: QtBot, queue: QueueController, training: StandIn, card: QueueCard, model: Path
) -> None:
    _add(qtbot, queue, model, "one", "two")
    queue.start()
    qtbot.waitUntil(lambda: training.names() == ["one"])
    training.stopped = True
    training.end(RunStopped(step=3))
    qtbot.waitUntil(lambda: run_queue.is_paused() and not queue_file.is_worked_on())
    qtbot.waitUntil(lambda: "because a run was stopped" in card._status.text())
    assert training.names() == ["one"]
    assert card.go_button.text() == "Start queue"
    card.go_button.click()
    qtbot.waitUntil(lambda: training.names() == ["one", "two"])


def test_a_run_that_cannot_start_is_ended_with_the_reason_and_the_next_one_starts(
    qtbot: QtBot, queue: QueueController, training: StandIn, model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(run_queue.preflight, "check", REAL_CHECK)  # the model has no weights
    _add(qtbot, queue, model, "no weights", "nothing there")
    failed = [entry.run for entry in queue.state.entries]
    with qtbot.waitSignal(queue.drained):
        queue.start()
    assert training.begun == []
    ends = [run.events()[-1] for run in failed]
    assert all(isinstance(end, RunFailed) and end.message for end in ends)


def test_pause_lets_the_run_under_way_end_and_starts_no_other(
    qtbot: QtBot, queue: QueueController, training: StandIn, card: QueueCard, model: Path
) -> None:
    _add(qtbot, queue, model, "one", "two")
    queue.start()
    qtbot.waitUntil(lambda: training.names() == ["one"])
    assert card.go_button.text() == "Pause after this run"
    card.go_button.click()
    training.end(RunCompleted(folder="x"))
    qtbot.waitUntil(lambda: not queue_file.is_worked_on())
    qtbot.waitUntil(lambda: _names(queue) == ["two"])
    assert training.names() == ["one"]
    assert "paused" in card._status.text()


def test_rows_are_moved_by_keys_buttons_and_dragging_and_moving_is_undone(
    qtbot: QtBot, queue: QueueController, card: QueueCard, model: Path
) -> None:
    _add(qtbot, queue, model, "a", "b", "c")
    card.show()
    card.table.selectRow(2)
    card.table.setFocus()
    card.activateWindow()
    QTest.keyClick(card.table, Qt.Key.Key_Up, Qt.KeyboardModifier.AltModifier)
    qtbot.waitUntil(lambda: _names(queue) == ["a", "c", "b"])
    card.up_button.click()  # what was moved is still selected
    qtbot.waitUntil(lambda: _names(queue) == ["c", "a", "b"])
    dropped = card.rows.mimeData([card.rows.index(0, 0)])
    end = card.rows.rowCount()
    assert not card.rows.dropMimeData(dropped, Qt.DropAction.MoveAction, end, 0, QModelIndex())
    qtbot.waitUntil(lambda: _names(queue) == ["a", "b", "c"])
    card.undo_button.click()
    qtbot.waitUntil(lambda: _names(queue) == ["c", "a", "b"])
    assert not card.undo_button.isVisible()
    assert [entry.name for entry in run_queue.entries()] == ["c", "a", "b"]


def test_removing_is_undone_even_of_the_last_one(
    qtbot: QtBot, queue: QueueController, card: QueueCard, model: Path
) -> None:
    _add(qtbot, queue, model, "only")
    folder = queue.state.entries[0].run.folder
    card.show()
    card.table.setFocus()
    card.activateWindow()
    QTest.keyClick(card.table, Qt.Key.Key_Delete)
    qtbot.waitUntil(lambda: queue.state.entries == ())
    assert not folder.exists()
    assert card.isVisible()
    card.undo_button.click()
    qtbot.waitUntil(lambda: _names(queue) == ["only"])
    assert folder.is_dir()


def test_what_another_program_works_through_is_left_to_it(
    qtbot: QtBot, queue: QueueController, training: StandIn, card: QueueCard, model: Path
) -> None:
    _add(qtbot, queue, model, "one")
    with run_queue.working():
        queue.start()
        qtbot.waitUntil(lambda: "Another program" in card._errors.text())
        qtbot.waitUntil(lambda: "Another program" in card._status.text())
        assert card.go_button.isHidden()
    assert training.begun == []
    queue.refresh()
    qtbot.waitUntil(lambda: not card.go_button.isHidden())


def test_a_damaged_order_is_told_and_loses_no_run(
    qtbot: QtBot, queue: QueueController, card: QueueCard, model: Path, home: Path
) -> None:
    _add(qtbot, queue, model, "one")
    (home / "queue.json").write_text("{", encoding="utf-8")
    queue.refresh()
    qtbot.waitUntil(lambda: "could not be read" in card._status.text())
    assert _names(queue) == ["one"]
    card.dismiss_button.click()
    qtbot.waitUntil(lambda: "1 run waits" in card._status.text())


def test_says_how_long_a_run_takes_where_the_same_work_was_done(
    qtbot: QtBot, queue: QueueController, card: QueueCard, model: Path
) -> None:
    _end(runs.create(_job(model, "earlier")), RunCompleted(folder="x"))
    other = _job(model, "other").model_dump(mode="json")
    other["training"]["max_steps"] = 77
    queue.add([_job(model, "again"), parse_job(other)])  # type: ignore[list-item]
    qtbot.waitUntil(lambda: card.rows.rowCount() == 2)
    again, other_work = (card.rows.index(row, TIME).data() for row in range(2))
    assert again.endswith(" s") and other_work == "–"  # writing it down took a moment


def test_a_computer_that_cannot_be_kept_awake_is_told_where_the_wish_is_made(
    qtbot: QtBot, queue: QueueController, training: StandIn, card: QueueCard, model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(StayAwake, "_hold", lambda self, over: self._tell(_cannot()))
    assert card.awake.isChecked()
    _add(qtbot, queue, model, "one")
    queue.start()
    qtbot.waitUntil(lambda: "could not be told" in card._awake_note.text())
    card.awake.click()
    qtbot.waitUntil(lambda: not preferences.load().keep_awake)
    qtbot.waitUntil(lambda: card._awake_note.isHidden())


# ------------------------------------------------------------------------- the whole window


@pytest.fixture
def window(qtbot: QtBot) -> MainWindow:
    made = MainWindow()
    qtbot.addWidget(made)
    return made


def _shown(qtbot: QtBot, window: MainWindow) -> None:
    window.show()
    qtbot.waitUntil(lambda: window.is_built("navRuns"))


def test_runs_left_by_an_earlier_window_are_offered_not_started(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    monkeypatch.setattr(window.queue, "start", lambda: begun.append(True))
    run_queue.add([window.draft.job(), window.draft.job()])
    _shown(qtbot, window)
    qtbot.waitUntil(lambda: window.findChild(QMessageBox, "queueDialog") is not None)
    box = window.findChild(QMessageBox, "queueDialog")
    assert "2 runs wait" in box.text()
    assert begun == []
    assert "2 waiting" in [label.text() for label in window.sidebar.findChildren(QLabel)]
    next(b for b in box.buttons() if b.text().replace("&", "") == "Start queue").click()
    assert begun == [True]


def test_a_draft_is_added_from_the_train_page_while_a_run_is_live(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shown(qtbot, window)
    live = runs.create(window.draft.job())
    monkeypatch.setattr(window.training, "is_busy", lambda: True)
    page = cast(TrainPage, window.page("navTrain"))
    window.go_to("navTrain")
    button = window.findChild(QAbstractButton, "queueButton")
    assert not button.isVisible()
    page.open_run(live, live=True)
    assert button.isVisible()
    assert not button.property("primary")  # a run goes on, and nothing is asked of anyone
    window.draft.set_value("name", "second")
    button.click()
    qtbot.waitUntil(lambda: button.text() == "Add to queue (1 waiting)")
    assert [entry.name for entry in run_queue.entries()] == ["second"]
    assert window.queue.is_going()
    window.training._stop_asked = True
    monkeypatch.setattr(window.training, "is_busy", lambda: False)
    window.training.run_ended.emit(live, RunStopped(step=3))
    qtbot.waitUntil(lambda: "paused" in button.text())
    shown = [label.text() for label in window.sidebar.findChildren(QLabel)]
    assert "queue paused, 1 waiting" in shown


def test_run_again_waits_in_turn_behind_others(qtbot: QtBot, window: MainWindow) -> None:
    _shown(qtbot, window)
    window.queue.add([window.draft.job()])
    qtbot.waitUntil(lambda: len(window.queue.state.entries) == 1)
    done = runs.create(window.draft.job())
    _end(done, RunCompleted(folder="x"))
    window.desk.run_again(done)
    qtbot.waitUntil(lambda: len(window.queue.state.entries) == 2)
    assert not window.training.is_busy()


def test_a_queue_that_cannot_be_written_is_told_where_the_button_was_pressed(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    _shown(qtbot, window)
    window.go_to("navTrain")

    def full(jobs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_queue, "add", full)
    window.desk.add_to_queue()
    problem = window.findChild(QLabel, "trainProblems")
    qtbot.waitUntil(lambda: "cannot be changed: No space left" in problem.text())
