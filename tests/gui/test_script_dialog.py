"""A training as a script: read, copied, and saved with its data through the helper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtWidgets import QLabel, QLineEdit, QPlainTextEdit, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.dialogs import script_dialog
from app.dialogs.script_dialog import ScriptDialog
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.main_window import MainWindow
from training_backend import runs
from training_backend.errors import UserError

TEXT = '"""<b>Fine-tune</b>"""\n'


class RecordingHelper(HelperClient):
    """Keeps what it is asked, and starts no process; the test answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []
        self.cancelled = 0

    def ask(
        self, kind: str, document: Any, on_done: Any, on_error: Any, owner: Any,
        on_progress: Any = None,
    ) -> None:  # fmt: skip
        assert kind == "script"
        self.asked.append(document)
        self.on_done, self.on_error, self.on_progress = on_done, on_error, on_progress

    def cancel(self, kind: str, owner: QObject) -> None:
        self.cancelled += 1


@pytest.fixture
def helper(qapp: object) -> RecordingHelper:
    return RecordingHelper()


@pytest.fixture
def window(qtbot: QtBot) -> QWidget:
    """What the dialog belongs to; it goes by itself when it is closed."""
    window = QWidget()
    qtbot.addWidget(window)
    window.show()
    return window


@pytest.fixture
def dialog(window: QWidget, helper: RecordingHelper) -> ScriptDialog:
    dialog = ScriptDialog(helper, JobDraft().job, window)
    dialog.open()
    return dialog


def button(dialog: ScriptDialog, name: str) -> QPushButton:
    return dialog.findChild(QPushButton, name)


def press(qtbot: QtBot, dialog: ScriptDialog, name: str) -> None:
    qtbot.mouseClick(button(dialog, name), Qt.MouseButton.LeftButton)


def status(dialog: ScriptDialog) -> str:
    return dialog.findChild(QLabel, "scriptStatus").text()


def error(dialog: ScriptDialog) -> QLabel:
    return dialog.findChild(QLabel, "error_script")


def test_the_script_is_shown_as_it_is_and_copied(
    qtbot: QtBot, dialog: ScriptDialog, helper: RecordingHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_dialog, "COPIED_FOR_MS", 20)
    assert not button(dialog, "scriptSave").isEnabled()
    assert not button(dialog, "scriptCopy").isEnabled()
    (asked,) = helper.asked
    assert asked == {"job": JobDraft().job().model_dump(mode="json")}
    helper.on_done({"text": TEXT})
    view = dialog.findChild(QPlainTextEdit, "scriptText")
    assert view.toPlainText() == TEXT and view.isReadOnly()
    press(qtbot, dialog, "scriptCopy")
    assert QGuiApplication.clipboard().text() == TEXT
    assert button(dialog, "scriptCopy").text() == "Copied"
    qtbot.waitUntil(lambda: button(dialog, "scriptCopy").text() == "Copy")


def test_it_is_saved_with_its_data_and_then_only_elsewhere(
    qtbot: QtBot, dialog: ScriptDialog, helper: RecordingHelper, home: Path, tmp_path: Path
) -> None:
    helper.on_done({"text": TEXT})
    edit = dialog.findChild(QLineEdit, "scriptFolderEdit")
    assert Path(edit.text()).parent == home / "exports"
    edit.setText(str(tmp_path / "out"))
    press(qtbot, dialog, "scriptSave")
    assert helper.asked[-1]["out"] == str(tmp_path / "out")
    assert button(dialog, "scriptCancel").isVisible() and not edit.isEnabled()
    assert not button(dialog, "scriptSave").isEnabled()
    helper.on_progress({"rows": 12_000})
    assert "12,000 rows" in status(dialog)
    helper.on_done({"files": ["train.py"]})
    assert "Saved" in status(dialog)
    assert not button(dialog, "scriptCancel").isVisible()
    assert not button(dialog, "scriptSave").isEnabled()
    qtbot.keyClicks(edit, "2")
    assert button(dialog, "scriptSave").isEnabled()


def test_saving_can_be_cancelled_and_ends_with_the_dialog(
    qtbot: QtBot, dialog: ScriptDialog, helper: RecordingHelper
) -> None:
    helper.on_done({"text": TEXT})
    press(qtbot, dialog, "scriptSave")
    press(qtbot, dialog, "scriptCancel")
    assert helper.cancelled == 1 and "Nothing was saved" in status(dialog)
    assert button(dialog, "scriptSave").isEnabled()
    press(qtbot, dialog, "scriptSave")
    dialog.reject()
    assert helper.cancelled == 2


def test_what_went_wrong_is_said_and_can_be_tried_again(
    qtbot: QtBot, dialog: ScriptDialog, helper: RecordingHelper
) -> None:
    helper.on_done({"text": TEXT})
    press(qtbot, dialog, "scriptSave")
    helper.on_error(UserError("out_not_empty", "The folder <i>x</i> is not empty.", "Choose one."))
    assert error(dialog).text() == "The folder <i>x</i> is not empty. Choose one."
    assert error(dialog).textFormat() == Qt.TextFormat.PlainText
    press(qtbot, dialog, "scriptSave")
    assert not error(dialog).isVisible()


def test_a_job_that_is_none_is_told_instead_of_a_script(
    window: QWidget, helper: RecordingHelper
) -> None:
    draft = JobDraft()
    draft.set_value("training.learning_rate", -1.0)
    dialog = ScriptDialog(helper, draft.job, window)
    dialog.open()
    assert "training.learning_rate" in error(dialog).text() and helper.asked == []
    assert not button(dialog, "scriptSave").isEnabled()


def test_the_settings_and_a_run_of_the_past_open_it(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(
        HelperClient, "ask", lambda self, kind, document, *how: asked.append(document)
    )
    run = runs.create(JobDraft().job().model_copy(update={"name": "of the past"}))
    window = MainWindow()
    qtbot.addWidget(window)
    menu = window.page("navSettings").more  # type: ignore[attr-defined]
    menu.findChild(QAction, "showScript").trigger()
    window.page("navRuns").script_requested.emit(run)  # type: ignore[attr-defined]
    first, second = window.findChildren(ScriptDialog)
    names = [found["job"]["name"] for found in asked if set(found) == {"job"}]
    assert names[-2:] == [window.draft.value("name"), "of the past"]
    for dialog in (first, second):
        dialog.reject()
    window.close()
