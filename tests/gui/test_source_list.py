"""Several sources with their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton, QRadioButton, QWidget
from pytestqt.qtbot import QtBot

from app.draft import JobDraft, problems_of
from app.widgets.data.source_list import SourceList
from app.widgets.inputs import NumberEdit


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    return JobDraft()


@pytest.fixture
def sources(qtbot: QtBot, draft: JobDraft) -> SourceList:
    sources = SourceList(draft)
    qtbot.addWidget(sources)
    sources.resize(900, 300)
    sources.show()
    return sources


def texts(sources: QWidget) -> list[str]:
    return [label.text() for label in sources.findChildren(QLabel) if label.isVisible()]


def shares(sources: QWidget) -> list[str]:
    return [text for text in texts(sources) if text.endswith(" %")]


def weight(sources: QWidget, index: int) -> NumberEdit:
    found = [
        edit for edit in sources.findChildren(NumberEdit, f"weight_{index}") if edit.isVisible()
    ]
    return found[0]


def add(sources: QWidget, path: str) -> None:
    button = sources.findChild(QPushButton, "addSourceButton")
    edit = sources.findChild(QLineEdit, "addSourceEdit")
    assert button is not None and edit is not None
    button.click()
    assert edit.isVisible()
    edit.setText(path)
    edit.editingFinished.emit()
    assert not edit.isVisible() and button.isVisible()


def test_one_source_needs_no_list(sources: SourceList) -> None:
    assert texts(sources) == []
    assert not sources.findChildren(QRadioButton)[0].isVisible()


def test_add_weigh_and_remove(sources: SourceList, draft: JobDraft) -> None:
    add(sources, "owner/more")
    assert [source["path"] for source in draft.sources()] == ["demo", "owner/more"]
    assert shares(sources) == []  # by rows, which are not counted yet
    sources.set_counts([300, 100])
    assert shares(sources) == ["75 %", "25 %"]
    assert any("400 rows in all" in text for text in texts(sources))
    weight(sources, 0).stepBy(1)
    assert draft.sources()[0]["weight"] == 1
    assert shares(sources) == ["50 %", "50 %"]  # the other one weighs 1
    weight(sources, 1).setValue(3)
    assert shares(sources) == ["25 %", "75 %"]
    assert [s.weight for s in draft.job().dataset.sources] == [1, 3]
    remove = sources.findChild(QPushButton, "removeSource_0")
    assert remove is not None
    remove.click()
    assert draft.job().dataset.path == "owner/more"
    assert texts(sources) == []
    draft.undo()
    assert shares(sources) == ["25 %", "75 %"]


def test_a_weight_is_typed_in_one_step(sources: SourceList, draft: JobDraft) -> None:
    add(sources, "more.csv")
    edit = weight(sources, 1).lineEdit()
    for text in ("0", "0.", "0.2", "0.25"):
        edit.setText(text)
    assert edit.text() == "0.25"
    assert draft.sources()[1]["weight"] == 0.25
    assert shares(sources) == ["80 %", "20 %"]
    edit.setText("much")
    label = sources.findChild(QLabel, "error_dataset_sources")
    assert label is not None and label.isVisible()
    assert label.text() == "The weight of more.csv is a number above 0, or empty."
    assert "dataset.sources" in problems_of(draft)
    edit.setText("")
    assert not label.isVisible()
    draft.undo()
    assert draft.sources()[1]["weight"] is None
    assert len(draft.sources()) == 2


def test_files_are_dropped(sources: SourceList, draft: JobDraft, tmp_path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(tmp_path / name)) for name in ("a.csv", "b.csv")])
    copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier(0)
    enter = QDragEnterEvent(QPoint(5, 5), copy, data, left, none)
    sources.dragEnterEvent(enter)
    assert enter.isAccepted()
    sources.dropEvent(QDropEvent(QPointF(5, 5), copy, data, left, none))
    assert [Path(s["path"]).name for s in draft.sources()] == ["demo", "a.csv", "b.csv"]


def test_the_page_is_told_which_source_is_meant(
    qtbot: QtBot, sources: SourceList, draft: JobDraft
) -> None:
    draft.add_source("more.csv")
    choice = next(b for b in sources.findChildren(QRadioButton, "source_1") if b.isVisible())
    with qtbot.waitSignal(sources.selected) as caught:
        choice.click()
    assert caught.args == [1]
    assert sources.current() == 1
    with qtbot.waitSignal(sources.selected) as caught:
        draft.remove_source(1)
    assert caught.args == [0]


def test_long_paths_and_markup_stay_text(sources: SourceList, draft: JobDraft) -> None:
    draft.add_source("/a/very/long/folder" * 12 + "/<b>name</b>.csv")
    assert any("<b>name</b>.csv" in text for text in texts(sources))
    assert sources.minimumSizeHint().width() < 700


def test_everything_has_a_name(sources: SourceList, draft: JobDraft) -> None:
    draft.add_source("more.csv")
    for kind in (QRadioButton, QPushButton, NumberEdit):
        for widget in sources.findChildren(kind):
            if widget.isVisible():
                assert widget.accessibleName()
                assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus
