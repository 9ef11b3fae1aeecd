"""A real process that is halted: the window says so while it goes on, and can end it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app.desks import hang_watch
from app.main_window import MainWindow
from app.pages.train import TrainPage
from training_backend import runs
from training_backend.job import parse_job
from training_backend.protocol import RunInterrupted
from training_backend.runs import Run
from training_backend.watching import standstill

pytestmark = pytest.mark.skipif(os.name == "nt", reason="halts a process by a signal")

SILENT_SECONDS = 1.0
WORKER = """
import os, sys, time
from pathlib import Path
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import *
from training_backend.runs import Run
run = Run(Path(sys.argv[1]))
with run.worker_lock().acquire():
    run.claim()
    journal = JournalWriter(run.folder)
    journal.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=os.getpid()))
    journal.append(PhaseChanged(phase="training", total_steps=900))
    journal.append(MetricsLogged(step=412, total_steps=900, epoch=0.5, loss=1.3))
    journal.append(CheckpointSaved(step=400, path="x", bytes=2**20))
    while True:
        journal.append(Heartbeat())
        time.sleep(0.05)
"""


@pytest.fixture
def window(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> Iterator[MainWindow]:
    monkeypatch.setattr(hang_watch, "TICK_MILLISECONDS", 50)
    monkeypatch.setattr(standstill, "SILENT_SECONDS", SILENT_SECONDS)
    made = MainWindow()
    qtbot.addWidget(made)
    made.show()
    qtbot.waitUntil(lambda: made.is_built("navRuns"))
    yield made
    made.closing.close_now()


@pytest.fixture
def run(home: Path) -> Run:
    return runs.create(
        parse_job({"name": "night", "model": {"id": "demo"}, "dataset": {"path": "demo"}})
    )


@pytest.fixture
def worker(run: Run) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(run.folder)], cwd=Path(__file__).parents[2]
    )
    yield process
    process.kill()
    process.wait()


def _wait_while_it_answers(qtbot: QtBot, window: MainWindow) -> None:
    """For longer than a standstill, in which no busy computer holds it up for as long as one."""
    heard: list[float] = []
    window.training.event_arrived.connect(lambda _: heard.append(time.monotonic()))
    longest = SILENT_SECONDS
    while longest > 0.8 * SILENT_SECONDS:
        heard[:] = [time.monotonic()]
        qtbot.wait(round(1_500 * SILENT_SECONDS))
        heard.append(time.monotonic())
        longest = max(after - before for before, after in itertools.pairwise(heard))


def test_a_halted_worker_is_told_goes_on_by_itself_and_can_be_ended(
    qtbot: QtBot, window: MainWindow, run: Run, worker: subprocess.Popen[bytes]
) -> None:
    qtbot.waitUntil(lambda: run.is_alive() and len(run.events()) > 4)
    window.training.attach(run)
    page = window.page("navTrain")
    assert isinstance(page, TrainPage)
    card = page.standstill
    qtbot.waitUntil(lambda: page._shown.caught_up and page._shown.metrics is not None)
    _wait_while_it_answers(qtbot, window)
    assert card.isHidden()  # there is nothing to say

    os.kill(worker.pid, signal.SIGSTOP)
    qtbot.waitUntil(lambda: not card.isHidden())
    texts = {label.text() for label in card.findChildren(QLabel)}
    assert "Nothing has come from the training since step 412." in " ".join(texts)
    doing = "Its process is halted by a person or another program."
    qtbot.waitUntil(lambda: card._doing.text() == doing)

    os.kill(worker.pid, signal.SIGCONT)
    qtbot.waitUntil(card.isHidden)

    os.kill(worker.pid, signal.SIGSTOP)
    qtbot.waitUntil(lambda: not card.isHidden())
    end = card.findChild(QPushButton, "standstillEnd")
    assert end.text() == "End it and keep step 400"
    end.click()
    worker.wait(60)
    qtbot.waitUntil(lambda: page._shown.terminal is not None)
    ended = run.events()[-1]
    assert isinstance(ended, RunInterrupted) and ended.code == "hung"
    page.render_now()
    assert card.isHidden()
    assert page.outcome.title.text() == "Interrupted: it stood still"
    assert page.buttons.resume.isVisibleTo(page)


def test_waiting_lets_the_card_go_and_the_run_be(
    qtbot: QtBot, window: MainWindow, run: Run, worker: subprocess.Popen[bytes]
) -> None:
    qtbot.waitUntil(lambda: run.is_alive() and len(run.events()) > 4)
    window.training.attach(run)
    page = window.page("navTrain")
    assert isinstance(page, TrainPage)
    qtbot.waitUntil(lambda: page._shown.caught_up and page._shown.metrics is not None)
    os.kill(worker.pid, signal.SIGSTOP)
    qtbot.waitUntil(lambda: not page.standstill.isHidden())
    page.standstill.findChild(QPushButton, "standstillWait").click()
    assert page.standstill.isHidden()
    assert worker.poll() is None
    window.go_to("navRuns")
    window.desk.open_run(run)  # whoever comes back to it sees it again
    assert not page.standstill.isHidden()
    os.kill(worker.pid, signal.SIGCONT)
    qtbot.waitUntil(page.standstill.isHidden)
