"""The window as a whole: what is chosen at first, what is wired to what, what stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDialog,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QTableView,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app import theme
from app.demo_tour import DemoTour
from app.desks import memory_estimator
from app.dialogs.recipe_dialog import RecipeDialog
from app.dialogs.save_recipe_dialog import SaveRecipeDialog
from app.main_window import MainWindow
from app.pages.runs import RunsPage
from app.pages.train import TrainPage
from app.settings import Settings
from app.widgets.settings.fit_dialog import FitDialog
from app.widgets.training.answer_text import AnswerText
from tests.gui.settling import settle
from training_backend import runs
from training_backend.computer.devices import Device
from training_backend.errors import JobError, Problem
from training_backend.job import ExportJob, Job, TrainingJob
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStopped,
    SampleGenerated,
)

ROOT = Path(__file__).parents[2]
PAGES = (
    "navModel",
    "navDataset",
    "navSettings",
    "navTrain",
    "navChat",
    "navExport",
    "navRuns",
)


@pytest.fixture
def window(qtbot: QtBot) -> MainWindow:
    window = MainWindow()
    qtbot.addWidget(window)
    window.show()
    qtbot.waitExposed(window)
    qtbot.waitUntil(lambda: len(window._pages) == len(PAGES))
    return window


def labels(widget: QWidget) -> list[str]:
    return [label.text() for label in widget.findChildren(QLabel)]


def test_demo_model_and_data_are_chosen(qtbot: QtBot, window: MainWindow) -> None:
    job = window.draft.job()
    assert (job.model.id, job.dataset.path) == ("demo", "demo")
    assert window.findChild(QComboBox, "modelCombo").currentText().startswith("SmolLM2-135M")
    table = window.findChild(QTableView, "datasetPreviewTable")
    qtbot.waitUntil(lambda: table.model().rowCount() > 0)
    assert {"SmolLM2-135M-Instruct", "support.jsonl", "QLoRA r 16"} <= set(labels(window.sidebar))
    start = window.findChild(QAbstractButton, "startButton")
    assert start.isEnabled()


@pytest.mark.parametrize("name", PAGES)
def test_every_step_is_reached_by_mouse_and_keyboard(
    qtbot: QtBot, window: MainWindow, name: str
) -> None:
    button = window.findChild(QAbstractButton, name)
    assert button.accessibleName()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert button.isChecked()
    assert window.page(name).isVisible()
    window.go_to("navModel")
    button.setFocus()
    qtbot.keyClick(button, Qt.Key.Key_Space)
    assert window.page(name).isVisible()


def test_everything_interactive_has_a_name_and_takes_the_focus(window: MainWindow) -> None:
    kinds = (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit, QPlainTextEdit, QTableView)
    for kind in kinds:
        for widget in window.findChildren(kind):
            inner = isinstance(widget.parent(), QComboBox | QAbstractSpinBox)
            internal = widget.objectName().startswith("qt_") or isinstance(
                widget.parent(), QTableView
            )
            if inner or internal:
                continue
            name = f"{type(widget).__name__} {widget.objectName()}"
            assert widget.accessibleName() or getattr(widget, "text", str)(), name
            assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus, name


def test_mistakes_keep_the_draft_from_starting(qtbot: QtBot, window: MainWindow) -> None:
    window.draft.set_value("lora.r", 0)
    start = window.findChild(QAbstractButton, "startButton")
    assert not start.isEnabled()
    window.draft.set_value("lora.r", 16)
    assert start.isEnabled()


def test_refusal_goes_to_every_field(qtbot: QtBot, window: MainWindow) -> None:
    problems = [
        Problem("model.id", "No such model."),
        Problem("dataset.path", "No such file."),
        Problem("training.save_steps", "too many checkpoints"),
        Problem("", "The disk is full."),
    ]
    window.training.refused.emit(JobError(problems))
    for name in ("model_id", "dataset_path", "training_save_steps"):
        assert window.findChild(QLabel, f"error_{name}").text(), name
    assert any("The disk is full." in text for text in labels(window.page("navTrain")))


def test_undo_shows_where(qtbot: QtBot, window: MainWindow) -> None:
    window.draft.set_value("lora.r", 8)
    undo = next(
        shortcut
        for shortcut in window.findChildren(QShortcut)
        if shortcut.key() == QKeySequence("Ctrl+Z")
    )
    undo.activated.emit()
    assert window.draft.value("lora.r") == 16
    assert window.page("navSettings").isVisible()


def test_undo_reaches_the_job_from_within_a_field(qtbot: QtBot, window: MainWindow) -> None:
    window.go_to("navSettings")
    window.activateWindow()
    field = window.findChild(QAbstractSpinBox, "field_lora_r")
    field.setFocus()
    field.lineEdit().selectAll()
    qtbot.keyClicks(field, "8")
    assert window.draft.value("lora.r") == 8
    qtbot.keyClick(field, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert window.draft.value("lora.r") == 16


def test_sidebar_follows_a_run(window: MainWindow) -> None:
    window.training.event_arrived.emit(PhaseChanged(phase="loading"))
    window.training.event_arrived.emit(MetricsLogged(step=4, total_steps=1200, epoch=0.1, loss=2.0))
    assert "step 4 of 1,200" in labels(window.sidebar)
    window.training.run_ended.emit(None, RunStopped(step=4))
    assert "stopped" in labels(window.sidebar)


def test_failed_run_names_the_field_at_fault(window: MainWindow) -> None:
    failure = RunFailed(
        code="x", message="No such file.", remedy="Choose another.", field="dataset.path"
    )
    window.training.run_ended.emit(None, failure)
    assert window.findChild(QLabel, "error_dataset_path").text() == "No such file. Choose another."


def test_run_that_outlived_its_window_is_followed(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create(window.draft.job())
    attached: list[runs.Run] = []
    monkeypatch.setattr(window.training, "attach", attached.append)
    lock = run.worker_lock()
    lock.acquire()
    try:
        journal = JournalWriter(run.folder)
        journal.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
        journal.close()
        window._on_first_paint()
        qtbot.waitUntil(lambda: bool(attached))
    finally:
        lock.release()
    assert attached[0].folder == run.folder


def test_a_run_that_another_window_trains_is_followed_when_it_is_opened(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: list[runs.Run] = []
    monkeypatch.setattr(window.training, "attach", attached.append)
    ended, live = (runs.create(window.draft.job()) for _ in range(2))
    with live.worker_lock():
        live.claim()
        for run in (ended, live):
            journal = JournalWriter(run.folder)
            journal.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
            journal.close()
            window.desk.open_run(run)
            settle(qtbot)
        qtbot.waitUntil(lambda: bool(attached))
    assert attached == [live]


def test_first_window_fits_the_screen(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    class SmallScreen:
        def availableSize(self) -> QSize:
            return QSize(1280, 690)

    monkeypatch.setattr(MainWindow, "screen", lambda _: SmallScreen())
    window = MainWindow()
    qtbot.addWidget(window)
    assert (window.width(), window.height()) == (1280, 690)


def test_all_charts_are_smoothed_alike_and_as_the_last_time(window: MainWindow) -> None:
    train = cast(TrainPage, window.page("navTrain")).charts.loss.smoothing
    compared = cast(RunsPage, window.page("navRuns")).comparison.smoothing
    train.setValue(0.5)
    assert compared.value() == 0.5
    compared.setValue(0.0)
    assert train.value() == 0.0
    assert Settings().smoothing() == 0.0


def test_theme_is_chosen_and_kept(window: MainWindow) -> None:
    window.sidebar.theme_chosen.emit("dark")
    assert theme.current() is theme.DARK
    assert Settings().theme() == "dark"
    window.sidebar.theme_chosen.emit("light")


def test_choices_and_place_are_remembered(qtbot: QtBot) -> None:
    first = MainWindow()
    qtbot.addWidget(first)
    first.resize(1040, 700)  # the virtual screen is small
    first.draft.set_value("name", "third try")
    first.close()
    second = MainWindow()
    qtbot.addWidget(second)
    assert second.draft.value("name") == "third try"
    assert second.size() == first.size()


def test_answers_of_a_finished_run_stand_on_the_try_it_page(
    qtbot: QtBot, window: MainWindow
) -> None:
    assert "No answers yet" in labels(window.page("navChat"))
    run = runs.create(window.draft.job())
    journal = JournalWriter(run.folder)
    for step, answer in ((0, "plain"), (30, "<b>In short:</b> done")):
        journal.append(SampleGenerated(step=step, prompt="Where is it?", answer=answer))
    journal.append(RunCompleted(folder=str(run.adapter)))
    journal.close()
    window.training.run_ended.emit(run, RunCompleted(folder=str(run.adapter)))
    told = ["plain", "<b>In short:</b> done"]
    page = window.page("navChat")
    qtbot.waitUntil(lambda: [text.toPlainText() for text in page.findChildren(AnswerText)] == told)


def test_demo_trains_exports_and_shows_the_answers(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []
    monkeypatch.setattr(window.training, "start", asked.append)
    monkeypatch.setattr(window.exports, "start", asked.append)
    window.draft.set_value("model.id", "/somebody/else")
    tour = DemoTour(window)
    tour.start()
    assert isinstance(asked[0], TrainingJob)
    assert asked[0].model.id == "demo"
    assert window.draft.value("model.id") == "/somebody/else"  # what was chosen stays
    run = runs.create(asked[0])
    window.training.run_ended.emit(run, RunCompleted(folder=str(run.adapter)))
    assert isinstance(asked[1], ExportJob)
    assert asked[1].run == str(run.folder)
    assert not Path(asked[1].out).exists()
    window.exports.run_ended.emit(run, RunCompleted(folder=asked[1].out))
    assert window.page("navChat").isVisible()


@pytest.mark.parametrize("size", [(1280, 720), (1040, 640)])
def test_nothing_is_cut_on_a_small_screen(
    qtbot: QtBot, window: MainWindow, size: tuple[int, int]
) -> None:
    for name in PAGES:
        window.go_to(name)
        window.resize(*size)
        QApplication.processEvents()
        assert (window.width(), window.height()) == size, f"{name} does not fit"


def test_window_process_stays_light() -> None:
    """No torch and no Hugging Face library comes into the window's process."""
    code = """
import sys
from PySide6.QtWidgets import QApplication
app = QApplication([])
from app.main_window import MainWindow
window = MainWindow()
for name in window._builders:
    window.page(name)
heavy = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "accelerate"}
print(sorted(heavy & set(sys.modules)), flush=True)
import os
os._exit(0)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip().endswith("[]"), answer.stdout + answer.stderr


def test_worker_can_import_the_start_script_without_qt() -> None:
    """Spawn imports the start script again; a worker must not load Qt for it."""
    code = "import sys, app.__main__; print(any(m.startswith('PySide6') for m in sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("moment", [150, 300, 450])
def test_program_ends_when_its_window_closes_while_pages_are_being_built(
    moment: int, lorasmith_home: Path
) -> None:
    script = f"""
