"""What is answered late, and is about something else by then, changes nothing.

In each test the first question hangs until the newer one is answered; its answer is that of the
moment when it was asked, as of a disk that is slow to hand over what it has read.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QLabel, QMessageBox, QWidget
from pytestqt.qtbot import QtBot

from app import background, main_window
from app.desks import fit_desk, model_finder, recipe_desk, run_desk
from app.desks.fit_desk import FitDesk
from app.desks.model_finder import ModelFinder
from app.desks.recipe_desk import RecipeDesk
from app.dialogs import hardware_dialog, token_dialog
from app.dialogs.hardware_dialog import HardwareDialog
from app.dialogs.preset_dialog import PresetDialog
from app.dialogs.recipe_dialog import RecipeDialog
from app.dialogs.token_dialog import TokenDialog
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.main_window import MainWindow
from app.pages import export_wizard, runs
from app.pages import model as model_page
from app.pages.chat import ChatPage
from app.pages.export_wizard import ExportPage
from app.pages.model import ModelPage
from app.pages.runs import RunsPage
from app.pages.train import TrainPage
from app.settings import Settings
from app.widgets.model.offline_switch import OfflineSwitch
from app.widgets.runs import comparison, export_place
from app.widgets.runs.comparison import Comparison
from app.widgets.runs.export_place import PlaceStep
from app.widgets.runs.extend_dialog import ExtendDialog
from app.widgets.settings import preset_choice
from app.widgets.settings.fit_dialog import FitDialog
from app.widgets.settings.preset_choice import PresetChoice
from app.widgets.training import standstill_card
from app.widgets.training.standstill_card import StandstillCard
from tests.model_files import model_files
from tests.unit.test_memory_fixes import failed_run
from training_backend import catalog, preferences
from training_backend import runs as run_store
from training_backend.computer.drive import Drive
from training_backend.errors import UserError
from training_backend.job import parse_job
from training_backend.lifecycle import extend, inputs
from training_backend.lifecycle.journal import JournalWriter
from training_backend.memory import memory_fixes
from training_backend.models.catalog_entry import CatalogEntry
from training_backend.protocol import MetricsLogged, RunCompleted, RunStarted, SampleGenerated
from training_backend.runs import Run
from training_backend.starting_points import presets
from training_backend.watching.standstill import Doing, Standstill


class Held:
    """In the place of a function: its first call answers only at `release`, the others at once."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, act: Callable[..., Any]
    ) -> None:
        self._act = act
        self._may_answer = threading.Event()
        self._lock = threading.Lock()
        self.calls = 0
        self._asked = threading.Event()
        monkeypatch.setattr(where, name, self)

    def __call__(self, *args: Any) -> Any:
        with self._lock:
            self.calls += 1
            first = self.calls == 1
        answer: Any = None
        try:
            answer = self._act(*args)
        except UserError as error:
            answer = error
        if first:
            self._asked.set()
            assert self._may_answer.wait(120)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def is_asked(self) -> bool:
        """Whether the first was, and its answer is known."""
        return self._asked.is_set()

    def release(self) -> None:
        """Have the first answered, and what comes of it done."""
        self._may_answer.set()
        _settle()


def _settle() -> None:
    background.shutdown()
    for _ in range(3):  # one answer may ask the next question
        QCoreApplication.processEvents()


def _run(name: str, *, step: int = 5) -> Run:
    """A run that is completed."""
    document = {"version": 1, "name": name, "model": {"id": "demo"}, "dataset": {"path": "demo"}}
    run = run_store.create(parse_job(document))
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(MetricsLogged(step=step, total_steps=10, epoch=0.5, loss=1.0))
    writer.append(SampleGenerated(step=step, prompt=name, answer="An answer."))
    writer.append(RunCompleted(folder=str(run.adapter), step=step))
    writer.close()
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").touch()
    about = {"peft_type": "LORA", "base_model_name_or_path": "demo"}
    (run.adapter / "adapter_config.json").write_text(json.dumps(about))
    return run


