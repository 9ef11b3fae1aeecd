"""A run that ran out of memory: the button on its card, the fixes, and what becomes of the run."""

from __future__ import annotations

from typing import Any

import pytest
from PySide6.QtCore import QObject
from PySide6.QtWidgets import QLabel, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.desks.fit_desk import FitDesk
from app.widgets.settings.fit_dialog import FitDialog
from app.widgets.training.outcome import OutcomeCard
from tests.unit.test_memory_fixes import failed_run
from training_backend.computer.devices import parse_device
from training_backend.job import TrainingJob
from training_backend.memory import memory_fixes, memory_traces
from training_backend.runs import Run

pytestmark = pytest.mark.usefixtures("lorasmith_home")


class Training:
    """Notes what a controller would begin."""

    def __init__(self) -> None:
        self.resumed: list[tuple[Run, TrainingJob]] = []

    def extend(self, run: Run, job: TrainingJob) -> None:
        self.resumed.append((run, job))


class Helper:
    """A helper that cannot look at any model."""

    def ask(self, what: str, document: Any, done: Any, failed: Any, owner: QObject) -> None:
        assert what == "trace" and set(document) == {"job"}
        failed(RuntimeError("no"))

    def cancel(self, what: str, owner: QObject) -> None:
        assert what == "trace"  # answered at once, so that none is under way


@pytest.fixture
def training() -> Training:
    return Training()


@pytest.fixture
def desk(qtbot: QtBot, training: Training, monkeypatch: pytest.MonkeyPatch) -> FitDesk:
    monkeypatch.setattr(memory_fixes, "this_device", lambda: parse_device("cuda:24GiB"))
    window = QWidget()
    qtbot.addWidget(window)
    made = FitDesk(training, Helper(), window)  # type: ignore[arg-type]
    made.keep = window  # type: ignore[attr-defined]
    return made


def opened(qtbot: QtBot, desk: FitDesk, run: Run) -> FitDialog:
    desk.offer(run)
    window: QWidget = desk.keep  # type: ignore[attr-defined]
    qtbot.waitUntil(lambda: window.findChild(FitDialog) is not None)
    dialog = window.findChild(FitDialog)
    assert isinstance(dialog, FitDialog)
    return dialog


def words(dialog: FitDialog) -> str:
    return "\n".join(label.text() for label in dialog.findChildren(QLabel))


def press(dialog: FitDialog, name: str) -> str:
    button = dialog.findChild(QPushButton, name)
    assert isinstance(button, QPushButton) and button.isEnabled()
    button.click()
    return button.text()


def test_what_was_measured_is_told_and_a_change_resumes_the_run(
    qtbot: QtBot, desk: FitDesk, training: Training
) -> None:
    run = failed_run(log="CUDA out of memory. Tried to allocate 1.50 GiB.")
    dialog = opened(qtbot, desk, run)
    said = words(dialog)
    assert "23.0 of 24.0 GB were in use" in said and "more were asked for" in said
    assert "Everything up to step 7 is saved." in said and "is likely to be enough" in said
    assert "Undo" not in said
    assert press(dialog, "fit_micro_batch") == "Apply and resume"
    ((resumed, job),) = training.resumed
    assert resumed == run
    assert (
        job.training.per_device_train_batch_size,
        job.training.gradient_accumulation_steps,
    ) == (1, 8)


def test_where_the_run_cannot_go_on_the_button_says_so_and_a_new_one_begins(
    qtbot: QtBot, desk: FitDesk, training: Training
) -> None:
    dialog = opened(qtbot, desk, failed_run(lora={"r": 64, "lora_alpha": 128}))
    with qtbot.waitSignal(desk.new_run) as begun:
        assert press(dialog, "fit_rank") == "Start a new run"
    assert training.resumed == []
    job = begun.args[0]
    assert job.lora.r < 64 and job.lora.lora_alpha == 2 * job.lora.r


def test_a_model_that_cannot_be_looked_at_gets_the_same_offers_without_sizes(
    qtbot: QtBot, desk: FitDesk, monkeypatch: pytest.MonkeyPatch, training: Training
) -> None:
    monkeypatch.setattr(memory_traces, "find", lambda _: None)
    dialog = opened(qtbot, desk, failed_run())
    assert "saves" not in words(dialog)
    assert press(dialog, "fit_micro_batch") == "Apply and resume"
    assert len(training.resumed) == 1


def test_a_damaged_run_is_a_sentence(qtbot: QtBot, desk: FitDesk) -> None:
    run = failed_run()
    (run.folder / "job.json").write_text("{", encoding="utf-8")
    with qtbot.waitSignal(desk.refused) as refused:
        desk.offer(run)
    assert "job.json is not valid JSON" in str(refused.args[0])


def test_the_card_offers_it_for_a_lack_of_memory_only(qtbot: QtBot) -> None:
    card = OutcomeCard()
    qtbot.addWidget(card)
    button = card.findChild(QPushButton, "outcomeMakeFit")
    assert isinstance(button, QPushButton)
    for code, offered in (("out_of_vram", True), ("out_of_ram_likely", True), ("hung", False)):
        run = failed_run(code)
        card.show_outcome(run, run.events()[-1], 60.0, saved=True)  # type: ignore[arg-type]
        assert button.isVisibleTo(card) is offered