from PySide6.QtCore import QTimer
from app import __main__, main_window
painted = main_window.MainWindow._on_first_paint
def close_soon(self):
    painted(self)
    QTimer.singleShot({moment}, self, self.close)
main_window.MainWindow._on_first_paint = close_soon
__main__.main()
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert ended.returncode == 0


def test_a_length_that_is_no_number_harms_no_page(window: MainWindow) -> None:
    window.draft.set_value("training.max_length", "abc")
    window.page("navDataset")
    window.draft.set_value("training.max_length", "def")
    assert window.draft.value("training.max_length") == "def"


def test_a_long_run_comes_with_the_hint_to_try_one_step_first(
    window: MainWindow, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.go_to("navTrain")
    measure = window.findChild(QPushButton, "measureFirstButton")
    assert not measure.isVisible()  # the demo is short
    window.draft.set_values({"training.max_steps": 100_000, "training.max_length": 2048})
    qtbot.waitUntil(measure.isVisible)
    assert any("may take long" in text for text in labels(window.page("navTrain")))
    assert window.findChild(QPushButton, "startButton").isEnabled()  # it blocks nothing
    asked: list[Any] = []
    monkeypatch.setattr(window.probe, "start", asked.append)
    measure.click()
    assert asked == [window.draft.job()]
    assert window.findChild(QWidget, "memoryCard").isVisible()
    window.go_to("navTrain")
    window.draft.set_value("training.max_steps", 10)
    qtbot.waitUntil(lambda: not measure.isVisible())


def test_what_does_not_fit_is_made_to_fit_from_beside_start(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.go_to("navTrain")
    fit = window.findChild(QAbstractButton, "trainMakeItFit")
    words = window.findChild(QLabel, "etaLabel")
    large = Device("cuda", "a large card", 80 * 2**30)
    monkeypatch.setattr(memory_estimator, "this_device", lambda: large)
    window.estimator.forget_device()
    window.estimator.refresh()
    qtbot.waitUntil(lambda: words.text().startswith("Fits"))
    assert not fit.isVisible()
    small = Device("cuda", "a small card", 2**30)
    monkeypatch.setattr(memory_estimator, "this_device", lambda: small)
    window.estimator.forget_device()
    window.estimator.refresh()
    qtbot.waitUntil(fit.isVisible)
    assert words.text().startswith("Does not fit")
    assert words.property("role") == "error"
    fit.click()
    qtbot.waitUntil(lambda: window.findChild(QDialog, "fitDialog") is not None)
    assert window.page("navSettings").isVisible()
    window.findChild(QDialog, "fitDialog").reject()


def test_a_job_that_will_not_fit_is_asked_about_before_it_starts(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Job] = []
    monkeypatch.setattr(window.training, "start", started.append)
    small = Device("cuda", "A small card", 2**30)
    monkeypatch.setattr(memory_estimator, "this_device", lambda: small)
    window.estimator.forget_device()
    window.draft.set_value("training.max_length", 4096)
    page = cast(TrainPage, window.page("navTrain"))
    qtbot.waitUntil(lambda: any("too much" in text for text in labels(page)))
    page.buttons.start.click()
    box = window.findChild(QMessageBox, "startDialog")
    assert "too much" in box.informativeText()
    assert started == []
    assert page.buttons.start.isEnabled()  # whatever is answered, and also if nothing is
    next(button for button in box.buttons() if button.text() == "Make it fit").click()
    qtbot.waitUntil(lambda: bool(window.findChildren(FitDialog)))
    assert started == []
    window.findChild(FitDialog).reject()
    window.desk.start()
    box = window.findChildren(QMessageBox, "startDialog")[-1]
    next(button for button in box.buttons() if button.text() == "Start anyway").click()
    assert len(started) == 1


def test_a_job_file_is_opened_by_key_and_what_is_taken_over_is_shown(
    qtbot: QtBot, window: MainWindow, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"lora": {"r": 64}}', "utf-8")
    keys = {each.key().toString(): each for each in window.findChildren(QShortcut)}
    keys["Ctrl+O"].activated.emit()
    chooser = window.findChild(QFileDialog, "openRecipe")
    chooser.fileSelected.emit(str(path))
    chooser.close()
    qtbot.waitUntil(lambda: window.findChild(RecipeDialog) is not None)
    window.findChild(QPushButton, "recipeApply").click()
    assert window.draft.value("lora.r") == 64
    assert window._stack.currentWidget() is window.page("navSettings")
    keys["Ctrl+S"].activated.emit()
    window.findChild(SaveRecipeDialog).reject()
