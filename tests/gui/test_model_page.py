"""Choosing a base model: from the list, as a folder, as a Hub id, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLabel, QLineEdit, QTableView, QWidget
from pytestqt.qtbot import QtBot

from app.dialogs.token_dialog import TokenDialog
from app.draft import JobDraft, problems_of
from app.helper_client import HelperClient
from app.models.models_model import (
    ENTRY_ROLE,
    FIT,
    FITTING,
    LICENCE,
    MODEL,
    PARAMETERS,
    STATE,
    Badge,
)
from app.pages.model import ModelPage
from app.settings import Settings
from app.widgets.model.model_table import ModelTable, badge_pixmap
from tests.model_files import model_files
from training_backend.computer import devices

FITS: tuple[Badge, ...] = (*FITTING, "does_not_fit")


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    return JobDraft()


@pytest.fixture
def helper(qapp: object) -> Iterator[HelperClient]:
    client = HelperClient()
    yield client
    client.shutdown()


@pytest.fixture
def page(qtbot: QtBot, draft: JobDraft, helper: HelperClient) -> ModelPage:
    page = ModelPage(draft, Settings(), helper)
    qtbot.addWidget(page)
    page.show()
    qtbot.waitUntil(lambda: page.findChild(QTableView, "modelTable").model().rowCount() > 0)
    return page


def combo(page: ModelPage) -> QComboBox:
    found = page.findChild(QComboBox, "modelCombo")
    assert found is not None
    return found


def texts(page: ModelPage) -> list[str]:
    return [label.text() for label in page.findChildren(QLabel) if label.isVisible()]


def test_demo_model_is_chosen_and_described(qtbot: QtBot, page: ModelPage) -> None:
    assert combo(page).currentText() == "SmolLM2-135M-Instruct (demo)"
    assert combo(page).currentData() == "demo"
    qtbot.waitUntil(lambda: "134.5 million" in texts(page))
    assert "apache-2.0" in texts(page)
    assert page.findChild(QLabel, "error_model_id").isHidden()


def test_typed_folder_that_is_missing_is_told_beside_the_field(
    qtbot: QtBot, page: ModelPage, draft: JobDraft
) -> None:
    combo(page).setEditText("/no/such/model")
    error = page.findChild(QLabel, "error_model_id")
    qtbot.waitUntil(lambda: error.isVisible())
    assert "/no/such/model" in error.text()
    assert draft.value("model.id") == "/no/such/model"
    combo(page).setCurrentIndex(0)
    qtbot.waitUntil(lambda: error.isHidden())
    assert draft.value("model.id") == "demo"


def test_hub_id_is_taken(qtbot: QtBot, page: ModelPage, draft: JobDraft) -> None:
    combo(page).setEditText("somebody/some-model")
    qtbot.waitUntil(lambda: draft.value("model.id") == "somebody/some-model")
    qtbot.waitUntil(lambda: "134.5 million" not in texts(page))
    assert "not on this computer yet" in texts(page)
    assert page.findChild(QLabel, "error_model_id").isHidden()


def test_folder_without_a_model(
    qtbot: QtBot, page: ModelPage, draft: JobDraft, tmp_path: Path
) -> None:
    draft.set_value("model.id", str(tmp_path))
    error = page.findChild(QLabel, "error_model_id")
    qtbot.waitUntil(lambda: error.isVisible())
    assert combo(page).currentText() == str(tmp_path)


def test_recent_folders_can_be_chosen_again(
    qtbot: QtBot, draft: JobDraft, helper: HelperClient, tmp_path: Path
) -> None:
    settings = Settings()
    settings.add_recent("models", str(tmp_path))
    page = ModelPage(draft, settings, helper)
    qtbot.addWidget(page)
    qtbot.waitUntil(lambda: combo(page).findData(str(tmp_path)) > 0)


def test_row_of_the_table_chooses(qtbot: QtBot, page: ModelPage, draft: JobDraft) -> None:
    draft.set_value("model.id", "somebody/some-model")
    page.findChild(QTableView, "modelTable").selectRow(0)
    assert draft.value("model.id") == "demo"


def test_a_token_can_be_entered_whatever_is_chosen(qtbot: QtBot, page: ModelPage) -> None:
    press(qtbot, page, "hubToken")
    dialog = page.findChild(TokenDialog, "tokenDialog")
    place = dialog.findChild(QLabel, "tokenPlace")
    qtbot.waitUntil(lambda: place.text().startswith("No token is kept"))
    dialog.findChild(QLineEdit, "tokenEdit").setText("not a token")
    press(qtbot, dialog, "tokenSave")
    error = dialog.findChild(QLabel, "error_token")
    qtbot.waitUntil(lambda: error.text().startswith("That is not a token."))
    dialog.accept()


def test_problem_from_the_start_is_shown(page: ModelPage) -> None:
    page.show_problem("model.id", "The folder is gone.")
    assert page.findChild(QLabel, "error_model_id").text() == "The folder is gone."


# --------------------------------------------------------------------------- looking for a model


def table(page: ModelPage) -> ModelTable:
    found = page.findChild(ModelTable, "modelTable")
    assert found is not None
    return found


def titles(page: ModelPage) -> list[str]:
    model = table(page).model()
    return [model.index(row, MODEL).data() for row in range(model.rowCount())]


def column(page: ModelPage, number: int) -> list[str]:
    model = table(page).model()
    return [model.index(row, number).data() for row in range(model.rowCount())]


def look_for(qtbot: QtBot, page: ModelPage, words: str) -> None:
    before = titles(page)
    combo(page).setEditText(words)
    qtbot.waitUntil(lambda: titles(page) != before)


def press(qtbot: QtBot, page: QWidget, name: str) -> None:
    button = page.findChild(QAbstractButton, name)
    assert button.isVisibleTo(page), name
    assert button.isEnabled(), name
    button.click()


def test_words_narrow_the_list_and_choose_nothing(
    qtbot: QtBot, page: ModelPage, draft: JobDraft
) -> None:
    look_for(qtbot, page, "qwen 7b instruct")
    assert "Qwen2.5 7B Instruct" in titles(page)
    assert all("Qwen" in title and "7B" in title for title in titles(page))
    assert draft.value("model.id") == "demo"
    assert "Working offline: showing what is here and the catalogue." in status(page)
    press(qtbot, page, "modelClear")
    assert len(titles(page)) > 70
    assert combo(page).currentText() == "SmolLM2-135M-Instruct (demo)"


def status(page: ModelPage) -> str:
    return page.findChild(QLabel, "modelStatus").text()


def test_return_goes_on_in_the_list(qtbot: QtBot, page: ModelPage, draft: JobDraft) -> None:
    look_for(qtbot, page, "phi")
    qtbot.keyClick(combo(page).lineEdit(), Qt.Key.Key_Return)
    first = table(page).model().index(0, 0).data(ENTRY_ROLE)
    assert draft.value("model.id") == first.id
    qtbot.keyClick(table(page), Qt.Key.Key_Down)
    second = table(page).model().index(1, 0).data(ENTRY_ROLE)
    assert draft.value("model.id") == second.id
    assert combo(page).currentText() == "phi"  # the list does not jump while one goes through it


def test_down_goes_on_in_the_list_and_escape_shows_all(
    qtbot: QtBot, page: ModelPage, draft: JobDraft
) -> None:
    look_for(qtbot, page, "granite")
    qtbot.keyClick(combo(page).lineEdit(), Qt.Key.Key_Down)
    assert draft.value("model.id").startswith("ibm-granite/")
    qtbot.keyClick(combo(page).lineEdit(), Qt.Key.Key_Escape)
    assert len(titles(page)) > 70


def test_letters_typed_in_the_table_are_looked_for(qtbot: QtBot, page: ModelPage) -> None:
    table(page).setFocus()
    qtbot.keyClick(table(page), "g")
    assert combo(page).currentText() == "g"


def test_nothing_found_says_so_and_offers_all(qtbot: QtBot, page: ModelPage) -> None:
    look_for(qtbot, page, "no <b>such</b> thing")
    assert titles(page) == []
    assert "No model matches “no <b>such</b> thing”." in texts(page)
    press(qtbot, page, "modelShowAll")
    assert len(titles(page)) > 70


def test_an_address_is_taken_by_its_name(qtbot: QtBot, page: ModelPage, draft: JobDraft) -> None:
    combo(page).setEditText("https://huggingface.co/somebody/some-model/tree/main")
    qtbot.waitUntil(lambda: draft.value("model.id") == "somebody/some-model")


def test_filters_leave_what_they_say(qtbot: QtBot, page: ModelPage) -> None:
    page.findChild(QComboBox, "modelLicenceFilter").setCurrentIndex(1)
    assert 0 < len(titles(page)) < 70
    assert set(column(page, LICENCE)) <= {"apache-2.0", "mit"}
    page.findChild(QComboBox, "modelSizeFilter").setCurrentIndex(1)
    model = table(page).model()
    entries = [model.index(row, 0).data(ENTRY_ROLE) for row in range(model.rowCount())]
    assert entries and all(entry.parameters < 1.1e9 for entry in entries)
    press(qtbot, page, "modelHereFilter")
    assert titles(page) == []  # the demo model is not prepared in this test
    press(qtbot, page, "modelShowAll")
    press(qtbot, page, "modelNoGatedFilter")
    assert "needs access" not in column(page, STATE)
    assert "to be downloaded" in column(page, STATE)


def test_a_pressed_header_sorts_by_number(page: ModelPage) -> None:
    table(page).sortByColumn(PARAMETERS, Qt.SortOrder.DescendingOrder)
    model = table(page).model()
    sizes = [model.index(row, 0).data(ENTRY_ROLE).parameters for row in range(model.rowCount())]
    assert sizes == sorted(sizes, reverse=True)


def test_every_row_says_in_a_word_whether_it_fits(
    qtbot: QtBot, page: ModelPage, draft: JobDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = devices.parse_device("cuda:24GiB")
    monkeypatch.setattr(devices, "this_device", lambda *_: card)
    draft.set_value("training.per_device_train_batch_size", 1)  # settings changed: judged anew
    words = {"comfortable", "tight", "fits in 4-bit", "does not fit"}
    qtbot.waitUntil(lambda: set(column(page, FIT)) == words)
    fit = dict(zip(titles(page), column(page, FIT), strict=True))
    assert fit["Llama 3.2 1B Instruct"] == "comfortable"
    assert fit["Llama 3.3 70B Instruct"] == "does not fit"
    shapes = {word: badge_pixmap(badge).toImage() for badge, word in zip(FITS, words, strict=True)}
    assert len({bytes(image.constBits()) for image in shapes.values()}) == 4
    press(qtbot, page, "modelFitsFilter")
    assert "does not fit" not in column(page, FIT)
    assert len(titles(page)) > 10


def test_memory_of_the_chosen_model_is_told_for_both_methods(
    qtbot: QtBot, page: ModelPage, draft: JobDraft
) -> None:
    label = page.findChild(QLabel, "model_fit")
    qtbot.waitUntil(lambda: "GB in 4-bit" in label.text())
    before = label.text()
    assert "GB in 16-bit" in before
    draft.choose_model("Qwen/Qwen2.5-7B-Instruct")
    qtbot.waitUntil(lambda: label.text() not in (before, "not known"))
    assert "GB in 4-bit" in label.text()


def test_what_cannot_be_trained_says_why_and_what_to_take_instead(
    qtbot: QtBot, page: ModelPage, draft: JobDraft, tmp_path: Path
) -> None:
    repo = tmp_path / "hub" / "hub" / "models--acme--Qwen2.5-7B-Instruct-GPTQ"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    files = model_files(quantization_config={"quant_method": "gptq"})
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    page.refresh()
    id = "acme/Qwen2.5-7B-Instruct-GPTQ"
    qtbot.waitUntil(lambda: id in titles(page))
    assert column(page, STATE)[titles(page).index(id)] == "cannot be trained"
    row = table(page).model().index(titles(page).index(id), MODEL)
    assert "quantised already" in row.data(Qt.ItemDataRole.ToolTipRole)
    table(page).setCurrentIndex(row)
    error = page.findChild(QLabel, "error_model_id")
    qtbot.waitUntil(lambda: "quantised already" in error.text())
    press(qtbot, page, "modelTakeInstead")
    qtbot.waitUntil(lambda: draft.value("model.id") == "Qwen/Qwen2.5-7B-Instruct")
    qtbot.waitUntil(lambda: error.isHidden())


# ------------------------------------------------------------------------ folders and adapters


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "my adapter"
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct",
        "r": 24,
        "lora_alpha": 12,
        "target_modules": ["v_proj", "q_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def drop(page: ModelPage, folder: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(folder))])
    event = QDropEvent(
        QPointF(10, 10), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    page.dropEvent(event)


def test_a_dropped_model_folder_is_taken(
    qtbot: QtBot, page: ModelPage, draft: JobDraft, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny llama"
    folder.mkdir()
    for name, content in model_files().items():
        (folder / name).write_bytes(content)
    drop(page, folder)
    qtbot.waitUntil(lambda: draft.value("model.id") == str(folder))
    qtbot.waitUntil(lambda: "tiny llama" in titles(page))
    assert page.findChild(QLabel, "model_location").text() == str(folder)
    assert page.findChild(QWidget, "downloadCard").isHidden()


def test_an_adapter_is_trained_on_from_in_one_step(
    qtbot: QtBot, page: ModelPage, draft: JobDraft, adapter: Path
) -> None:
    drop(page, adapter)
    qtbot.waitUntil(lambda: draft.value("model.id") == "Qwen/Qwen2.5-0.5B-Instruct")
    assert draft.value("model.adapter") == str(adapter)
    assert (draft.value("lora.r"), draft.value("lora.lora_alpha")) == (24, 12)
    assert draft.value("lora.target_modules") == ["q_proj", "v_proj"]
    assert draft.model_text() == "Qwen2.5-0.5B-Instruct + my adapter"
    assert not problems_of(draft)
    assert "Trains on from the adapter my adapter" in texts(page)
    draft.undo()
    assert (draft.value("model.id"), draft.value("model.adapter")) == ("demo", None)
    assert draft.value("lora.r") == 16
    draft.redo()
    press(qtbot, page, "modelDropAdapter")
    assert draft.value("model.adapter") is None
    assert draft.value("model.id") == "Qwen/Qwen2.5-0.5B-Instruct"


def test_another_model_leaves_the_adapter_behind(
    qtbot: QtBot, page: ModelPage, draft: JobDraft, adapter: Path
) -> None:
    drop(page, adapter)
    qtbot.waitUntil(lambda: draft.value("model.adapter") is not None)
    table(page).select("demo")
    combo(page).setCurrentIndex(combo(page).findData("microsoft/Phi-4-mini-instruct"))
    qtbot.waitUntil(lambda: draft.value("model.id") == "microsoft/Phi-4-mini-instruct")
    assert draft.value("model.adapter") is None


def test_a_damaged_adapter_is_told_beside_the_field(
    qtbot: QtBot, page: ModelPage, draft: JobDraft, adapter: Path
) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    drop(page, adapter)
    error = page.findChild(QLabel, "error_model_id")
    qtbot.waitUntil(lambda: "adapter_model.safetensors" in error.text())
    assert draft.value("model.id") == "demo"


# ------------------------------------------------------------------------------- the first try


def test_first_try_does_not_praise_settings_that_are_wrong(
    qtbot: QtBot, home_with_demo_model: Path, page: ModelPage, draft: JobDraft
) -> None:
    card = page.findChild(QWidget, "firstTryCard")
    qtbot.waitUntil(lambda: card.isVisible())
    assert any("quick settings are chosen" in text for text in texts(page))
    draft.set_value("lora.r", 0)
    qtbot.waitUntil(lambda: any("1 settings need a look" in text for text in texts(page)))
    draft.set_value("lora.r", 8)
    qtbot.waitUntil(lambda: any("settings of your own" in text for text in texts(page)))
    assert not any("quick settings" in text for text in texts(page))


def test_what_was_said_of_a_search_goes_with_it(qtbot: QtBot, page: ModelPage) -> None:
    status = page.findChild(QLabel, "modelStatus")
    combo(page).setEditText("tiny-l")
    qtbot.waitUntil(lambda: "Working offline" in status.text())
    page._chooser._clear()
    assert status.text() and "Working offline" not in status.text()
