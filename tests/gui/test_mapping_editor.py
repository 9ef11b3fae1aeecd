"""Making conversations of any columns: guessed, chosen, or written with placeholders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QApplication,
    QComboBox,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QRadioButton,
    QTextEdit,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app import theme
from app.draft import JobDraft, problems_of
from app.widgets.data.mapping_editor import MappingDialog, MappingEditor
from app.widgets.data.mapping_verdict import judge
from training_backend.data.mapping import to_messages
from training_backend.data.reader import open_source
from training_backend.data.table import Details

T = TypeVar("T", bound=QWidget)

TICKETS = (
    ("Ticket-ID", "Betreff", "Kategorie", "Lösung"),
    [
        {"Ticket-ID": n, "Betreff": f"Frage {n}", "Kategorie": "x", "Lösung": f"Antwort {n} usw."}
        for n in range(8)
    ],
)
ALPACA = (("instruction", "output"), [{"instruction": "Say hello.", "output": "Hello."}] * 6)


@pytest.fixture
def draft(qapp: QApplication) -> JobDraft:
    draft = JobDraft()
    draft.choose_data("tickets.csv")
    return draft


@pytest.fixture
def dialog(qtbot: QtBot, draft: JobDraft) -> MappingDialog:
    dialog = MappingDialog(draft)
    qtbot.addWidget(dialog)
    return dialog


def fill(
    dialog: MappingDialog, table: tuple[tuple[str, ...], list[dict[str, Any]]] = TICKETS
) -> None:
    dialog.set_table(Details("csv"), *table)
    dialog.show()


def part(dialog: QWidget, kind: type[T], name: str) -> T:
    found = dialog.findChild(kind, name)
    assert found is not None, name
    return found


def role_of(dialog: QWidget, column: str) -> QComboBox:
    return next(
        box
        for box in dialog.findChildren(QComboBox)
        if box.objectName().startswith("role_") and f" {column} " in box.accessibleName()
    )


def choose(dialog: QWidget, column: str, role: str) -> None:
    box = role_of(dialog, column)
    box.setCurrentIndex(box.findData(role))


def shown(dialog: QWidget) -> str:
    return part(dialog, QTextEdit, "mappingResult").toPlainText()


def error(dialog: QWidget) -> str:
    label = part(dialog, QLabel, "error_dataset_mapping")
    return label.text() if label.isVisible() else ""


def mapping(draft: JobDraft) -> dict[str, Any]:
    found = draft.value("dataset.mapping")
    assert isinstance(found, dict)
    return found


def test_unknown_columns_are_guessed_and_shown(dialog: MappingDialog, draft: JobDraft) -> None:
    fill(dialog)
    assert mapping(draft)["columns"] == {"Betreff": "user", "Lösung": "assistant"}
    assert draft.value("dataset.format") == "custom"
    assert problems_of(draft) == {}
    assert role_of(dialog, "Betreff").currentText() == "Question"
    assert role_of(dialog, "Ticket-ID").currentText() == "Not used"
    text = shown(dialog)
    assert "Frage 0" in text and "Antwort 4 usw." in text
    assert "Antwort 5" not in text  # the first five
    assert part(dialog, QLabel, "mappingVerdict").text() == "The first 5 rows can be used."
    draft.undo()
    assert draft.value("dataset.mapping") is None


def test_a_known_form_stays_as_found(dialog: MappingDialog, draft: JobDraft) -> None:
    fill(dialog, ALPACA)
    assert draft.value("dataset.mapping") is None
    as_found = part(dialog, QRadioButton, "mappingAsFound")
    assert as_found.isChecked()
    assert "Alpaca" in as_found.text()
    assert "Say hello." in shown(dialog)
    choose(dialog, "instruction", "system")  # begins a mapping from what is shown
    assert mapping(draft)["columns"] == {"instruction": "system", "output": "assistant"}
    as_found.click()
    assert draft.value("dataset.mapping") is None
    assert draft.value("dataset.format") == "auto"


def test_what_is_missing_is_said_in_one_sentence(dialog: MappingDialog, draft: JobDraft) -> None:
    fill(dialog)
    done = part(dialog, QPushButton, "mappingDone")
    choose(dialog, "Lösung", "")
    assert error(dialog) == "Choose the column that holds the answer."
    assert not done.isEnabled()
    assert "dataset.mapping" in problems_of(draft)
    choose(dialog, "Kategorie", "assistant")
    assert error(dialog) == ""
    assert done.isEnabled()
    choose(dialog, "Betreff", "")
    assert "no question yet" in part(dialog, QLabel, "mappingVerdict").text()
    assert done.isEnabled()


def test_texts_with_placeholders(qtbot: QtBot, dialog: MappingDialog, draft: JobDraft) -> None:
    fill(dialog)
    part(dialog, QRadioButton, "mappingByText").click()
    question = part(dialog, QPlainTextEdit, "mapping_user")
    answer = part(dialog, QPlainTextEdit, "mapping_assistant")
    assert (question.toPlainText(), answer.toPlainText()) == ("{Betreff}", "{Lösung}")
    question.setFocus()
    question.moveCursor(question.textCursor().MoveOperation.End)
    qtbot.keyClicks(question, " in ")
    insert = part(dialog, QComboBox, "insertColumn")
    insert.activated.emit(insert.findText("Kategorie"))
    assert mapping(draft)["user"] == "{Betreff} in {Kategorie}"
    assert "Frage 0 in x" in shown(dialog)
    assert mapping(draft)["columns"] == {}
    answer.setPlainText("always the same")
    assert error(dialog) == "Put a column into the answer, or it would be the same for every row."
    answer.setPlainText("{Lsung}")
    assert error(dialog) == "There is no column Lsung; did you mean Lösung?"
    answer.setPlainText("")
    assert error(dialog).startswith("Write what the answer is made of")
    answer.setPlainText("{Lösung}")
    assert problems_of(draft) == {}
    part(dialog, QRadioButton, "mappingByColumn").click()  # nothing is lost on the way back
    assert mapping(draft)["columns"] == {
        "Betreff": "user", "Kategorie": "user", "Lösung": "assistant",
    }  # fmt: skip


def test_system_prompt(dialog: MappingDialog, draft: JobDraft) -> None:
    fill(dialog)
    part(dialog, QLineEdit, "mapping_system_prompt").setText("Be brief.")
    assert mapping(draft)["system_prompt"] == "Be brief."
    assert "Be brief." in shown(dialog)
    part(dialog, QLineEdit, "mapping_system_prompt").setText("")
    assert mapping(draft)["system_prompt"] is None


def test_typing_is_one_step_of_undo_and_undo_is_shown(
    qtbot: QtBot, dialog: MappingDialog, draft: JobDraft
) -> None:
    with qtbot.waitActive(dialog):
        fill(dialog)
    part(dialog, QRadioButton, "mappingByText").click()
    question = part(dialog, QPlainTextEdit, "mapping_user")
    question.setFocus()
    qtbot.keyClicks(question, "Please: ")
    assert mapping(draft)["user"] == "Please: {Betreff}"
    qtbot.keyClick(question, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert question.toPlainText() == "{Betreff}"
    for _ in range(5):  # not beyond where the dialog began
        qtbot.keyClick(
            QApplication.focusWidget(), Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier
        )
    assert draft.value("dataset.mapping") is None
    assert draft.value("dataset.path") == "tickets.csv"


def test_cancel_takes_back_and_can_be_undone(
    qtbot: QtBot, dialog: MappingDialog, draft: JobDraft
) -> None:
    fill(dialog)
    qtbot.keyClick(dialog, Qt.Key.Key_Escape)
    assert draft.value("dataset.mapping") is None
    assert draft.value("dataset.format") == "auto"
    draft.undo()
    assert mapping(draft)["columns"]


def test_sixty_columns_and_long_names(dialog: MappingDialog, draft: JobDraft) -> None:
    long = "a_column_with_a_very_long_name_" * 6 + "question"
    names = (*(f"field_{n:02}" for n in range(60)), long, "reply")
    rows = [dict.fromkeys(names, "1") | {long: "How is it?", "reply": "It is well."}] * 5
    fill(dialog, (names, rows))
    assert mapping(draft)["columns"] == {long: "user", "reply": "assistant"}
    boxes = [b for b in dialog.findChildren(QComboBox) if b.objectName().startswith("role_")]
    assert boxes[0].currentText() == "Question"  # what is used stands first
    assert dialog.width() <= 1280 and dialog.height() <= 720
    search = part(dialog, QLineEdit, "columnSearch")
    search.setText("field_07")
    assert [box.accessibleName() for box in boxes if box.isVisible()] == [
        "What the column field_07 is"
    ]
    fill(dialog, (tuple(f"c{n}" for n in range(3000)), [{"c1": "a"}]))
    assert any("The first 200 of 3000 columns" in x.text() for x in dialog.findChildren(QLabel))


def test_without_a_file(qtbot: QtBot, draft: JobDraft) -> None:
    editor = MappingEditor(draft)
    qtbot.addWidget(editor)
    editor.show()
    assert "Choose a data file first" in part(editor, QLabel, "mappingVerdict").text()
    editor.set_table(None, (), [])
    assert not part(editor, QRadioButton, "mappingByText").isEnabled()


def test_columns_that_are_no_texts(dialog: MappingDialog, draft: JobDraft) -> None:
    fill(dialog, (("id", "price"), [{"id": 1, "price": 2.5}]))
    assert error(dialog) == (
        "Choose the column that is the question and the one that is the answer."
    )


def test_markup_in_the_data_stays_text(dialog: MappingDialog) -> None:
    rows = [{"question": "<img src='file:///etc/passwd'><b>bold</b>", "answer": "<h1>yes</h1>"}]
    fill(dialog, (("question", "answer"), rows))
    assert "<b>bold</b>" in shown(dialog)
    theme.notifier.changed.emit()
    assert "<h1>yes</h1>" in shown(dialog)


def test_a_source_of_a_mixture(qtbot: QtBot, draft: JobDraft) -> None:
    draft.add_source("more.csv")
    dialog = MappingDialog(draft, source=1)
    qtbot.addWidget(dialog)
    fill(dialog)
    first, second = draft.sources()
    assert first["mapping"] is None
    assert second["mapping"]["columns"] == {"Betreff": "user", "Lösung": "assistant"}
    assert problems_of(draft) == {}


def test_everything_has_a_name_and_is_reached_by_keyboard(dialog: MappingDialog) -> None:
    fill(dialog)
    for kind in (QComboBox, QLineEdit, QPlainTextEdit, QTextEdit, QPushButton):
        for widget in dialog.findChildren(kind):
            if widget.isVisible():
                assert widget.accessibleName(), widget.objectName()
                assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus


def test_the_tab_key_follows_what_is_seen(qtbot: QtBot, dialog: MappingDialog) -> None:
    with qtbot.waitActive(dialog):
        fill(dialog)
    part(dialog, QRadioButton, "mappingByColumn").setFocus()
    seen = []
    for _ in range(8):
        qtbot.keyClick(QApplication.focusWidget(), Qt.Key.Key_Tab)
        seen.append(QApplication.focusWidget().objectName())
    assert seen == [
        "role_0", "role_1", "role_2", "role_3", "mapping_system_prompt", "mappingResult",
        "mappingDone", "mappingCancel",
    ]  # fmt: skip


def test_bad_rows_are_counted(qapp: QApplication) -> None:
    verdict = judge("question_answer", None, ("question", "answer"), [
        {"question": "a", "answer": "b"}, {"question": "a", "answer": ""},
    ])  # fmt: skip
    assert verdict.sentence == "1 of the first 2 rows cannot be used."
    assert verdict.level == "careful"
    assert verdict.rows[1] == "This row has an empty answer; it cannot be used."


@pytest.mark.parametrize("form", ["tickets", "alpaca"])
def test_what_is_shown_is_what_the_job_reads(
    dialog: MappingDialog, draft: JobDraft, tmp_path: Path, form: str
) -> None:
    columns, rows = TICKETS if form == "tickets" else ALPACA
    fill(dialog, (columns, rows))
    path = tmp_path / "data.csv"
    lines = [",".join(columns), *(",".join(str(v) for v in row.values()) for row in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    source = draft.job().dataset.resolved_sources()[0].model_copy(update={"path": str(path)})
    for row in open_source(source).rows(limit=5):
        for message in to_messages(row, source.format, source.mapping):
            assert message["content"] in shown(dialog)
