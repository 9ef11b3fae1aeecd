"""What the window lets one ask of a training under way, and of one that has ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QProgressBar, QPushButton
from pytestqt.qtbot import QtBot

from app.pages.train import TrainPage
from app.run_controller import RunController
from app.widgets.runs.extend_dialog import ExtendDialog
from app.widgets.training.ask_dialog import AskDialog
from training_backend import runs
from training_backend.errors import Problem
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.extend import Reached
from training_backend.lifecycle.journal import JournalWriter
from training_backend.lifecycle.run_requests import read_question
from training_backend.protocol import (
    CheckpointSaved,
    Event,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunStarted,
    RunStopped,
    SampleGenerated,
)
from training_backend.runs import Run

JOB: dict[str, Any] = {
    "name": "Support style",
    "model": {"id": "demo"},
    "dataset": {"path": "demo"},
    "evaluation": {"prompts": ["Who are you?"]},
}


@pytest.fixture
def run(home: Path) -> Run:
    return runs.create(parse_job(JOB))


@pytest.fixture
def page(qtbot: QtBot, run: Run) -> TrainPage:
    """A page that shows a live run at its tenth step of twenty."""
    made = TrainPage()
    qtbot.addWidget(made)
    made.resize(1072, 720)
    made.set_draft_summary("next", "a model on some data", True, "")
    made.show()
    made.open_run(run, live=True)
    qtbot.waitUntil(lambda: made._shown.caught_up)
    _take(
        made,
        RunStarted(run_id=run.id, folder=str(run.folder), pid=1),
        PhaseChanged(phase="training", total_steps=20),
        MetricsLogged(step=10, total_steps=20, epoch=1.0, loss=1.0, elapsed=100.0),
    )
    return made


def _take(page: TrainPage, *events: Event) -> None:
    for event in events:
        page.apply(event)
    page.render_now()


def _button(page: TrainPage, name: str) -> QPushButton:
    return page.findChild(QPushButton, name)


def _action(page: TrainPage, name: str) -> QAction:
    return page.findChild(QAction, name)


def _said(page: TrainPage) -> tuple[str, str]:
    return page.progress.title.text(), page.findChild(QLabel, "etaLabel").text()


def test_what_could_not_be_asked_can_be_asked_again(
    page: TrainPage, run: Run, qtbot: QtBot
) -> None:
    pause = _button(page, "pauseButton")
    qtbot.mouseClick(pause, Qt.MouseButton.LeftButton)
    assert not pause.isEnabled()
    page.show_problems([Problem("", "The system refused: the disk is full.")])
    assert pause.text() == "Pause" and pause.isEnabled()
    run.request("pause")
    qtbot.mouseClick(pause, Qt.MouseButton.LeftButton)
    page.show_problems([Problem("", "Something else.")])
    assert pause.text() == "Pausing"  # that was asked


def test_a_run_is_paused_and_goes_on(page: TrainPage, qtbot: QtBot) -> None:
    pause, steer = _button(page, "pauseButton"), page.buttons.steer
    bar = page.findChild(QProgressBar, "progressBar")
    assert pause.text() == "Pause" and bar.value() == 500
    with qtbot.waitSignal(steer.pause_requested):
        qtbot.mouseClick(pause, Qt.MouseButton.LeftButton)
    assert pause.text() == "Pausing" and not pause.isEnabled()
    assert _said(page) == ("Training", "saving and pausing after this step")

    _take(page, CheckpointSaved(step=10, path="x", bytes=1))
    assert pause.text() == "Pausing"
    _take(page, PhaseChanged(phase="paused", elapsed=110.0))
    assert pause.text() == "Go on" == pause.accessibleName() and pause.isEnabled()
    assert pause.property("primary") and not _button(page, "queueButton").property("primary")
    assert _said(page) == ("Paused", "a checkpoint is saved; the model stays in memory")
    assert bar.value() == 500 and bar.maximum() == 1_000  # not as if nothing were known
    assert _button(page, "stopButton").isEnabled()
    assert not _action(page, "saveCheckpointAction").isEnabled()
    assert _action(page, "saveCheckpointAction").toolTip() == "One was saved when the run paused."
    assert _action(page, "askModelAction").isEnabled()

    # An answer does not end the pause.
    _take(page, PhaseChanged(phase="sampling"), PhaseChanged(phase="paused", elapsed=120.0))
    assert pause.text() == "Go on"
    with qtbot.waitSignal(steer.go_on_requested):
        qtbot.mouseClick(pause, Qt.MouseButton.LeftButton)
    assert pause.text() == "Going on" and not pause.isEnabled()
    _take(page, PhaseChanged(phase="training", elapsed=3_710.0))
    assert pause.text() == "Pause" and pause.isEnabled() and not pause.property("primary")

    _take(page, RunCompleted(folder="x", step=20, elapsed=3_810.0))
    assert _said(page)[1] == "took 4 min, waited or paused for 1 h 0 min"
    assert "The training took 4 min." in page.outcome.text()
    assert "It waited or was paused for 1 h 0 min besides." in page.outcome.text()
    assert not pause.isVisible()


def test_a_paused_run_that_is_stopped_was_paused_to_its_end(page: TrainPage) -> None:
    _take(
        page,
        PhaseChanged(phase="paused", elapsed=110.0),
        RunStopped(step=10, checkpoint="checkpoint-10", elapsed=710.0),
    )
    assert _said(page)[1] == "took 2 min, waited or paused for 10 min"


def test_a_checkpoint_is_shown_as_asked_until_it_is_saved(page: TrainPage, qtbot: QtBot) -> None:
    action = _action(page, "saveCheckpointAction")
    with qtbot.waitSignal(page.buttons.steer.checkpoint_requested):
        action.trigger()
    assert _said(page) == ("Training", "saving a checkpoint after this step")
    assert not action.isEnabled() and action.toolTip() == "It is saved after this step."
    _take(page, CheckpointSaved(step=11, path="x", bytes=1))
    assert action.isEnabled() and not action.toolTip().startswith("It is saved")
    assert "saving" not in _said(page)[1]


def test_what_is_not_possible_says_why(page: TrainPage) -> None:
    page.show_stopping()
    for action in (_action(page, "askModelAction"), _action(page, "saveCheckpointAction")):
        assert not action.isEnabled() and action.toolTip() == "The run has been asked to stop."
    assert not _button(page, "pauseButton").isEnabled()
    page.buttons.forget_stopping()
    _take(page, PhaseChanged(phase="saving"))
    assert not _button(page, "pauseButton").isEnabled()
    assert "is being saved" in _button(page, "pauseButton").toolTip()


def test_all_of_it_is_reached_by_keyboard(page: TrainPage, qtbot: QtBot) -> None:
    menu = _button(page, "steerButton")
    for button in (menu, _button(page, "pauseButton")):
        assert button.focusPolicy() == Qt.FocusPolicy.StrongFocus
        assert button.accessibleName()
    assert [action.text() for action in menu.menu().actions()] == [
        "Ask the model now…", "Save a checkpoint now",
    ]  # fmt: skip


def test_the_model_is_asked_and_its_answers_are_plain_text(page: TrainPage, qtbot: QtBot) -> None:
    _action(page, "askModelAction").trigger()
    dialog = page.window().findChild(AskDialog, "askDialog")
    assert dialog.isVisible()
    _action(page, "askModelAction").trigger()  # it is the same one
    assert len(page.window().findChildren(AskDialog)) == 1
    edit = dialog.findChild(QPlainTextEdit, "askEdit")
    status = dialog.findChild(QLabel, "askStatus")
    ask = dialog.findChild(QPushButton, "askButton")
    steer = page.buttons.steer

    with qtbot.assertNotEmitted(steer.question_asked):
        ask.click()
    assert dialog.findChild(QLabel, "askError").text() == "The question is empty. Write one."
    edit.setPlainText(" What is <b>1</b>? ")
    with qtbot.waitSignal(steer.question_asked) as asked:
        ask.click()
    assert asked.args == ["What is <b>1</b>?"]
    assert not dialog.findChild(QLabel, "askError").isVisible()
    assert status.text() == "Asked; it answers between two steps."
    assert _said(page) == ("Training", "answering after this step")

    sample = SampleGenerated(step=11, prompt="What is <b>1</b>?", answer="<i>One</i>\u202e")
    _take(page, PhaseChanged(phase="sampling"), sample, PhaseChanged(phase="training"))
    assert status.text() == ""
    answer = dialog.findChild(QLabel, "askAnswer")
    assert answer.text() == "<i>One</i>⟨U+202E⟩"
    assert answer.textFormat() == Qt.TextFormat.PlainText
    assert "answering" not in _said(page)[1]
    # What is answered at a checkpoint was not asked here.
    _take(page, sample.model_copy(update={"answer": "another"}))
    assert len(dialog.findChildren(QLabel, "askAnswer")) == 1

    assert page.answers.answers("What is <b>1</b>?")[0] == "Was not asked then."
    with qtbot.waitSignal(steer.question_asked) as asked:
        dialog.findChild(QPushButton, "askOwnButton").click()
    assert asked.args == [None]
    _take(page, RunStopped(step=11, checkpoint="x"))
    assert not ask.isEnabled() and status.text() == "The training has ended."
    dialog.close()
    assert page.buttons.steer._dialog is None


def test_another_run_closes_the_questions_to_this_one(
    page: TrainPage, qtbot: QtBot, run: Run
) -> None:
    _action(page, "askModelAction").trigger()
    other = runs.create(run.job())
    page.open_run(other, live=False)
    assert page.buttons.steer._dialog is None
    qtbot.waitUntil(lambda: page._shown.caught_up)


def test_what_an_earlier_window_asked_is_shown(qtbot: QtBot, run: Run) -> None:
    run.request("checkpoint")
    run.request("pause")
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(PhaseChanged(phase="paused"))
    writer.close()
    page = TrainPage()
    qtbot.addWidget(page)
    page.show()
    page.open_run(run, live=True)
    qtbot.waitUntil(lambda: page._shown.caught_up)
    assert _button(page, "pauseButton").text() == "Go on"
    run.request("stop")
    page.open_run(run, live=True)
    qtbot.waitUntil(lambda: page._shown.caught_up)
    assert _button(page, "stopButton").text() == "Saving"
    page.buttons.forget_stopping()


def test_the_controller_leaves_requests_for_the_run_that_it_follows(qtbot: QtBot, run: Run) -> None:
    controller = RunController()
    controller.request("pause")  # there is none yet
    lock = run.worker_lock()
    lock.acquire()
    writer = JournalWriter(run.folder)
    with qtbot.waitSignal(controller.run_opened):
        controller.attach(run)
    controller.request("checkpoint")
    controller.request("pause")
    controller.ask_model(" Who? ")
    assert run.requests.pending() == ["checkpoint", "pause", "question"]
    assert read_question(run.requests.questions()[0]) == "Who?"
    controller.go_on()
    assert run.requests.pending() == ["checkpoint", "question"]

    run.requests.clear()
    run.requests.folder.rmdir()
    run.requests.folder.touch()  # somebody put a file there
    for ask in (lambda: controller.request("pause"), lambda: controller.ask_model("Who?")):
        with qtbot.waitSignal(controller.refused) as refusal:
            ask()
        assert refusal.args[0].code == "system_error"
    with qtbot.waitSignal(controller.run_ended):
        writer.append(RunStopped(step=1, checkpoint=None))
        writer.close()
        lock.release()
    controller.shutdown()


# ------------------------------------------------------------------------------------ extending


def _reached(**changes: Any) -> Reached:
    job = parse_job({**JOB, "training": changes.pop("training", {})})
    assert isinstance(job, TrainingJob)
    known = {
        "job": job, "step": 36, "end": 36, "checkpoint": 36, "stopped_early": False,
        "steps_per_epoch": 12.0, "seconds_per_step": 10.0,
    }  # fmt: skip
    return Reached(**{**known, **changes})


@pytest.fixture
def dialog_of(qtbot: QtBot) -> Any:
    def made(**changes: Any) -> ExtendDialog:
        dialog = ExtendDialog(_reached(**changes))
        qtbot.addWidget(dialog)
        dialog.show()
        return dialog

    return made


def _texts(dialog: ExtendDialog) -> str:
    return "\n".join(label.text() for label in dialog.findChildren(QLabel))


def test_the_dialog_says_what_an_extension_adds_and_does(dialog_of: Any, qtbot: QtBot) -> None:
    dialog = dialog_of()
    assert "“Support style” has made 36 of 36 steps." in _texts(dialog)
    assert "That makes 12 more steps, 48 in all; they take about 2 min." in _texts(dialog)
    assert "The learning rate rises at first: its schedule (cosine) spans all" in _texts(dialog)
    dialog._amount.setValue(0.5)
    assert "6 more steps, 42 in all" in _texts(dialog)
    with qtbot.waitSignal(dialog.chosen) as chosen:
        dialog.findChild(QPushButton, "extendStartButton").click()
    assert chosen.args[0].training.num_train_epochs == 3.5


@pytest.mark.parametrize("value", ["", "many", 0, -1, 5_000])
def test_an_amount_that_is_none_cannot_be_chosen(dialog_of: Any, value: Any) -> None:
    dialog = dialog_of()
    dialog._amount.setValue(value)
    assert not dialog.findChild(QPushButton, "extendStartButton").isEnabled()
    words = dialog.findChild(QLabel, "extendAdds")
    assert words.property("role") == "error" and words.text()


def test_the_dialog_is_honest_about_the_special_cases(dialog_of: Any) -> None:
    dialog = dialog_of(training={"lr_scheduler_type": "constant"}, checkpoint=30)
    assert "The learning rate stays as it is." in _texts(dialog)
    assert "Its newest checkpoint is that of step 30" in _texts(dialog)
    assert "That makes 18 more steps, 48 in all" in _texts(dialog)
    dialog = dialog_of(stopped_early=True, steps_per_epoch=None, seconds_per_step=None)
    assert "may again when as many tests more bring" in _texts(dialog)
    assert "That makes 12 more steps, 48 in all." in _texts(dialog)
    dialog._amount.setValue(0.5)
    assert "Write a whole number." in _texts(dialog)


def test_a_run_of_so_many_steps_is_extended_by_steps(dialog_of: Any) -> None:
    dialog = dialog_of(training={"max_steps": 36}, steps_per_epoch=500.0)
    assert "Steps to add" in _texts(dialog)
    assert "That makes 12 more steps, 48 in all; they take about 2 min." in _texts(dialog)


def test_only_what_has_completed_or_was_stopped_can_be_trained_longer(
    page: TrainPage, run: Run, qtbot: QtBot
) -> None:
    _take(page, RunCompleted(folder="x", step=20))
    button = _button(page, "extendButton")
    assert button.isVisible()
    with qtbot.waitSignal(page.extend_requested) as asked:
        button.click()
    assert asked.args == [run]
