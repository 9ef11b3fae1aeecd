"""Choosing a base model: from the list, as a folder, as a Hub id, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtWidgets import QComboBox, QLabel, QTableView
from pytestqt.qtbot import QtBot

from app.draft import JobDraft
from app.helper_client import HelperClient
from app.pages.model import ModelPage
from app.settings import Settings


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


def test_problem_from_the_start_is_shown(page: ModelPage) -> None:
    page.show_problem("model.id", "The folder is gone.")
    assert page.findChild(QLabel, "error_model_id").text() == "The folder is gone."
