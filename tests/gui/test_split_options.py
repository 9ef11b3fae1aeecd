"""What is tested on, what is learned from, and the chat template."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QLabel, QLineEdit, QWidget
from pytestqt.qtbot import QtBot

from app.draft import JobDraft, problems_of
from app.widgets.data.split_options import SplitOptions
from app.widgets.inputs import NumberEdit
from training_backend.data.table import Details


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    draft = JobDraft()
    draft.set_value("evaluation.held_out_fraction", 0.0)
    return draft


@pytest.fixture
def options(qtbot: QtBot, draft: JobDraft) -> SplitOptions:
    options = SplitOptions(draft)
    qtbot.addWidget(options)
    options.resize(1000, 300)
    options.show()
    return options


def combo(options: QWidget, name: str) -> QComboBox:
    found = options.findChild(QComboBox, name)
    assert found is not None
    return found


def choose(options: QWidget, name: str, value: str | None) -> None:
    box = combo(options, name)
    box.setCurrentIndex(box.findData(value))
    box.activated.emit(box.currentIndex())


def share(options: QWidget) -> NumberEdit:
    found = options.findChild(NumberEdit, "field_dataset_held_out_share")
    assert found is not None
    return found


def file_edit(options: QWidget) -> QLineEdit:
    found = options.findChild(QLineEdit, "heldOutPathEdit")
    assert found is not None
    return found


def said(options: QWidget, name: str) -> str:
    label = options.findChild(QLabel, name)
    assert label is not None
    return label.text() if label.isVisible() else ""


def test_a_share_of_the_rows(qtbot: QtBot, options: SplitOptions, draft: JobDraft) -> None:
    assert not share(options).isVisible()
    choose(options, "testOn", "share")
    assert draft.value("evaluation.held_out_fraction") == 0.05
    assert share(options).value() == 5
    edit = share(options).lineEdit()
    edit.setText("12.5")
    assert draft.value("evaluation.held_out_fraction") == 0.125
    edit.setText("90")
    assert said(options, "error_dataset_held_out_share") == "A number from 0 to 50."
    assert "evaluation.held_out_fraction" in problems_of(draft)
    edit.setText("")
    assert share(options).isVisible()  # while it is typed anew
    edit.setText("10")
    assert problems_of(draft) == {}
    choose(options, "testOn", "nothing")
    assert draft.value("evaluation.held_out_fraction") == 0
    assert not share(options).isVisible()
    draft.undo()
    assert combo(options, "testOn").currentData() == "share"
    assert share(options).value() == 10


def test_half_a_percent_can_be_typed(qtbot: QtBot, options: SplitOptions, draft: JobDraft) -> None:
    with qtbot.waitActive(options):
        options.show()
    choose(options, "testOn", "share")
    edit = share(options).lineEdit()
    share(options).setFocus()
    edit.selectAll()
    for key in (Qt.Key.Key_0, Qt.Key.Key_Period, Qt.Key.Key_5):
        qtbot.keyClick(edit, key)
    assert draft.value("evaluation.held_out_fraction") == 0.005
    assert edit.text() == "0.5"


def test_a_file_of_its_own(options: SplitOptions, draft: JobDraft) -> None:
    choose(options, "testOn", "share")
    choose(options, "testOn", "file")
    assert draft.value("evaluation.held_out_fraction") == 0.05  # until a file is named
    file_edit(options).setText("test.csv")
    file_edit(options).editingFinished.emit()
    assert draft.value("dataset.held_out_path") == "test.csv"
    assert draft.value("evaluation.held_out_fraction") == 0
    draft.undo()
    assert draft.value("dataset.held_out_path") is None
    assert draft.value("evaluation.held_out_fraction") == 0.05
    assert combo(options, "testOn").currentData() == "share"
    assert options.show_problem("dataset.held_out_path", "There is no data file test.csv.")
    assert said(options, "error_dataset_held_out_path").startswith("There is no")


def test_what_is_learned_from(options: SplitOptions, draft: JobDraft) -> None:
    choose(options, "field_dataset_loss_on", "last_answer")
    assert draft.job().dataset.loss_on == "last_answer"
    draft.undo()
    assert combo(options, "field_dataset_loss_on").currentData() == "assistant"


def test_how_many_rows_are_learned_from(options: SplitOptions, draft: JobDraft) -> None:
    rows = options.findChild(NumberEdit, "field_dataset_max_rows")
    assert rows is not None and rows.lineEdit().placeholderText() == "all rows"
    rows.setValue(500)
    assert draft.job().dataset.max_rows == 500
    draft.undo()
    assert rows.lineEdit().text() == ""
    assert draft.job().dataset.max_rows is None


def test_plain_text_has_pieces_and_no_turns(options: SplitOptions, draft: JobDraft) -> None:
    piece = options.findChild(NumberEdit, "field_dataset_chunk_length")
    assert piece is not None and not piece.isVisible()
    options.set_table(Details("markdown", 10), ("text",), [{"text": "a"}])
    assert piece.isVisible()
    assert not combo(options, "field_dataset_loss_on").isVisible()
    piece.setValue(512)
    assert draft.job().dataset.chunk_length == 512
    piece.lineEdit().setText("")
    assert draft.job().dataset.chunk_length is None


def test_chat_template(options: SplitOptions, draft: JobDraft) -> None:
    box = combo(options, "field_dataset_chat_template")
    assert box.currentText() == "The model's own"
    options.template.set_model_template(False)
    assert "the model has none" in box.currentText()
    notes = [label.text() for label in options.findChildren(QLabel) if label.isVisible()]
    assert any("has no chat template" in note for note in notes)
    for template in ("chatml", "llama3", "mistral", "gemma", "alpaca", "plain"):
        choose(options, "field_dataset_chat_template", template)
        assert draft.job().dataset.chat_template == template
    assert options.show_problem("dataset.chat_template", "The template takes too long.")
    assert said(options, "error_dataset_chat_template")
    assert not options.show_problem("model.id", "no")


def test_everything_has_a_name(options: SplitOptions) -> None:
    for kind in (QComboBox, NumberEdit, QLineEdit):
        for widget in options.findChildren(kind):
            # The line inside a number's box has the name of its box.
            if widget.isVisible() and not isinstance(widget.parent(), NumberEdit):
                assert widget.accessibleName(), widget
