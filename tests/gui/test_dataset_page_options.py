"""The Data page with its options and the mapping editor, as somebody goes through them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PySide6.QtCore import QObject, Qt
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QTableView,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app.draft import JobDraft, problems_of
from app.helper_client import HelperClient
from app.pages.dataset import DatasetPage
from app.settings import Settings
from app.widgets.data.mapping_editor import MappingDialog

T = TypeVar("T", bound=QWidget)


class SilentHelper(HelperClient):
    """Never answers by itself, and starts no process."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, Any] = {}

    def ask(self, kind: str, document: Any, *how: Any, **_: Any) -> None:
        self.asked[kind] = (document, how)

    def cancel(self, kind: str, owner: QObject) -> None:
        self.asked.pop(kind, None)

    def is_asked(self, kind: str) -> bool:
        return kind in self.asked


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    return JobDraft()


@pytest.fixture
def page(qtbot: QtBot, draft: JobDraft) -> Iterator[DatasetPage]:
    page = DatasetPage(draft, Settings(), SilentHelper())
    qtbot.addWidget(page)
    page.resize(1072, 720)
    page.show()
    qtbot.waitUntil(lambda: part(page, QTableView, "datasetPreviewTable").model().rowCount() > 0)
    yield page
    page.shutdown()


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    path = tmp_path / "tickets.csv"
    lines = ["Nr;Betreff;Lösung", *(f"{n};Frage {n};Eine Antwort auf {n}" for n in range(9))]
    path.write_text("\n".join(lines), encoding="cp1252")
    return path


def part(page: QWidget, kind: type[T], name: str) -> T:
    found = page.findChild(kind, name)
    assert found is not None, name
    return found


def error(page: QWidget, name: str) -> str:
    label = part(page, QLabel, f"error_dataset_{name}")
    return label.text() if label.isVisible() else ""


def choose(page: QWidget, name: str, path: Path) -> None:
    edit = part(page, QLineEdit, name)
    edit.setText(str(path))
    edit.editingFinished.emit()


def header(page: QWidget, column: int) -> str:
    model = part(page, QTableView, "datasetPreviewTable").model()
    return str(model.headerData(column, Qt.Orientation.Horizontal))


def edit_mapping(page: QWidget) -> MappingDialog:
    next(b for b in page.findChildren(QPushButton) if b.text() == "Edit mapping").click()
    return next(w for w in QApplication.topLevelWidgets() if isinstance(w, MappingDialog))


def test_from_an_unknown_csv_to_a_job_in_three_clicks(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tickets: Path
) -> None:
    choose(page, "datasetPathEdit", tickets)
    qtbot.waitUntil(lambda: "Press Edit mapping" in error(page, "format"))
    assert error(page, "path") == ""
    assert part(page, QComboBox, "field_dataset_delimiter").currentText() == "Semicolon (found)"
    dialog = edit_mapping(page)
    part(dialog, QPushButton, "mappingDone").click()
    qtbot.waitUntil(lambda: header(page, 0) == "User")
    assert error(page, "format") == ""
    assert problems_of(draft) == {}
    assert draft.job().dataset.mapping is not None
    draft.undo()
    qtbot.waitUntil(lambda: "Press Edit mapping" in error(page, "format"))


def test_a_mapping_that_is_taken_back(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tickets: Path
) -> None:
    choose(page, "datasetPathEdit", tickets)
    qtbot.waitUntil(lambda: error(page, "format") != "")
    edit_mapping(page).reject()
    assert draft.value("dataset.mapping") is None


def test_a_wrong_encoding_is_told_beside_it(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tickets: Path
) -> None:
    choose(page, "datasetPathEdit", tickets)
    qtbot.waitUntil(lambda: error(page, "format") != "")
    draft.set_source(0, {"encoding": "utf-8"})
    qtbot.waitUntil(lambda: "encoding" in error(page, "encoding"))
    assert error(page, "path") == ""
    draft.undo()
    qtbot.waitUntil(lambda: error(page, "encoding") == "")


def test_each_source_of_a_mixture_has_its_own_options(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tickets: Path, tmp_path: Path
) -> None:
    part(page, QPushButton, "moreDataOptions").click()
    part(page, QPushButton, "addSourceButton").click()
    choose(page, "addSourceEdit", tickets)
    qtbot.waitUntil(lambda: error(page, "format") != "")
    choice = next(b for b in page.findChildren(QRadioButton, "source_1") if b.isVisible())
    choice.click()
    assert part(page, QLineEdit, "datasetPathEdit").text() == str(tickets)
    qtbot.waitUntil(
        lambda: (
            part(page, QComboBox, "field_dataset_delimiter").currentText() == "Semicolon (found)"
        )
    )
    dialog = edit_mapping(page)
    part(dialog, QPushButton, "mappingDone").click()
    first, second = draft.job().dataset.resolved_sources()
    assert first.mapping is None
    assert second.mapping is not None
    qtbot.waitUntil(lambda: error(page, "format") == "")
    other = tmp_path / "other.txt"
    other.write_text("Once upon a time.", encoding="utf-8")
    choose(page, "datasetPathEdit", other)  # in the place of the source that is shown
    assert [source["path"] for source in draft.sources()] == ["demo", str(other)]
    qtbot.waitUntil(lambda: page._reader.sources != [])


def test_a_model_without_a_chat_template(page: DatasetPage) -> None:
    part(page, QPushButton, "moreDataOptions").click()
    page._on_preview({"chat_template": "plain"})
    assert "has none" in part(page, QComboBox, "field_dataset_chat_template").currentText()
    page._on_preview({"chat_template": "model"})
    assert part(page, QComboBox, "field_dataset_chat_template").currentText() == "The model's own"


def test_at_1280x720_nothing_is_cut(page: DatasetPage, draft: JobDraft) -> None:
    part(page, QPushButton, "moreDataOptions").click()
    draft.set_value("evaluation.held_out_fraction", 0.05)
    for widget in page.findChildren(QComboBox):
        if widget.isVisible() and widget.objectName().startswith("field_"):
            right = widget.mapTo(page, widget.rect().topRight()).x()
            assert right <= page.width(), widget.objectName()
            assert widget.height() >= 30
