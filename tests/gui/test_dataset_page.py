"""The Data page: choosing data, reading it lazily, and what the helper says of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PySide6.QtCore import QCoreApplication, QMimeData, QObject, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton, QTableView
from pytestqt.qtbot import QtBot

from app import background
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.models.rows_model import RowReader
from app.pages.dataset import DatasetPage
from app.settings import Settings
from app.widgets.data.token_view import TokenView
from training_backend.errors import UserError

NUMBERS = {
    "tokens": 4321, "median": 12, "trained_share": 0.5, "steps_per_epoch": 60, "longest": 300,
    "max_length": 256, "cut_tokens_share": 0.0, "lengths": [(12, 3)], "histogram": [(1, 12, 3)],
}  # fmt: skip


class Helper(HelperClient):
    """Answers when the test says so, without a process."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[str, Any] = {}
        self.history: list[tuple[str, Any]] = []

    def ask(self, kind: str, document: Any, *how: Any, **_: Any) -> None:
        self.requests[kind] = (document, how)
        self.history.append((kind, document))

    def cancel(self, kind: str, owner: QObject) -> None:
        self.requests.pop(kind, None)

    def is_asked(self, kind: str) -> bool:
        return kind in self.requests

    def answer(self, kind: str, document: Any) -> None:
        _, (done, _, _, _) = self.requests.pop(kind)
        done(document)

    def fail(self, kind: str, error: UserError) -> None:
        _, (_, failed, _, _) = self.requests.pop(kind)
        failed(error)

    def progress(self, kind: str, document: Any) -> None:
        _, (_, _, _, told) = self.requests[kind]
        told(document)


@pytest.fixture
def helper(qapp: object) -> Helper:
    return Helper()


@pytest.fixture
def draft(qapp: object) -> JobDraft:
    return JobDraft()


@pytest.fixture
def page(qtbot: QtBot, draft: JobDraft, helper: Helper) -> Iterator[DatasetPage]:
    page = DatasetPage(draft, Settings(), helper)
    qtbot.addWidget(page)
    page.resize(1072, 800)
    page.show()
    qtbot.waitUntil(lambda: table(page).model().rowCount() > 0)
    yield page
    page.shutdown()


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


def says(page: DatasetPage, words: str) -> bool:
    return any(words in label.text() for label in page.findChildren(QLabel) if label.isVisible())


def view(page: DatasetPage) -> TokenView:
    found = page.findChild(TokenView, "tokenView")
    assert found is not None
    return found


def preview(*texts: str, index: int = 0) -> dict[str, Any]:
    tokens = [
        {"id": 3, "text": text, "trained": True, "special": False, "mark": None} for text in texts
    ]
    row = {
        "index": index, "tokens": tokens, "n_tokens": len(tokens), "n_tokens_full": len(tokens),
        "n_trained": len(tokens), "truncated": False,
    }  # fmt: skip
    return {"rows": [row], "max_length": 256}


def report(*findings: dict[str, Any]) -> dict[str, Any]:
    return {"rows": 240, "findings": list(findings), "numbers": NUMBERS, "notices": []}


def press(page: DatasetPage, text: str) -> None:
    buttons = [b for b in page.findChildren(QPushButton) if b.isVisible()]
    next(b for b in buttons if b.text() == text).click()


# ------------------------------------------------------------------------------ choosing data


