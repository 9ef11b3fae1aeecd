"""What was found out about a source is shown, and each of it can be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QCheckBox, QComboBox, QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.draft import JobDraft, problems_of
from app.widgets.data.source_options import OPTIONS, SourceOptions
from app.widgets.flow import FlowLayout, FlowRow
from training_backend.data.reader import open_source
from training_backend.data.table import Details
from training_backend.errors import UserError

BAD = Path(__file__).parents[1] / "assets" / "bad_data"


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    return JobDraft()


@pytest.fixture
def options(qtbot: QtBot, draft: JobDraft) -> SourceOptions:
    options = SourceOptions(draft)
    qtbot.addWidget(options)
    options.resize(1000, 200)
    options.show()
    return options


def load(options: SourceOptions, draft: JobDraft, path: Path | None = None) -> None:
    """As the page does it."""
    if path is not None:
        draft.choose_data(str(path))
    source = draft.job().dataset.resolved_sources()[0]
    try:
        table = open_source(source)
    except UserError as error:
        options.set_table(None, (), [])
        options.show_problem(error.field or "", str(error))
        return
    options.set_table(table.details, table.columns, list(table.rows(limit=2)), table.notices)


def combo(options: SourceOptions, name: str) -> QComboBox:
    found = options.findChild(QComboBox, f"field_dataset_{name}")
    assert found is not None
    return found


def choose(options: SourceOptions, name: str, value: Any) -> None:
    box = combo(options, name)
    index = box.findData(value)
    assert index >= 0
    box.setCurrentIndex(index)
    box.activated.emit(index)


def shown(options: SourceOptions) -> list[str]:
    return [name for name in OPTIONS if combo(options, name).isVisible()]


def error(options: SourceOptions, name: str) -> str:
    label = options.findChild(QLabel, f"error_dataset_{name}")
    assert label is not None
    return label.text() if label.isVisible() else ""


def test_a_csv_file(options: SourceOptions, draft: JobDraft) -> None:
    load(options, draft, BAD / "semicolons.csv")
    assert shown(options) == ["encoding", "delimiter", "format"]
    assert combo(options, "encoding").currentText() == "UTF-8 (found)"
    assert combo(options, "delimiter").currentText() == "Semicolon (found)"
    kind = options.findChild(QLabel, "sourceKind")
    assert kind is not None and kind.text().startswith("CSV, ")
    choose(options, "delimiter", ",")
    assert draft.value("dataset.delimiter") == ","
    assert combo(options, "delimiter").itemText(0) == "Find out"
    draft.undo()
    assert combo(options, "delimiter").currentText() == "Semicolon (found)"


def test_a_wrong_encoding_stays_to_be_changed(options: SourceOptions, draft: JobDraft) -> None:
    load(options, draft, BAD / "latin1.csv")
    assert "(found)" in combo(options, "encoding").currentText()
    choose(options, "encoding", "utf-8")
    load(options, draft)
    assert "encoding" in error(options, "encoding")
    assert "encoding" in shown(options)
    choose(options, "encoding", None)
    load(options, draft)
    assert error(options, "encoding") == ""
    assert "(found)" in combo(options, "encoding").currentText()


def test_a_value_of_a_job_file_that_is_not_in_the_list(
    options: SourceOptions, draft: JobDraft
) -> None:
    draft.set_source(0, {"encoding": "mac_roman"})
    assert combo(options, "encoding").currentText() == "mac_roman"


def test_sheets_and_lists(options: SourceOptions, draft: JobDraft) -> None:
    options.set_table(
        Details("xlsx", 10, sheet="One", sheets=("One", "Two")), ("text",), [{"text": "a"}]
    )
    assert shown(options) == ["sheet", "format"]
    choose(options, "sheet", "Two")
    assert draft.value("dataset.sheet") == "Two"
    draft.choose_data("demo")
    options.set_table(Details("xlsx", 10, sheet="One", sheets=("One",)), ("text",), [{"text": "a"}])
    assert shown(options) == ["format"]  # nothing to choose from
    load(options, draft, BAD / "two_lists.json")
    assert combo(options, "subset").currentText() == "train (found)"
    choose(options, "subset", "test")
    load(options, draft)
    assert combo(options, "subset").currentText() == "test"


def test_subsets_and_splits_of_the_hub(options: SourceOptions, draft: JobDraft) -> None:
    details = Details(
        "hub", subset="en", subsets=("de", "en"), split="validation", splits=("validation", "test")
    )
    options.set_table(details, ("text",), [{"text": "a"}])
    assert shown(options) == ["subset", "split", "format"]
    assert combo(options, "subset").currentText() == "en (found)"
    assert combo(options, "split").currentText() == "validation"
    choose(options, "split", "test")
    choose(options, "subset", "de")
    assert draft.value("dataset.split") == "test"
    assert draft.value("dataset.subset") == "de"


def test_the_form_of_the_rows(options: SourceOptions, draft: JobDraft) -> None:
    columns = ("title", "body")
    rows = [{"title": "How is it?", "body": "It is well, and thank you for asking."}]
    options.set_table(Details("csv", 10, "utf-8", ","), columns, rows)
    assert combo(options, "format").currentText() == "No known form"
    choose(options, "format", "custom")  # begins with a guess, never with a broken job
    assert draft.value("dataset.mapping") == {"columns": {"title": "user", "body": "assistant"}}
    assert problems_of(draft) == {}
    choose(options, "format", "text")
    assert draft.value("dataset.mapping") is None
    assert draft.value("dataset.format") == "text"
    choose(options, "format", "auto")
    assert problems_of(draft) == {}
    draft.set_source(0, {"mapping": {"columns": {"title": "text"}}})  # as a job file may have it
    assert combo(options, "format").currentData() == "custom"


def test_bad_lines(options: SourceOptions, draft: JobDraft) -> None:
    skip = options.findChild(QCheckBox, "field_dataset_skip_bad_lines")
    assert skip is not None
    load(options, draft, BAD / "bad_line.jsonl")
    assert skip.isVisible()
    skip.click()
    assert draft.value("dataset.skip_bad_lines") is True
    draft.undo()
    assert not skip.isChecked()
    options.set_table(Details("parquet", 10), ("text",), [{"text": "a"}])
    draft.choose_data("rows.parquet")
    assert not skip.isVisible()


def test_a_source_of_a_mixture(options: SourceOptions, draft: JobDraft) -> None:
    draft.add_source("more.csv")
    options.set_source(1)
    options.set_table(Details("csv", 10, "utf-8", ","), ("text",), [{"text": "a"}])
    choose(options, "delimiter", ";")
    assert [source["delimiter"] for source in draft.sources()] == [None, ";"]
    options.set_source(0)
    assert combo(options, "delimiter").currentData() is None
    assert problems_of(draft) == {}


def test_nothing_and_other_fields(options: SourceOptions) -> None:
    assert shown(options) == ["format"] or shown(options) == []
    assert not options.show_problem("dataset.path", "no")
    assert options.show_problem("dataset.format", "The columns a, b are of no known form.")
    assert error(options, "format").startswith("The columns")
    for box in options.findChildren(QComboBox):
        assert box.accessibleName()


def test_parts_go_on_in_the_next_line(qtbot: QtBot) -> None:
    whole = QWidget()
    qtbot.addWidget(whole)
    flow = FlowLayout(whole, gap=10, line_gap=5)
    parts = [QWidget() for _ in range(3)]
    for part in parts:
        part.setFixedSize(100, 30)
        flow.addWidget(part)
    whole.resize(230, 100)
    whole.show()
    assert [(p.x(), p.y()) for p in parts] == [(0, 0), (110, 0), (0, 35)]
    assert flow.heightForWidth(230) == 65
    assert flow.heightForWidth(500) == 30
    parts[0].hide()
    assert flow.heightForWidth(230) == 30
    assert flow.takeAt(9) is None


def test_lines_are_never_squeezed(qtbot: QtBot) -> None:
    row = FlowRow()
    qtbot.addWidget(row)
    for _ in range(3):
        part = QWidget()
        part.setFixedSize(100, 30)
        row.add(part)
    row.resize(120, 30)
    row.show()
    qtbot.waitUntil(lambda: row.minimumHeight() == 106)  # three lines with 8 between them
    part.hide()
    qtbot.waitUntil(lambda: row.minimumHeight() == 68)
