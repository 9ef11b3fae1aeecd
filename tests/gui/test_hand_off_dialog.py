"""From an export to the programs that run it, in the window."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel, QLineEdit, QPushButton
from pytestqt.qtbot import QtBot

from app.dialogs.hand_off_dialog import HandOffDialog
from app.helper_client import HelperClient
from app.main_window import MainWindow
from app.widgets import command_box
from app.widgets.command_box import CommandBox
from tests.fake_ollama import FakeOllama
from tests.gguf_files import write_gguf
from tests.gui.plain_text import HOSTILE
from training_backend.errors import UserError
from training_backend.export import hand_off


class RecordingHelper(HelperClient):
    """Answers the first question itself, keeps the others, and starts no process."""

    def __init__(self, said: dict[str, Any] | UserError) -> None:
        super().__init__()
        self.said = said
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.cancelled: list[str] = []

    def ask(
        self, kind: str, document: Any, on_done: Any, on_error: Any, owner: Any,
        on_progress: Any = None,
    ) -> None:  # fmt: skip
        if kind == "hand_off":
            if isinstance(self.said, UserError):
                on_error(self.said)
            else:
                on_done(json.loads(json.dumps(self.said)))  # as another process sends it
            return
        self.asked.append((kind, document))
        self.on_done, self.on_error, self.on_progress = on_done, on_error, on_progress

    def cancel(self, kind: str, owner: QObject) -> None:
        self.cancelled.append(kind)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is said of a GGUF file where Ollama and LM Studio are installed."""
    fake = FakeOllama(tmp_path / "fake", monkeypatch)
    person = tmp_path / "person"
    (person / ".lmstudio").mkdir(parents=True)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(person))
    folder = tmp_path / "my export"
    folder.mkdir()
    write_gguf(folder / "my export-Q8_0.gguf")
    found = hand_off.look(folder).document()
    assert found["programs"][0]["found"] == str(fake.program)
    return found


def dialog_of(
    qtbot: QtBot, said: dict[str, Any] | UserError, folder: Path = Path("/x")
) -> tuple[HandOffDialog, RecordingHelper]:
    helper = RecordingHelper(said)
    dialog = HandOffDialog(helper, folder)
    helper.setParent(dialog)
    qtbot.addWidget(dialog)
    dialog.open()
    return dialog, helper


def titles(dialog: HandOffDialog) -> list[str]:
    return [dialog.programs.item(row).text() for row in range(dialog.programs.count())]


def press(qtbot: QtBot, dialog: HandOffDialog, name: str) -> None:
    qtbot.mouseClick(dialog.findChild(QPushButton, name), Qt.MouseButton.LeftButton)


def text(dialog: HandOffDialog, name: str) -> str:
    label = dialog.findChild(QLabel, name)
    return str(label.text()) if not label.isHidden() else ""


def test_a_command_is_copied_as_the_chosen_shell_wants_it(
    qtbot: QtBot, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_box, "COPIED_FOR_MS", 20)
    dialog, _ = dialog_of(qtbot, said)
    assert titles(dialog) == ["Ollama", "LM Studio", "llama.cpp", "vLLM", "TGI"]
    dialog.programs.setCurrentRow(2)
    box = dialog.findChild(CommandBox, "command_llama_cpp_chat")
    assert box.isVisible()
    (copy,) = box.findChildren(QPushButton)
    for row, shell in enumerate(("posix", "powershell")):
        dialog.shells.setCurrentIndex(row)
        qtbot.mouseClick(copy, Qt.MouseButton.LeftButton)
        wanted = said["programs"][2]["commands"][0][shell]
        assert QGuiApplication.clipboard().text() == wanted
        assert copy.text() == "Copied"
        qtbot.waitUntil(lambda: copy.text() == "Copy")


def test_it_is_given_to_ollama_under_the_name_that_stands_there(
    qtbot: QtBot, said: dict[str, Any]
) -> None:
    dialog, helper = dialog_of(qtbot, said)
    name = dialog.findChild(QLineEdit, "name_ollama")
    assert name.text() == "my-export"
    name.setText("mine")
    qtbot.keyClick(name, Qt.Key.Key_Return)
    assert dialog.isVisible()
    ((kind, document),) = helper.asked
    assert (kind, document["name"]) == ("to_ollama", "mine")
    assert not name.isEnabled() and not dialog.findChild(QPushButton, "give_ollama").isVisible()
    helper.on_progress({"share": 0.5, "words": "copying file"})
    assert text(dialog, "status_ollama") == "copying file"
    helper.on_done({})
    assert text(dialog, "status_ollama").endswith("ollama run mine")
    for does, begins in (("create", "ollama create mine -f "), ("chat", "ollama run mine")):
        box = dialog.findChild(CommandBox, f"command_ollama_{does}")
        assert box.text.toPlainText().startswith(begins)
    assert "my export" in dialog.findChild(CommandBox, "command_ollama_create").text.toPlainText()
    assert name.isEnabled()


