"""Settings from files and runs, into files, and as presets of one's own, as a person meets them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import (
    QApplication,
    QCheckBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.desks.recipe_desk import RecipeDesk
from app.dialogs.own_presets import OwnPresets
from app.dialogs.preset_dialog import PresetDialog
from app.dialogs.recipe_dialog import RecipeDialog
from app.dialogs.save_recipe_dialog import SaveRecipeDialog
from app.draft import JobDraft
from app.pages.runs import RunsPage
from app.widgets.card import ElidedLabel
from app.widgets.menu_button import MenuButton
from app.widgets.settings.preset_choice import PresetChoice
from training_backend import runs
from training_backend.job import parse_job
from training_backend.starting_points import presets


@pytest.fixture
def window(qtbot: QtBot) -> QWidget:
    made = QWidget()
    made.resize(900, 700)
    qtbot.addWidget(made)
    made.show()
    return made


@pytest.fixture
def draft(window: QWidget) -> JobDraft:
    return JobDraft(parent=window)


@pytest.fixture
def desk(window: QWidget, draft: JobDraft) -> RecipeDesk:
    return RecipeDesk(draft, window)


def opened(qtbot: QtBot, window: QWidget, kind: type[Any], name: str = "") -> Any:
    """The dialog of this kind that comes up."""
    arguments = (kind, name) if name else (kind,)
    qtbot.waitUntil(lambda: window.findChild(*arguments) is not None)
    return window.findChild(*arguments)


def open_document(desk: RecipeDesk, tmp_path: Path, document: Any) -> None:
    path = tmp_path / "from a friend.json"
    path.write_text(json.dumps(document), "utf-8")
    desk.open_file(path)


def texts(dialog: QWidget) -> list[str]:
    found = [label.text() for label in dialog.findChildren(QLabel)]
    return [text for text in found if text]


def press(dialog: QWidget, name: str) -> None:
    button = dialog.findChild(QPushButton, name)
    assert button is not None
    button.click()


# ------------------------------------------------------------------------------------ opening


def test_a_file_says_what_it_would_change_and_is_taken_back_in_one_step(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    before = draft.document()
    document = {
        **before,
        "name": "theirs",
        "model": {"id": "owner/name"},
        "lora": {**before["lora"], "r": 64, "use_dora": True},
    }
    open_document(desk, tmp_path, document)
    dialog = opened(qtbot, window, RecipeDialog)
    shown = texts(dialog)
    assert shown[1] == "from a friend.json"
    rows = [shown[at : at + 3] for at, text in enumerate(shown) if text in ("Rank", "Base model")]
    assert rows == [["Base model", "demo", "owner/name"], ["Rank", "16", "64"]]
    assert shown[-4:-1] == ["Train sizes apart (DoRA)", "off", "on"]
    apply = dialog.findChild(QPushButton, "recipeApply")
    assert apply.text() == "Apply 4"
    with qtbot.waitSignal(desk.applied) as told:
        apply.click()
    assert told.args == ["lora.use_dora"]
    assert (draft.value("name"), draft.value("lora.r")) == ("theirs", 64)
    assert draft.value("model.id") == "owner/name"
    draft.undo()
    assert draft.document() == before


def test_only_the_ticked_parts_are_taken_over(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    before = draft.document()
    document = {**before, "model": {"id": "owner/name"}, "dataset": {"path": "owner/rows"}}
    open_document(desk, tmp_path, {**document, "lora": {"r": 64}})
    dialog = opened(qtbot, window, RecipeDialog)
    for part in ("model", "settings"):
        dialog.findChild(QCheckBox, f"recipe_{part}").click()
    press(dialog, "recipeApply")
    assert draft.document() == {**before, "dataset": {**before["dataset"], "path": "owner/rows"}}


def test_what_is_not_on_this_computer_is_said_and_not_taken_over_unasked(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    document = {**draft.document(), "dataset": {"path": "/home/them/rows.jsonl"}}
    open_document(desk, tmp_path, {**document, "lora": {"r": 64}})
    dialog = opened(qtbot, window, RecipeDialog)
    missing = dialog.findChild(ElidedLabel, "recipeMissing")
    assert missing.text() == "Not on this computer: /home/them/rows.jsonl"
    assert not dialog.findChild(QCheckBox, "recipe_data").isChecked()
    press(dialog, "recipeApply")
    assert (draft.value("dataset.path"), draft.value("lora.r")) == ("demo", 64)


def test_a_file_that_is_the_same_has_nothing_to_change(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    open_document(desk, tmp_path, draft.document())
    dialog = opened(qtbot, window, RecipeDialog)
    assert "All of it is set like this already." in texts(dialog)
    apply = dialog.findChild(QPushButton, "recipeApply")
    assert (apply.text(), apply.isEnabled()) == ("Nothing to change", False)


def test_a_preset_as_a_file_leaves_model_data_and_questions(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    before = draft.document()
    open_document(desk, tmp_path, presets.presets()[-1].model_dump(mode="json"))
    dialog = opened(qtbot, window, RecipeDialog)
    assert "It names neither a model nor data: yours stay." in texts(dialog)
    press(dialog, "recipeApply")
    assert draft.value("lora.r") == 64
    for kept in ("model", "dataset", "name"):
        assert draft.document()[kept] == before[kept]
    assert draft.value("evaluation.prompts") == before["evaluation"]["prompts"]


def test_mistakes_in_a_file_are_told_by_the_names_of_the_settings(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    before = draft.document()
    open_document(desk, tmp_path, {"lora": {"lora_alpha": 0, "rank": 8}, "name": "<b>x</b>"})
    box = opened(qtbot, window, QMessageBox, "recipeProblem")
    assert box.text() == "from a friend.json cannot be opened: 2 of its settings are wrong"
    lines = box.informativeText().splitlines()
    assert lines[0].startswith("Alpha: ") and lines[1] == "lora.rank: unknown key; did you mean r?"
    assert box.textFormat() == Qt.TextFormat.PlainText
    box.reject()
    assert draft.document() == before


def test_a_file_that_is_no_job_is_refused_in_words(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, tmp_path: Path
) -> None:
    open_document(desk, tmp_path, {"name": "left-pad", "version": "1.3.0"})
    box = opened(qtbot, window, QMessageBox, "recipeProblem")
    assert "is JSON, but no job file." in box.informativeText()
    box.reject()


def test_the_settings_of_a_run_are_shown_the_same_way(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft
) -> None:
    run = runs.create(parse_job({**draft.document(), "name": "earlier", "lora": {"r": 4}}))
    desk.open_run(run)
    dialog = opened(qtbot, window, RecipeDialog)
    assert "earlier" in texts(dialog)
    press(dialog, "recipeApply")
    assert draft.value("lora.r") == 4
    (run.folder / "job.json").write_text("{", "utf-8")
    desk.open_run(run)
    box = opened(qtbot, window, QMessageBox, "recipeProblem")
    assert "not valid JSON" in box.informativeText()
    box.reject()


def test_a_job_file_dropped_on_the_window_is_opened_and_other_files_are_not_taken(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.JSON"
    path.write_text('{"lora": {"r": 64}}', "utf-8")
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    taken = {}
    for file in (path, tmp_path / "rows.csv"):
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(file))])
        enter = QDragEnterEvent(
            window.rect().center(), Qt.DropAction.CopyAction, data, buttons, keys
        )
        enter.ignore()
        QApplication.sendEvent(window, enter)
        taken[file] = enter.isAccepted()
    assert taken == {path: True, tmp_path / "rows.csv": False}
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    QApplication.sendEvent(
        window, QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, buttons, keys)
    )
    assert opened(qtbot, window, RecipeDialog) is not None


def test_the_file_to_open_is_asked_for_without_blocking(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"lora": {"r": 64}}', "utf-8")
    desk.ask_for_file()
    dialog = opened(qtbot, window, QFileDialog)
    dialog.fileSelected.emit(str(path))
    dialog.close()
    assert opened(qtbot, window, RecipeDialog) is not None


def test_signs_that_cannot_be_seen_are_written_out(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, tmp_path: Path
) -> None:
    open_document(desk, tmp_path, {"lora": {}, "evaluation": {"prompts": ["a\u202eb"]}})
    assert "a⟨U+202E⟩b" in texts(opened(qtbot, window, RecipeDialog))


def test_megabytes_in_a_setting_are_cut(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, tmp_path: Path
) -> None:
    open_document(desk, tmp_path, {"lora": {}, "evaluation": {"prompts": ["x" * 10_000_000]}})
    shown = texts(opened(qtbot, window, RecipeDialog))
    assert max(map(len, shown)) < 600 and any(text.startswith("xxx") for text in shown)


# ------------------------------------------------------------------------------------- saving


def saved(qtbot: QtBot, window: QWidget, choice: str, path: Path) -> dict[str, Any]:
    dialog = opened(qtbot, window, SaveRecipeDialog)
    qtbot.waitUntil(lambda: dialog._shared is not None)
    dialog.findChild(QWidget, choice).click()
    press(dialog, "saveRecipe")
    where = opened(qtbot, window, QFileDialog)
    assert where.selectedFiles()[0].endswith("Support-style.json")
    where.fileSelected.emit(str(path))
    where.close()
    qtbot.waitUntil(path.exists)
    return cast(dict[str, Any], json.loads(path.read_text("utf-8")))


def test_the_whole_job_is_saved_and_opens_again_as_it_was(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    draft.set_value("dataset.path", str(tmp_path / "canary.csv"))
    desk.save()
    document = saved(qtbot, window, "saveWhole", tmp_path / "whole.json")
    assert document == draft.document()
    assert list(document) == list(draft.document())


def test_what_is_shared_names_no_folder_and_that_is_said_before(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft, tmp_path: Path
) -> None:
    data = tmp_path / "canary_rows.csv"
    draft.set_value("dataset.path", str(data))
    desk.save()
    dialog = opened(qtbot, window, SaveRecipeDialog)
    qtbot.waitUntil(lambda: dialog._shared is not None)
    assert [label.text() for label in dialog.findChildren(ElidedLabel, "leftOut")] == [
        f"Left out: data ({data})"
    ]
    document = saved(qtbot, window, "saveShared", tmp_path / "shared.json")
    assert "canary" not in json.dumps(document) and document["model"]["id"] == "demo"


def test_a_draft_with_mistakes_is_not_saved(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, draft: JobDraft
) -> None:
    draft.set_value("lora.r", 0)
    desk.save()
    box = opened(qtbot, window, QMessageBox, "recipeProblem")
    assert box.text() == "Some settings need a look first"
    assert box.informativeText().startswith("Rank: ")
    box.reject()


def test_a_folder_that_cannot_be_written_is_said(
    qtbot: QtBot, window: QWidget, desk: RecipeDesk, tmp_path: Path
) -> None:
    desk._write(tmp_path / "gone" / "job.json", {})
    box = opened(qtbot, window, QMessageBox, "errorDialog")
    assert "cannot be written" in box.informativeText()
    box.reject()


# ------------------------------------------------------------------------------------ presets


@pytest.fixture
def own(window: QWidget, draft: JobDraft) -> OwnPresets:
    return OwnPresets(draft, PresetChoice(draft, window), MenuButton("More", window))


def titles(own: OwnPresets) -> list[str]:
    choice = own._choice
    return [choice.itemText(index) for index in range(1, choice.count())]


def keep_as(qtbot: QtBot, own: OwnPresets, window: QWidget, name: str, button: str) -> None:
    dialog = opened(qtbot, window, PresetDialog)
    dialog.findChild(QLineEdit, "presetName").setText(name)
    save = dialog.findChild(QPushButton, "presetSave")
    assert save.text() == button
    with qtbot.waitSignal(dialog.kept):
        save.click()
    qtbot.waitUntil(lambda: own._choice.currentText() == name)


def test_settings_become_a_preset_of_ones_own_that_is_listed_after_the_others(
    qtbot: QtBot, window: QWidget, draft: JobDraft, own: OwnPresets
) -> None:
    draft.set_values({"lora.r": 24, "lora.use_dora": True})
    own._save.trigger()
    keep_as(qtbot, own, window, "Support <b>tone</b> & more", "Save")
    assert titles(own)[-1] == "Support <b>tone</b> & more"
    draft.set_values({"lora.r": 8, "lora.use_dora": False, "model.id": "owner/name"})
    assert own._choice.currentText() == "Support <b>tone</b> & more, changed"
    last = own._choice.count() - 1
    own._choice.setCurrentIndex(last)
    own._choice.activated.emit(last)
    assert (draft.value("lora.r"), draft.value("lora.use_dora")) == (24, True)
    assert draft.value("model.id") == "owner/name"
    draft.undo()
    assert draft.value("lora.r") == 8


def test_a_changed_preset_is_replaced_under_its_name(
    qtbot: QtBot, window: QWidget, draft: JobDraft, own: OwnPresets
) -> None:
    for rank, button in ((24, "Save"), (25, "Replace")):
        draft.set_value("lora.r", rank)
        own._save.trigger()
        keep_as(qtbot, own, window, "mine", button)
        qtbot.waitUntil(lambda: window.findChild(PresetDialog) is None)
    assert [preset.values["lora.r"] for preset in presets.own_presets()] == [25]
    assert titles(own).count("mine") == 1


def test_a_preset_is_renamed_and_deleted_after_a_question(
    qtbot: QtBot, window: QWidget, draft: JobDraft, own: OwnPresets
) -> None:
    assert not own._rename.isEnabled() and not own._delete.isEnabled()
    draft.set_value("lora.r", 24)
    own._save.trigger()
    keep_as(qtbot, own, window, "mine", "Save")
    qtbot.waitUntil(lambda: window.findChild(PresetDialog) is None)
    own.update()
    assert own._rename.text() == "Rename “mine”…"
    own._rename.trigger()
    keep_as(qtbot, own, window, "ours", "Save")
    own._delete.trigger()
    box = opened(qtbot, window, QMessageBox, "deletePresetDialog")
    assert box.text() == "Delete the preset “ours”?"
    next(button for button in box.buttons() if button.text() == "Delete").click()
    qtbot.waitUntil(lambda: "ours" not in titles(own))
    assert presets.own_presets() == () and draft.value("lora.r") == 24
    assert own._choice.currentText() == "Own settings"


def test_a_name_of_the_program_is_refused_beside_the_field(
    qtbot: QtBot, window: QWidget, own: OwnPresets
) -> None:
    own._save.trigger()
    dialog = opened(qtbot, window, PresetDialog)
    dialog.findChild(QLineEdit, "presetName").setText("balanced")
    press(dialog, "presetSave")
    error = dialog.findChild(QLabel, "error_presetName")
    qtbot.waitUntil(lambda: "is a preset of the program" in error.text())
    assert dialog.isVisible()
    dialog.reject()


def test_settings_with_mistakes_are_no_preset(draft: JobDraft, own: OwnPresets) -> None:
    draft.set_value("lora.r", 0)
    own.update()
    assert not own._save.isEnabled() and "1 settings" in own._save.toolTip()


# ----------------------------------------------------------------------------------- the runs


def test_the_line_for_tensorboard_is_copied_where_a_run_wrote_it(qtbot: QtBot, home: Path) -> None:
    run = runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))
    page = RunsPage()
    qtbot.addWidget(page)
    page.show()
    qtbot.waitUntil(lambda: page.table.model().rowCount() == 1)
    page.table.selectRow(0)
    assert not page._copy_tensorboard.isEnabled()
    assert "wrote no TensorBoard logs" in page._copy_tensorboard.toolTip()
    (run.folder / "tensorboard").mkdir()

    def copied() -> bool:
        """The list is read anew now and then, which may fall in between."""
        page.table.selectRow(0)
        page._update_buttons()
        page._copy_tensorboard.trigger()
        text = QGuiApplication.clipboard().text()
        return text == f"tensorboard --logdir {run.folder}/tensorboard"

    qtbot.waitUntil(copied)
