"""What an earlier window left is followed or offered at the next start, and never just begun."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel, QMessageBox
from pytestqt.qtbot import QtBot

from app.desks.at_start import look_around
from app.main_window import MainWindow
from app.run_controller import RunController
from app.settings import Settings
from tests.gui.settling import settle
from training_backend import runs
from training_backend.errors import UserError
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    Event,
    MetricsLogged,
    RunCompleted,
    RunInterrupted,
    RunStarted,
    RunStopped,
)
from training_backend.queueing import run_queue
from training_backend.runs import Run
from training_backend.starting_points.demo import demo_job


def _run(*events: Event, name: str = "night", step: int | None = 5) -> Run:
    """A run that said all this, with a checkpoint."""
    run = runs.create(demo_job().model_copy(update={"name": name}))
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    for event in events:
        writer.append(event)
    writer.close()
    if step is not None:
        folder = run.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "COMPLETE.json").write_text("{}")
    return run


def _stopped(reason: str) -> RunStopped:
    return RunStopped.model_validate({"step": 5, "checkpoint": "x", "reason": reason})


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    found: list[Run] = []
    monkeypatch.setattr(RunController, "resume", lambda self, run: found.append(run))
    return found


@pytest.fixture
def window(qtbot: QtBot, resumed: list[Run]) -> Iterator[MainWindow]:
    """A window that is not the first of this home."""
    Settings().set_told_until(time.time() - 60)
    made = MainWindow()
    qtbot.addWidget(made)
    yield made
    made.closing.close_now()


def _shown(qtbot: QtBot, window: MainWindow, name: str) -> QMessageBox:
    window.show()
    qtbot.waitUntil(lambda: window.findChild(QMessageBox, name) is not None)
    qtbot.waitUntil(lambda: window.is_built("navRuns"))
    box = window.findChild(QMessageBox, name)
    assert isinstance(box, QMessageBox)
    return box


def _press(box: QMessageBox, text: str) -> None:
    next(b for b in box.buttons() if b.text().replace("&", "") == text).click()


def _details(window: MainWindow) -> list[str]:
    return [label.text() for label in window.sidebar.findChildren(QLabel)]


def test_a_run_that_the_end_of_the_session_stopped_is_offered_with_the_queue_behind_it(
    qtbot: QtBot, window: MainWindow, resumed: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(_stopped("system"))
    run_queue.add([demo_job(), demo_job()])
    begun: list[bool] = []
    monkeypatch.setattr(window.queue, "start", lambda: begun.append(True))
    box = _shown(qtbot, window, "cutOffDialog")
    assert box.text() == "“night” was stopped when the session or the computer ended"
    assert "up to step 5 is saved" in box.informativeText()
    assert "The 2 runs that wait in the queue follow it." in box.informativeText()
    assert window.findChild(QMessageBox, "queueDialog") is None
    assert not resumed and not begun
    _press(box, "Go on")
    qtbot.waitUntil(lambda: resumed == [run])
    assert not begun  # nothing overtakes it
    window.training.run_opened.emit(run)
    assert begun == [True]


def test_a_run_that_a_power_cut_ended_is_offered_and_may_wait(
    qtbot: QtBot, window: MainWindow, resumed: list[Run]
) -> None:
    _run(MetricsLogged(step=3, total_steps=9, epoch=0.1, loss=1.0), step=None)
    box = _shown(qtbot, window, "cutOffDialog")
    assert box.text() == "“night” was interrupted"
    assert box.informativeText() == "Nothing was saved yet, so it would begin anew."
    _press(box, "Not now")
    settle(qtbot)
    assert not resumed


@pytest.mark.parametrize("under_way", [True, False])
def test_a_queue_beside_a_run_that_is_under_way_is_said_to_follow_it(
    qtbot: QtBot, window: MainWindow, under_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window.training, "is_busy", lambda: under_way)
    run_queue.add([demo_job()])
    box = _shown(qtbot, window, "queueDialog")
    assert ("can follow the run that is under way" in box.informativeText()) is under_way
    assert ("can be started now" in box.informativeText()) is not under_way


def test_only_what_was_cut_off_since_the_last_window_is_offered(home: Path) -> None:
    """Neither what the person ended, nor what came to its end, nor what is known of."""
    before = time.time() - 1
    earlier = _run(_stopped("system"))
    assert look_around(None).cut_off is None  # at the first start
    assert look_around(time.time() + 1).cut_off is None
    _run(_stopped("asked"))
    _run(RunCompleted(folder="x"))
    by_force = _run(RunInterrupted(cause="signal", detail="It was ended by force."))
    by_force.request("end")
    found = look_around(before).cut_off
    assert found is not None and found.run == earlier
    killed = _run(RunInterrupted(cause="signal", detail="The worker was ended by SIGKILL."))
    found = look_around(before).cut_off
    assert found is not None and (found.run, found.reason, found.step) == (killed, None, 5)
    asleep = _run(_stopped("sleep"), name="asleep")
    found = look_around(before).cut_off
    assert found is not None and (found.run, found.reason, found.name) == (
        asleep,
        "sleep",
        "asleep",
    )


def test_the_sidebar_says_what_the_train_page_says(qtbot: QtBot, window: MainWindow) -> None:
    done = _run(RunCompleted(folder="x"))
    window.show()
    qtbot.waitUntil(lambda: window.is_built("navRuns"))
    assert "not started" in _details(window)
    window.desk.open_run(done)
    qtbot.waitUntil(lambda: "completed" in _details(window))
    assert "not started" not in _details(window)
    window.training.refused.emit(UserError("bad", "The data is missing."))
    assert "could not start" in _details(window)
    assert "completed" not in _details(window)
