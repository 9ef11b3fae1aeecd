"""The line of options below the path, and what unfolds from it."""

from __future__ import annotations

import pytest
from PySide6.QtWidgets import QComboBox, QLabel, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.draft import JobDraft
from app.widgets.data.data_options import DataOptions
from training_backend.data.table import Details


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    draft = JobDraft()
    draft.set_value("evaluation.held_out_fraction", 0.0)
    return draft


@pytest.fixture
def options(qtbot: QtBot, draft: JobDraft) -> DataOptions:
    options = DataOptions(draft)
    qtbot.addWidget(options)
    options.resize(1024, 300)
    options.set_table(Details("csv", 10, "utf-8", ","), ("text",), [{"text": "a"}])
    options.show()
    return options


def texts(options: QWidget) -> list[str]:
    return [label.text() for label in options.findChildren(QLabel) if label.isVisible()]


def more(options: QWidget) -> QPushButton:
    found = options.findChild(QPushButton, "moreDataOptions")
    assert found is not None
    return found


def visible(options: QWidget, name: str) -> bool:
    found = options.findChild(QComboBox, name)
    assert found is not None
    return found.isVisible()


def test_folded_and_unfolded(options: DataOptions) -> None:
    assert visible(options, "field_dataset_encoding")
    assert not visible(options, "testOn")
    more(options).click()
    assert visible(options, "testOn")
    assert visible(options, "field_dataset_chat_template")
    assert more(options).text() == "Fewer options"


def test_what_is_folded_away_is_said(options: DataOptions, draft: JobDraft) -> None:
    draft.set_value("evaluation.held_out_fraction", 0.05)
    draft.set_value("dataset.chat_template", "chatml")
    draft.add_source("more.csv")
    assert "2 sources, tests on 5 % of the rows, template chatml" in texts(options)
    draft.set_values({"dataset.held_out_path": "/tmp/test.csv"})
    draft.set_value("dataset.loss_on", "everything")
    assert "2 sources, tests on test.csv, learns all, template chatml" in texts(options)
    more(options).click()  # now it stands there
    assert not any(text.startswith("2 sources") for text in texts(options))


def test_a_problem_unfolds_it(options: DataOptions) -> None:
    assert not options.show_problem("model.id", "no")
    assert options.show_problem("dataset.encoding", "Choose another encoding.")
    assert not visible(options, "testOn")
    assert options.show_problem("dataset.held_out_path", "There is no data file x.")
    assert "There is no data file x." in texts(options)


def test_the_chosen_source_is_the_one_that_is_read(
    qtbot: QtBot, options: DataOptions, draft: JobDraft
) -> None:
    draft.add_source("more.csv")
    with qtbot.waitSignal(options.selected):
        options.sources.select(1)
    assert options.current() == 1
    box = options.findChild(QComboBox, "field_dataset_delimiter")
    assert box is not None
    box.setCurrentIndex(box.findData("\t"))
    box.activated.emit(box.currentIndex())
    assert [source["delimiter"] for source in draft.sources()] == [None, "\t"]