def test_what_ollama_says_stands_beside_the_name(qtbot: QtBot, said: dict[str, Any]) -> None:
    dialog, helper = dialog_of(qtbot, said)
    press(qtbot, dialog, "give_ollama")
    helper.on_error(UserError("ollama_name_taken", "It has <b>one</b>.", "Choose.", field="name"))
    assert text(dialog, "error_ollama") == "It has <b>one</b>. Choose."
    assert dialog.findChild(QLineEdit, "name_ollama").selectedText() == "my-export"
    press(qtbot, dialog, "give_ollama")
    assert not text(dialog, "error_ollama")


def test_cancelling_and_closing_give_it_up(qtbot: QtBot, said: dict[str, Any]) -> None:
    dialog, helper = dialog_of(qtbot, said)
    dialog.programs.setCurrentRow(1)
    press(qtbot, dialog, "give_lm_studio")
    assert helper.asked[-1][1]["file"] == said["file"]
    press(qtbot, dialog, "cancelGive_lm_studio")
    assert helper.cancelled == ["to_lm_studio"]
    assert text(dialog, "status_lm_studio") == "Cancelled."
    dialog.reject()
    assert set(helper.cancelled) == {"hand_off", "to_ollama", "to_lm_studio"}


def test_programs_that_take_it_come_first_and_the_others_say_what_to_export(
    qtbot: QtBot, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "a/b", "r": 8}')
    dialog, _ = dialog_of(qtbot, hand_off.look(tmp_path).document())
    assert titles(dialog) == ["vLLM", "TGI", "Ollama", "LM Studio", "llama.cpp"]
    dialog.programs.setCurrentRow(2)
    shown = [label.text() for label in dialog.ways.currentWidget().findChildren(QLabel)]
    assert "Ollama does not take this format. Export a GGUF file for it." in shown
    assert not dialog.ways.currentWidget().findChildren(QPushButton)


def test_a_program_that_is_not_here_is_named_with_its_source(
    qtbot: QtBot, said: dict[str, Any]
) -> None:
    for program in said["programs"]:
        program["found"] = ""
    dialog, _ = dialog_of(qtbot, said)
    for row, (name, place) in enumerate((("ollama", "ollama.com"), ("lm_studio", "lmstudio.ai"))):
        dialog.programs.setCurrentRow(row)
        assert place in text(dialog, f"status_{name}")
        assert not dialog.findChild(QPushButton, f"give_{name}").isEnabled()


def test_what_is_no_export_is_one_sentence(qtbot: QtBot) -> None:
    dialog, _ = dialog_of(qtbot, UserError("hand_off_nothing", "There is no <i>export</i> in x."))
    assert text(dialog, "handOffProblem") == "There is no <i>export</i> in x."
    assert not dialog.programs.isVisible() and not dialog.shells.isVisible()


def test_texts_from_outside_are_shown_as_they_are(qtbot: QtBot, said: dict[str, Any]) -> None:
    said["name"] = HOSTILE
    note = {"code": "x", "message": HOSTILE, "remedy": "{0}", "field": None, "params": {}}
    said["warnings"] = [note]
    for program in said["programs"]:
        program["notes"] = [note]
        for command in program["commands"]:
            command["posix"] = command["powershell"] = HOSTILE
    dialog, helper = dialog_of(qtbot, said, Path(f"/{HOSTILE}"))
    press(qtbot, dialog, "give_ollama")
    helper.on_progress({"share": None, "words": HOSTILE})
    for label in dialog.findChildren(QLabel):
        assert label.textFormat() == Qt.TextFormat.PlainText, label.text()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Ollama is a script")
def test_the_export_page_opens_it_and_the_helper_does_it(
    qtbot: QtBot, said: dict[str, Any], tmp_path: Path
) -> None:
    window = MainWindow()
    qtbot.addWidget(window)
    window.show()
    window.page("navExport").hand_off_requested.emit(Path(said["folder"]))  # type: ignore[attr-defined]
    (dialog,) = window.findChildren(HandOffDialog)
    qtbot.waitUntil(lambda: dialog.programs.count() == 5)
    qtbot.keyClick(dialog.findChild(QLineEdit, "name_ollama"), Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: "ollama run" in text(dialog, "status_ollama"))
    assert "TEMPLATE" in (tmp_path / "fake" / "given").read_text("utf-8")
    press(qtbot, dialog, "give_ollama")
    qtbot.waitUntil(lambda: "already" in text(dialog, "error_ollama"))
    dialog.reject()
    window.close()
