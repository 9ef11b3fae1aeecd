"""What the card at a run's end says of its result."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog, QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app import background
from app.main_window import MainWindow
from app.pages.train import TrainPage
from app.widgets.training.outcome import OutcomeCard
from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle import evidence
from training_backend.lifecycle.evidence import Evidence
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    MemorySampled,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStopped,
    StopReason,
    Terminal,
)
from training_backend.runs import Run


@pytest.mark.parametrize(("result", "other"), [("adapter", "model"), ("model", "adapter")])
def test_what_was_saved_is_named(qtbot: QtBot, tmp_path: Path, result: str, other: str) -> None:
    card = OutcomeCard()
    qtbot.addWidget(card)
    card.show_outcome(Run(tmp_path), RunCompleted(folder=str(tmp_path / result)), 60.0)
    assert f"The {result} is saved" in card.text()
    assert f"The {other} is saved" not in card.text()


@pytest.fixture
def failed(home: Path) -> Run:
    """After 12 steps, of which 10 are saved; its worker left a traceback."""
    made = runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))
    writer = JournalWriter(made.folder)
    for event in (
        RunStarted(run_id=made.id, folder=str(made.folder), pid=1),
        PhaseChanged(phase="training", total_steps=90),
        MetricsLogged(step=12, total_steps=90, epoch=0.1, loss=1.25, grad_norm=0.5),
        MemorySampled(
            device="cuda:0",
            device_name="RTX <b>4090</b>",
            process_bytes=20 * 2**30,
            device_used_bytes=23 * 2**30,
            device_total_bytes=24 * 2**30,
        ),
        RunFailed(code="disk_full", message="There is no room left on /data."),
    ):
        writer.append(event)
    writer.close()
    (made.checkpoints / "checkpoint-10").mkdir(parents=True)
    made.log_path.write_text("Traceback (most recent call last):\n<b>boom</b>\n")
    return made


def _shown(qtbot: QtBot, run: Run, end: Terminal) -> OutcomeCard:
    card = OutcomeCard()
    qtbot.addWidget(card)
    card.show_outcome(run, end, 60.0, saved=True)
    card.show()
    card.look_for_evidence()
    qtbot.waitUntil(lambda: not card.evidence.isHidden())
    return card


def _button(card: OutcomeCard, name: str) -> QPushButton:
    return card.findChild(QPushButton, name)


def test_evidence_of_an_end_is_not_shown_under_the_next_one(
    qtbot: QtBot, failed: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_answer, gather = threading.Event(), threading.Event(), evidence.gather

    def slow(run: Run) -> Evidence:
        found = gather(run)
        asked.set()
        may_answer.wait(30)
        return found

    monkeypatch.setattr(evidence, "gather", slow)
    card = OutcomeCard()
    qtbot.addWidget(card)
    end = failed.events()[-1]
    assert isinstance(end, RunFailed)
    card.show_outcome(failed, end, 60.0)
    card.look_for_evidence()
    qtbot.waitUntil(asked.is_set)
    card.show_outcome(failed, end, 70.0)  # it went on, and failed again
    may_answer.set()
    background.shutdown()
    QCoreApplication.processEvents()
    assert card.evidence.text() == ""


def test_a_failure_shows_what_is_known_of_it_and_its_log_only_when_asked(
    qtbot: QtBot, failed: Run
) -> None:
    end = failed.events()[-1]
    assert isinstance(end, RunFailed)
    card = _shown(qtbot, failed, end)
    assert card.title.text() == "Failed: the disk is full"
    texts = [label.text() for label in card.evidence.findChildren(QLabel)]
    assert "12 of 90, loss 1.250, gradient norm 0.500" in texts
    assert "23.0 GB of 24.0 GB in use on RTX <b>4090</b>, 20.0 GB of it by this run" in texts
    assert "everything up to step 10; Resume goes on from there" in texts
    assert not card.evidence.tail.isVisible()  # nobody is met by a traceback
    log = _button(card, "outcomeLog")
    assert log.text() == "Show the log"
    log.click()
    assert card.evidence.tail.isVisible() and "<b>boom</b>" in card.evidence.tail.toPlainText()
    assert log.text() == "Hide the log"
    card._copy.click()
    copied = QGuiApplication.clipboard().text()
    assert "disk_full" in copied and "Last step: 12 of 90" in copied


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("disk_full", {"outcomeMove"}),
        ("out_of_vram", {"outcomeMakeFit"}),
        ("out_of_ram", {"outcomeMakeFit"}),
        ("loss_not_finite", set()),
    ],
)
def test_a_failure_offers_what_mends_it(
    qtbot: QtBot, failed: Run, code: str, names: set[str]
) -> None:
    card = _shown(qtbot, failed, RunFailed(code=code, message="It failed."))
    offered = {n for n in ("outcomeMove", "outcomeMakeFit") if _button(card, n).isVisible()}
    assert offered == names
    assert _button(card, "outcomeReport").isVisible()


def test_what_the_title_says_is_not_said_again(qtbot: QtBot, failed: Run) -> None:
    end = RunFailed(code="out_of_vram", message="The card ran out of memory.", remedy="Take less.")
    card = _shown(qtbot, failed, end)
    assert card.title.text() == "Failed: the card ran out of memory"
    assert card.text() == "Take less."


def test_a_run_given_up_on_a_full_disk_can_be_moved(qtbot: QtBot, failed: Run) -> None:
    card = OutcomeCard()
    qtbot.addWidget(card)
    card.show()
    stopped = RunStopped(step=10, checkpoint="x")
    card.show_outcome(failed, stopped, 60.0, saved=True)
    assert not _button(card, "outcomeMove").isVisible()
    card.show_outcome(failed, stopped, 60.0, saved=True, lacked_room=True)
    assert _button(card, "outcomeMove").isVisible()
    assert not _button(card, "outcomeReport").isVisible()


@pytest.mark.parametrize(
    ("reason", "said"),
    [("asked", "Everything"), ("sleep", "The computer went to sleep."), ("system", "The session")],
)
def test_a_stop_that_was_not_the_persons_says_whose(
    qtbot: QtBot, failed: Run, reason: StopReason, said: str
) -> None:
    card = OutcomeCard()
    qtbot.addWidget(card)
    card.show_outcome(failed, RunStopped(step=7, checkpoint="x", reason=reason), 60.0, saved=True)
    assert card.text().startswith(said)
    assert card.text().endswith("Everything up to step 7 is saved. Resume goes on from there.")


def test_choosing_another_drive_moves_the_run_and_says_where_it_lies(
    qtbot: QtBot, failed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = MainWindow()
    qtbot.addWidget(window)
    page = window.page("navTrain")
    assert isinstance(page, TrainPage)
    window.show()
    window.desk.open_run(failed)
    qtbot.waitUntil(lambda: not page.outcome.isHidden())
    drive = tmp_path / "drive"
    drive.mkdir()
    chosen = iter([str(tmp_path / "not there"), str(drive)])
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: next(chosen))
    move = _button(page.outcome, "outcomeMove")
    move.click()
    problem = page.findChild(QLabel, "trainProblems")
    qtbot.waitUntil(lambda: "There is no folder" in problem.text())
    assert move.isEnabled() and not failed.folder.is_symlink()
    move.click()
    qtbot.waitUntil(move.isHidden)
    assert failed.folder.resolve() == (drive / failed.id).resolve()
    moved = page.outcome.findChild(QLabel, "outcomeMoved")
    assert str(drive) in moved.text()
    qtbot.waitUntil(lambda: window.is_built("navRuns"))
    window.closing.close_now()
