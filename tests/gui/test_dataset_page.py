"""Choosing a data file: rows, format, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QLabel, QLineEdit, QPlainTextEdit, QTableView
from pytestqt.qtbot import QtBot

from app.draft import JobDraft
from app.pages.dataset import DatasetPage
from app.settings import Settings


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    return JobDraft()


@pytest.fixture
def page(qtbot: QtBot, draft: JobDraft) -> DatasetPage:
    page = DatasetPage(draft, Settings())
    qtbot.addWidget(page)
    page.resize(1072, 800)
    page.show()
    qtbot.waitUntil(lambda: table(page).model().rowCount() > 0)
    return page


def table(page: DatasetPage) -> QTableView:
    found = page.findChild(QTableView, "datasetPreviewTable")
    assert found is not None
    return found


def choose(page: DatasetPage, path: Path) -> None:
    edit = page.findChild(QLineEdit, "datasetPathEdit")
    assert edit is not None
    edit.setText(str(path))
    edit.editingFinished.emit()


def cell(page: DatasetPage, row: int, column: int) -> Any:
    return table(page).model().index(row, column).data()


def titles(page: DatasetPage) -> list[str]:
    model = table(page).model()
    return [model.headerData(c, Qt.Orientation.Horizontal) for c in range(model.columnCount())]


def error(page: DatasetPage, name: str = "dataset_path") -> str:
    label = page.findChild(QLabel, f"error_{name}")
    assert label is not None
    return label.text() if label.isVisible() else ""


def test_demo_data_stands_there(page: DatasetPage) -> None:
    assert titles(page)[:2] == ["User", "Assistant"]
    assert table(page).model().rowCount() >= 200
    assert cell(page, 0, 1).startswith("In short:")
    subtitle = next(
        label.text() for label in page.findChildren(QLabel) if "support.jsonl, " in label.text()
    )
    assert "240 rows" in subtitle
    assert "messages" in subtitle
    view = page.findChild(QPlainTextEdit, "tokenView")
    assert view.isReadOnly()
    assert view.toPlainText().startswith("user\n")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.jsonl", None, "There is no data file"),
        ("empty.jsonl", "", "holds no rows"),
        ("broken.jsonl", '{"text": "a"}\n{"text": \n', "line 2"),
        ("latin.jsonl", "caf\xe9".encode("latin-1"), "not UTF-8"),
    ],
)
def test_unreadable_files_are_told_beside_the_path(
    qtbot: QtBot, page: DatasetPage, tmp_path: Path, name: str, content: Any, said: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    choose(page, file)
    qtbot.waitUntil(lambda: error(page) != "")
    assert said in error(page)
    assert table(page).model().rowCount() == 0


def test_own_file_with_rows_that_cannot_be_used(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tmp_path: Path
) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "<b>Hey"}]},
        {"conversations": [{"from": "human", "value": "No answer"}]},
    ]
    file = tmp_path / "own.json"
    file.write_text(json.dumps(rows))
    choose(page, file)
    qtbot.waitUntil(lambda: table(page).model().rowCount() == 2)
    assert draft.value("dataset.path") == str(file)
    assert titles(page) == ["User", "Assistant"]
    assert cell(page, 0, 1) == "<b>Hey"
    assert "has no answer" in cell(page, 1, 0)
    assert any("1 of 2" in label.text() for label in page.findChildren(QLabel))
    table(page).selectRow(1)
    assert "No answer" in page.findChild(QPlainTextEdit, "tokenView").toPlainText()


def test_unknown_format_shows_raw_columns(qtbot: QtBot, page: DatasetPage, tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text('{"frage": "Was?", "antwort": {"a": 1}}\n')
    choose(page, file)
    qtbot.waitUntil(lambda: titles(page) == ["frage", "antwort"])
    assert cell(page, 0, 1) == '{"a": 1}'
    assert "frage" in error(page, "dataset_format")
    assert error(page) == ""


def test_file_can_be_dropped(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tmp_path: Path
) -> None:
    file = tmp_path / "dropped.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n')
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(file))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(9, 9), Qt.DropAction.CopyAction, data, buttons, keys)
    page.dragEnterEvent(enter)
    assert enter.isAccepted()
    page.dropEvent(QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, buttons, keys))
    assert draft.value("dataset.path") == str(file)
    qtbot.waitUntil(lambda: table(page).model().rowCount() == 1)


def test_typing_loads_after_a_pause(qtbot: QtBot, page: DatasetPage, tmp_path: Path) -> None:
    edit = page.findChild(QLineEdit, "datasetPathEdit")
    edit.clear()
    qtbot.keyClicks(edit, str(tmp_path / "typed.jsonl"))
    qtbot.waitUntil(lambda: "typed.jsonl" in error(page))