def test_demo_data_stands_there(qtbot: QtBot, page: DatasetPage, helper: Helper) -> None:
    assert titles(page) == ["User", "Assistant", "Tokens"]
    assert cell(page, 0, 1).startswith("In short:")
    qtbot.waitUntil(lambda: "count" in helper.requests)
    assert says(page, "support.jsonl, more than 50 conversations")
    helper.progress("count", {"rows": 100, "share": 0.4})
    assert says(page, "support.jsonl, more than 100 conversations")
    helper.answer("count", {"counts": [240]})
    assert says(page, "support.jsonl, 240 conversations in the form messages")
    assert says(page, "row 1 of 240")
    assert table(page).model().rowCount() == 240


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.jsonl", None, "There is no data file"),
        ("empty.jsonl", "", "empty"),
        ("broken.jsonl", '{"text": \n', "line 2"),
    ],
)
def test_unreadable_files_are_told_beside_the_path(
    qtbot: QtBot, page: DatasetPage, tmp_path: Path, name: str, content: Any, said: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    choose(page, file)
    qtbot.waitUntil(lambda: error(page) != "")
    assert said in error(page)
    assert table(page).model().rowCount() == 0
    assert says(page, "No usable data is chosen")


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
    assert cell(page, 0, 1) == "<b>Hey"
    assert "has no answer" in cell(page, 1, 0)
    assert says(page, "ShareGPT")


def test_rows_of_data_left_again_are_not_counted_as_those_of_the_data_chosen(
    qtbot: QtBot, page: DatasetPage, helper: Helper, tmp_path: Path
) -> None:
    qtbot.waitUntil(lambda: helper.is_asked("count"))
    path = tmp_path / "knows.parquet"  # it says itself how many rows it has
    pyarrow.parquet.write_table(pyarrow.table({"instruction": ["q"], "output": ["a"]}), path)
    choose(page, path)
    qtbot.waitUntil(lambda: says(page, "knows.parquet, 1 conversation"))
    assert not helper.is_asked("count")


def test_what_was_asked_of_other_settings_is_not_answered(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, helper: Helper
) -> None:
    qtbot.waitUntil(lambda: {"preview", "lint", "lengths"} <= helper.requests.keys())
    draft.set_value("training.max_length", 77)
    assert {"preview", "lint", "lengths"}.isdisjoint(helper.requests)
    qtbot.waitUntil(lambda: {"preview", "lint", "lengths"} <= helper.requests.keys())
    assert helper.requests["lengths"][0]["job"]["training"]["max_length"] == 77


def test_a_line_that_cannot_be_read_is_told_once_and_left_out_on_a_press(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tmp_path: Path
) -> None:
    good = json.dumps({"instruction": "q", "output": "a"})
    path = tmp_path / "torn.jsonl"
    path.write_text("\n".join([*[good] * 4, '{"instruction": oops', good]), encoding="utf-8")
    choose(page, path)
    qtbot.waitUntil(lambda: "line 5" in error(page))
    told = [label for label in page.findChildren(QLabel) if "line 5" in label.text()]
    assert [label.objectName() for label in told] == ["error_dataset_path"]
    button = page.findChild(QPushButton, "leaveOutBadLines")
    assert button is not None
    button.click()
    assert draft.value("dataset.skip_bad_lines") is True
    qtbot.waitUntil(lambda: error(page) == "")
    assert table(page).model().rowCount() == 5


def test_unknown_form_shows_raw_columns(qtbot: QtBot, page: DatasetPage, tmp_path: Path) -> None:
    file = tmp_path / "odd.jsonl"
    file.write_text('{"frage": "Was?", "zahl": {"a": 1}}\n')
    choose(page, file)
    qtbot.waitUntil(lambda: titles(page) == ["frage", "zahl"])
    assert cell(page, 0, 1) == '{"a": 1}'
    assert "frage" in error(page, "dataset_format")
    assert error(page) == ""
    qtbot.waitUntil(lambda: "frage\nWas?" in view(page).toPlainText())


def test_files_and_folders_can_be_dropped(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, tmp_path: Path
) -> None:
    folder = tmp_path / "dropped"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (folder / "b.csv").write_text("prompt,completion\nc,d\n")
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(folder))])
    buttons, keys = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(9, 9), Qt.DropAction.CopyAction, data, buttons, keys)
    page.dragEnterEvent(enter)
    assert enter.isAccepted()
    page.dropEvent(QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data, buttons, keys))
    assert draft.value("dataset.path") == str(folder)
    qtbot.waitUntil(lambda: table(page).model().rowCount() == 2)
    assert cell(page, 1, 1) == "d"


def test_typing_loads_after_a_pause(qtbot: QtBot, page: DatasetPage, tmp_path: Path) -> None:
    edit = page.findChild(QLineEdit, "datasetPathEdit")
    edit.clear()
    qtbot.keyClicks(edit, str(tmp_path / "typed.jsonl"))
    qtbot.waitUntil(lambda: "typed.jsonl" in error(page))


def test_rows_far_down_are_read_when_they_are_looked_at(
    qtbot: QtBot, page: DatasetPage, helper: Helper, tmp_path: Path
) -> None:
    file = tmp_path / "long.jsonl"
    with file.open("w") as lines:
        for number in range(20_000):
            lines.write(f'{{"prompt": "Question {number}", "completion": "Answer"}}\n')
    choose(page, file)
    qtbot.waitUntil(lambda: table(page).model().rowCount() == 50 and cell(page, 0, 1) == "Answer")
    helper.answer("count", {"counts": [20_000]})
    assert cell(page, 15_432, 0) == "…"
    qtbot.waitUntil(lambda: cell(page, 15_432, 0) == "Question 15432")


# ------------------------------------------------------------------------- what the helper says


def test_the_selected_row_is_shown_as_tokens(
    qtbot: QtBot, page: DatasetPage, helper: Helper
) -> None:
    qtbot.waitUntil(lambda: "preview" in helper.requests and "lint" in helper.requests)
    helper.answer("preview", preview("<b>one</b>", " two"))
    assert view(page).toPlainText() == "<b>one</b> two"
    assert says(page, "2 tokens, 2 learned from")
    press(page, "›")  # noqa: RUF001
    assert says(page, "row 2 of")
    qtbot.waitUntil(lambda: "preview" in helper.requests)
    assert helper.requests["preview"][0]["start"] == 1
    qtbot.waitUntil(lambda: "lengths" in helper.requests)
    helper.answer("lengths", {"lengths": {0: 57}})
    assert cell(page, 0, 2) == "57"