# --------------------------------------------------------------------------------------- runs


def test_a_run_that_was_deleted_does_not_come_back(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, stays = _run("gone"), _run("stays")
    page = RunsPage()
    qtbot.addWidget(page)
    held = Held(monkeypatch, runs, "_begun", runs._begun)
    page.refresh()
    qtbot.waitUntil(held.is_asked)
    shutil.rmtree(gone.folder)
    page.refresh()
    qtbot.waitUntil(lambda: page.table.runs.rowCount() == 1)
    held.release()
    assert page.table.runs.rowCount() == 1
    page.table.select(stays.id)
    assert page.selected() is not None


def test_what_is_wrong_with_a_sweep_is_not_told_of_the_next_one(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = RunsPage()
    qtbot.addWidget(page)

    def load(sweep_id: str) -> Any:
        if sweep_id == "left":
            raise UserError("no_sweep", "There is no such sweep.")
        return runs.SweepShown("chosen", [], "")

    held = Held(monkeypatch, runs.sweep_shown, "load", load)
    page.compare_sweep("left")
    qtbot.waitUntil(held.is_asked)
    page.compare_sweep("chosen")
    qtbot.waitUntil(lambda: page.header.subtitle.text() == "chosen")
    held.release()
    assert page._errors.text() == ""


def test_a_run_that_goes_on_is_not_shown_as_it_was_before(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run("compared")
    shown = Comparison()
    qtbot.addWidget(shown)
    held = Held(monkeypatch, comparison, "load", comparison.load)
    (summary,) = run_store.list_runs()
    shown.compare([summary])
    qtbot.waitUntil(held.is_asked)
    writer = JournalWriter(run.folder)
    writer.append(MetricsLogged(step=9, total_steps=10, epoch=0.9, loss=0.5))
    writer.append(RunCompleted(folder=str(run.adapter), step=9))
    writer.close()
    shown.reload_changed(run_store.list_runs())
    qtbot.waitUntil(lambda: bool(shown.runs_shown()))
    held.release()
    (compared,) = shown.runs_shown()
    assert len(compared.loss) == 2


def test_the_exports_are_those_of_the_newest_look(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run("exported")
    page = ExportPage()
    qtbot.addWidget(page)
    held = Held(monkeypatch, export_wizard, "list_sources", export_wizard.list_sources)
    page.refresh()
    qtbot.waitUntil(held.is_asked)
    shutil.rmtree(run.folder)
    _run("exported next")
    _run("and next")
    page.refresh()
    qtbot.waitUntil(lambda: page.table.model().rowCount() == 2)
    held.release()
    assert page.table.model().rowCount() == 2


def test_a_folder_that_no_longer_stands_there_is_not_complained_of(
    qtbot: QtBot, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(place: Path) -> Drive:
        if place.name == "unplugged":
            raise UserError("no_drive", "The drive does not answer.")
        return real(place)

    step, real = PlaceStep(), export_place.drive.of
    qtbot.addWidget(step)
    held = Held(monkeypatch, export_place.drive, "of", look)
    step.folder.setText(str(tmp_path / "unplugged"))
    qtbot.waitUntil(held.is_asked)
    step.folder.setText(str(tmp_path / "here"))
    qtbot.waitUntil(step._is_looked_at)
    held.release()
    assert step._error.text() == ""
    assert step._is_looked_at()


def test_what_a_halted_process_did_is_not_told_of_the_next_run(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doing(run: Run) -> Doing:
        return "halted" if run.id == "first" else "waits_for_disk"

    card = StandstillCard()
    qtbot.addWidget(card)
    held = Held(monkeypatch, standstill_card.standstill, "doing", doing)
    card.show_standstill(Run(tmp_path / "first"), Standstill("silent", 60.0), None)
    qtbot.waitUntil(held.is_asked)
    card.show_standstill(Run(tmp_path / "second"), Standstill("silent", 60.0), None)
    qtbot.waitUntil(lambda: "waits for a disk" in card._doing.text())
    held.release()
    assert "waits for a disk" in card._doing.text()


# ------------------------------------------------------------------------------------ settings


def test_of_two_files_opened_the_last_is_shown(
    qtbot: QtBot, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    desk = RecipeDesk(JobDraft(parent=window), window)
    for name in ("first", "second"):
        document = {"name": name, "model": {"id": "demo"}, "dataset": {"path": "demo"}}
        (tmp_path / f"{name}.json").write_text(json.dumps(document | {"lora": {"r": 4}}))
    held = Held(monkeypatch, recipe_desk.recipes, "read", recipe_desk.recipes.read)
    desk.open_file(tmp_path / "first.json")
    qtbot.waitUntil(held.is_asked)
    desk.open_file(tmp_path / "second.json")
    qtbot.waitUntil(lambda: window.findChild(RecipeDialog) is not None)
    held.release()
    (dialog,) = window.findChildren(RecipeDialog)
    dialog.reject()


def test_a_preset_that_was_kept_stays_in_the_list(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = JobDraft()
    held = Held(monkeypatch, preset_choice, "own_presets", preset_choice.own_presets)
    choice = PresetChoice(draft)  # reads them
    qtbot.addWidget(choice)
    qtbot.waitUntil(held.is_asked)
    presets.save_own("mine", {field: draft.value(field) for field in presets.fields()})
    choice.reload("mine")
    qtbot.waitUntil(lambda: choice.own_titles() == ["mine"])
    held.release()
    assert choice.own_titles() == ["mine"]


def test_a_switch_flipped_twice_stays_as_it_was_put_last(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    real, may_save = preferences.save, threading.Event()
    saving: list[bool] = []

    def save(wanted: preferences.Preferences) -> None:
        saving.append(wanted.work_offline)
        if len(saving) == 1:
            assert may_save.wait(120)
        real(wanted)

    monkeypatch.setattr(preferences, "save", save)
    switch = OfflineSwitch()
    qtbot.addWidget(switch)
    said: list[bool] = []
    switch.changed.connect(said.append)
    switch.click()
    qtbot.waitUntil(lambda: saving == [True])
    switch.click()
    qtbot.wait(50)  # that it could overtake
    may_save.set()
    _settle()
    assert said == [False]
    assert preferences.load().work_offline is False


def test_the_token_that_was_entered_is_the_one_told_of(
    qtbot: QtBot, home: Path, helper_client: HelperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    held = Held(monkeypatch, token_dialog.hub_token, "place", token_dialog.hub_token.place)
    dialog = TokenDialog(helper_client)
    qtbot.addWidget(dialog)
    qtbot.waitUntil(held.is_asked)
    dialog._edit.setText("hf_entered")
    dialog._save.click()
    place = dialog.findChild(QLabel, "tokenPlace")
    qtbot.waitUntil(lambda: place.text().startswith("A token is kept"))
    held.release()
    assert place.text().startswith("A token is kept")
    assert dialog._remove.isVisibleTo(dialog)


def test_the_computer_is_shown_as_it_was_seen_last(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def report() -> dict[str, Any]:
        seen.append(real())
        return seen[-1]

    real = hardware_dialog.doctor.report
    held = Held(monkeypatch, hardware_dialog.doctor, "report", report)
    dialog = HardwareDialog()  # looks
    qtbot.addWidget(dialog)
    qtbot.waitUntil(lambda: len(seen) == 1)
    dialog.look()
    qtbot.waitUntil(lambda: dialog._report is not None)
    held.release()
    assert dialog._report is seen[1]


def test_a_preset_is_kept_under_one_name_at_a_time(
    qtbot: QtBot, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_keep, kept = threading.Event(), list[str]()

    def keep(name: str) -> None:
        assert may_keep.wait(120)
        raise UserError("preset_not_kept", "It cannot be kept.")

    dialog = PresetDialog("Save", "mine", (), keep)
    qtbot.addWidget(dialog)
    dialog.kept.connect(kept.append)
    dialog._save.click()
    assert not dialog._edit.isEnabled() and not dialog._save.isEnabled()
    may_keep.set()
    _settle()
    assert kept == []
    assert dialog._edit.isEnabled() and dialog._save.isEnabled()


# -------------------------------------------------------------------------------------- models


@pytest.fixture
def page(qtbot: QtBot, home: Path, helper_client: HelperClient) -> ModelPage:
    made = ModelPage(JobDraft(), Settings(), helper_client)
    qtbot.addWidget(made)
    _settle()
    return made


def test_a_model_that_has_arrived_is_not_shown_as_missing(
    qtbot: QtBot, page: ModelPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a-model"
    held = Held(monkeypatch, catalog, "describe_model", catalog.describe_model)
    page._draft.choose_model(str(folder))
    qtbot.waitUntil(held.is_asked)
    folder.mkdir()
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
    page._draft.changed.emit("model.id")  # as after a download
    qtbot.waitUntil(lambda: page._entry is not None and page._entry.id == str(folder))
    held.release()
    assert page._entry is not None and page._entry.id == str(folder)
    assert page.findChild(QLabel, "error_model_id").text() == ""


def test_a_folder_looked_into_does_not_replace_the_model_chosen_since(
    qtbot: QtBot, page: ModelPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, model_page, "_identify", model_page._identify)
    page._choose(str(tmp_path))
    qtbot.waitUntil(held.is_asked)
    page._draft.choose_model("acme/chosen")  # as by a file that was opened
    held.release()
    assert page._draft.value("model.id") == "acme/chosen"


@pytest.fixture
def finder(qtbot: QtBot, home: Path, helper_client: HelperClient) -> ModelFinder:
    return ModelFinder(JobDraft(parent=helper_client), helper_client, helper_client)


def test_the_models_listed_are_those_of_the_newest_look(
    qtbot: QtBot, finder: ModelFinder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[list[str]] = []
    finder.listed.connect(lambda found, _: listed.append([one.id for one in found]))
    held = Held(monkeypatch, model_finder, "_list", model_finder._list)
    finder.refresh([])
    qtbot.waitUntil(held.is_asked)
    finder.refresh([str(tmp_path)])
    qtbot.waitUntil(lambda: bool(listed))
    held.release()
    assert len(listed) == 1 and str(tmp_path) in listed[0]


def test_how_a_model_fits_is_told_of_the_settings_as_they_are(
    qtbot: QtBot, finder: ModelFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    finder.fit_arrived.connect(lambda fit: told.append(fit[1]))
    held = Held(monkeypatch, model_finder, "_figures", lambda entry, job: job.lora.r)
    entry = CatalogEntry("acme/m", "m", None, None, "", None, "")
    for rank in (8, 64):
        finder._draft.set_value("lora.r", rank)
        finder.look_at(entry)
        qtbot.waitUntil(held.is_asked)
    qtbot.waitUntil(lambda: bool(told))
    held.release()
    assert told == [64]


# ---------------------------------------------------------------------------------- the window


@pytest.fixture
def window(qtbot: QtBot, home: Path) -> Iterator[MainWindow]:
    made = MainWindow()
    qtbot.addWidget(made)
    made.page("navTrain")
    yield made
    made.closing.close_now()


@pytest.fixture
def train(window: MainWindow) -> TrainPage:
    return cast(TrainPage, window.page("navTrain"))


@pytest.fixture
def resumed(window: MainWindow, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """What the trainer is asked to go on with; it does nothing here."""
    asked: list[Run] = []
    monkeypatch.setattr(window.training, "resume", asked.append)
    return asked


def test_a_hint_about_settings_that_were_changed_is_not_given(
    qtbot: QtBot, window: MainWindow, train: TrainPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(
        monkeypatch,
        main_window,
        "reason_to_measure",
        lambda job, _: "tight" if job.lora.r == 128 else "",
    )
    _settle()
    window.draft.set_value("lora.r", 128)
    window._look_for_hint()
    qtbot.waitUntil(held.is_asked)
    window.draft.set_value("lora.r", 4)
    window._look_for_hint()
    qtbot.waitUntil(lambda: held.calls > 1)
    held.release()
    assert train._draft.hint == ""


def test_of_two_runs_to_go_on_with_the_last_goes_on(
    qtbot: QtBot, window: MainWindow, resumed: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _run("first"), _run("second")
    held = Held(monkeypatch, inputs, "waits_for_consent", inputs.waits_for_consent)
    window.desk.resume(first)
    qtbot.waitUntil(held.is_asked)
    window.desk.resume(second)
    qtbot.waitUntil(lambda: resumed == [second])
    held.release()
    assert resumed == [second]


def test_who_does_not_go_on_with_changed_data_may_press_the_buttons_again(
    qtbot: QtBot,
    window: MainWindow,
    train: TrainPage,
    resumed: list[Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = _run("changed")
    monkeypatch.setattr(inputs, "waits_for_consent", lambda _: True)
    window.desk.open_run(run)
    _settle()
    train._resume()
    assert not train.buttons.start.isEnabled()
    qtbot.waitUntil(lambda: window.findChild(QMessageBox, "inputsChanged") is not None)
    window.findChild(QMessageBox, "inputsChanged").reject()
    assert resumed == []
    assert train.buttons.start.isEnabled()


def test_a_run_that_was_left_is_not_asked_about(
    qtbot: QtBot, window: MainWindow, train: TrainPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _run("first"), _run("second")  # neither of which can be extended
    held = Held(monkeypatch, extend, "reached", extend.reached)
    window.desk.open_run(first)
    window.desk.ask_to_extend(first)
    qtbot.waitUntil(held.is_asked)
    window.desk.open_run(second)
    held.release()
    assert window.findChild(ExtendDialog) is None
    assert train._errors.text() == ""


def test_the_answers_shown_are_those_of_the_newest_run(
    qtbot: QtBot, window: MainWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _run("first"), _run("second")
    chat = cast(ChatPage, window.page("navChat"))
    held = Held(monkeypatch, run_desk, "samples_of", run_desk.samples_of)
    window.desk.load_answers(first)
    qtbot.waitUntil(held.is_asked)
    window.desk.load_answers(second)
    qtbot.waitUntil(lambda: "second" in chat._header.subtitle.text())
    held.release()
    assert "second" in chat._header.subtitle.text()


def test_fixes_for_a_run_that_was_left_are_not_offered(
    qtbot: QtBot, home: Path, helper_client: HelperClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    desk = FitDesk(cast(Any, None), helper_client, window)
    run = failed_run()
    held = Held(monkeypatch, fit_desk.memory_fixes, "find", memory_fixes.without_estimate)
    desk.offer(run)
    qtbot.waitUntil(held.is_asked)
    desk.leave()
    held.release()
    assert window.findChild(FitDialog) is None


def test_a_run_on_its_way_to_another_drive_keeps_no_other_from_it(
    qtbot: QtBot, home: Path, tmp_path: Path
) -> None:
    page = TrainPage()
    qtbot.addWidget(page)
    first, second = failed_run("disk_full"), failed_run("disk_full")

    def show(run: Run) -> None:
        page.open_run(run, live=False)
        qtbot.waitUntil(lambda: page._shown.terminal is not None)

    show(first)
    page.show_moving(first, tmp_path)
    assert not page.outcome._move.isEnabled()
    show(second)
    assert page.outcome._move.isEnabled()
    show(first)
    assert not page.outcome._move.isEnabled()  # it is still on its way
    show(second)
    page.show_moved(first, tmp_path)
    assert page.outcome._move.isEnabled()