def test_findings_are_mended_and_taken_back(
    qtbot: QtBot, page: DatasetPage, helper: Helper, draft: JobDraft
) -> None:
    qtbot.waitUntil(lambda: "lint" in helper.requests)
    helper.progress("lint", {"rows": 100})
    assert says(page, "100 rows")
    found = {
        "code": "empty_answer", "severity": "error", "count": 2, "rows": [3, 7],
        "message": "An empty answer in 2 rows.", "fix": "drop_rows",
    }  # fmt: skip
    helper.answer("lint", report(found))
    assert says(page, "4,321 tokens")
    assert says(page, "60 steps per epoch")
    qtbot.wait(10)
    press(page, "Show")
    assert table(page).model().rowCount() == 2
    assert table(page).model().headerData(1, Qt.Orientation.Vertical) == "8"
    press(page, "Show all rows")
    assert table(page).model().rowCount() > 2

    before = helper.history.count(helper.history[-1])
    press(page, "Leave them out")
    assert draft.value("dataset.fixes")[0]["finding"] == "empty_answer"
    qtbot.waitUntil(lambda: "lint" in helper.requests)  # once more, with the fix
    assert before
    assert helper.requests["lint"][0]["job"]["dataset"]["fixes"]
    qtbot.wait(10)
    press(page, "Undo")
    assert draft.value("dataset.fixes") == []
    draft.undo()
    assert draft.value("dataset.fixes")
    draft.undo()
    draft.undo()
    assert draft.value("dataset.fixes") == []


def test_the_check_runs_again_after_a_change_and_can_be_cancelled(
    qtbot: QtBot, page: DatasetPage, helper: Helper, draft: JobDraft
) -> None:
    qtbot.waitUntil(lambda: "lint" in helper.requests)
    helper.answer("lint", report())
    page._lengths.max_length_chosen.emit(512)
    assert draft.value("training.max_length") == 512
    qtbot.waitUntil(lambda: "lint" in helper.requests)
    assert helper.requests["lint"][0]["job"]["training"]["max_length"] == 512
    press(page, "Cancel")
    assert "lint" not in helper.requests
    draft.set_value("lora.r", 7)  # does not concern the data
    qtbot.wait(900)
    assert "lint" not in helper.requests


@pytest.mark.parametrize(
    ("code", "button", "step"),
    [
        ("demo_model_not_ready", "Prepare the demo model", "prepare_demo"),
        ("model_not_here", "Download the tokenizer", "fetch_tokenizer"),
    ],
)
def test_a_model_that_is_not_there_is_offered(
    qtbot: QtBot, page: DatasetPage, helper: Helper, code: str, button: str, step: str
) -> None:
    qtbot.waitUntil(lambda: "preview" in helper.requests)
    helper.fail("preview", UserError(code, "The model is not here.", field="model.id"))
    qtbot.waitUntil(lambda: view(page).toPlainText().startswith("user\n"))
    qtbot.wait(10)
    press(page, button)
    helper.progress(step, {"share": 0.5})
    press(page, "Cancel")
    assert step not in helper.requests
    helper.fail("preview", UserError(code, "The model is not here.", field="model.id"))
    press(page, button)
    helper.answer(step, {})
    assert {"preview", "lint"} <= helper.requests.keys()


def test_what_a_model_left_again_lacked_is_not_fetched_on(
    qtbot: QtBot, page: DatasetPage, draft: JobDraft, helper: Helper
) -> None:
    qtbot.waitUntil(lambda: "preview" in helper.requests)
    problem = UserError("model_not_here", "The model is not here.", field="model.id")
    helper.fail("preview", problem)
    press(page, "Download the tokenizer")
    draft.choose_model("acme/another")
    assert not helper.is_asked("fetch_tokenizer")
    qtbot.waitUntil(lambda: helper.is_asked("preview"))


def test_a_row_that_was_left_does_not_stand_in_the_place_of_the_row_chosen(
    qtbot: QtBot, page: DatasetPage, helper: Helper, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, may_answer, real = threading.Event(), threading.Event(), RowReader.page

    def slow(reader: RowReader, start: int, limit: int) -> Any:
        asked.set()
        may_answer.wait(30)
        return real(reader, start, limit)

    qtbot.waitUntil(lambda: helper.is_asked("preview"))
    monkeypatch.setattr(RowReader, "page", slow)
    helper.fail("preview", UserError("odd", "This row cannot be shown.", field="model.id"))
    qtbot.waitUntil(asked.is_set)
    table(page).selectRow(1)
    qtbot.waitUntil(lambda: helper.is_asked("preview"))
    helper.answer("preview", preview("the row chosen", index=1))
    may_answer.set()
    background.shutdown()
    QCoreApplication.processEvents()
    assert "the row chosen" in view(page).toPlainText()


def test_nothing_is_asked_while_the_page_is_not_seen(
    qtbot: QtBot, draft: JobDraft, helper: Helper
) -> None:
    page = DatasetPage(draft, Settings(), helper)
    qtbot.addWidget(page)
    qtbot.waitUntil(lambda: table(page).model().rowCount() > 0)
    assert {"preview", "lint", "lengths"}.isdisjoint(helper.requests)
    page.shutdown()
