"""A finished export: whether it answers alike, where it is, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QPlainTextEdit, QVBoxLayout, QWidget

from app import theme
from app.widgets.actions import open_folder
from app.widgets.card import SecondaryButton, plain_label, scroll_area, secondary_label
from app.widgets.flow import FlowRow
from app.widgets.runs.export_proof import ProofView
from app.widgets.wording import sentence
from training_backend.job import ExportFormat
from training_backend.protocol import ExportProved

_LOAD_MODEL = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({folder!r})
tokenizer = AutoTokenizer.from_pretrained({folder!r})
"""
_LOAD_ADAPTER = """from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained({folder!r})
"""
_LOAD_GGUF = 'llama-server -m "{file}"\n'
_LOAD_GGUF_ADAPTER = 'llama-server -m BASE.gguf --lora "{file}"\n'
SNIPPET_HEIGHT = 112


class ExportResult(QWidget):
    """Shown at the end of the wizard, and again whenever the export is looked at."""

    hand_off_requested = Signal(object)  # Path, the folder
    push_requested = Signal(object)  # Path, the folder

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._folder = Path()
        self.proof = ProofView()
        self._where = plain_label(wrap=True)
        self._where.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._how = secondary_label()
        self.snippet = self._snippet()
        self.hand_off = self._button("handOffButton", self.tr("Use it in another program"))
        self.hand_off.clicked.connect(lambda: self.hand_off_requested.emit(self._folder))
        self.push = self._button("pushButton", self.tr("Push to the Hub"))
        self.push.clicked.connect(lambda: self.push_requested.emit(self._folder))
        show = self._button("openExportButton", self.tr("Open the folder"))
        show.clicked.connect(lambda: open_folder(self._folder))
        self._copy = SecondaryButton("")
        self._copy.clicked.connect(self._copy_snippet)
        content = QWidget()
        content.setObjectName("scrolled")
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 8, 0)
        column.setSpacing(8)
        self.notes = plain_label(wrap=True)
        self.notes.setObjectName("exportNotes")
        self.notes.setProperty("role", "careful")
        column.addWidget(self.proof)
        column.addSpacing(8)
        column.addWidget(self.notes)
        for part in (self._where, self._how, self.snippet):
            column.addWidget(part)
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(12)
        area = scroll_area(content)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        layout.addWidget(area, 1)
        row = FlowRow()
        for button in (self.hand_off, self.push, show, self._copy):
            row.add(button)
        layout.addWidget(row)

    def show_result(
        self,
        folder: Path,
        form: ExportFormat,
        proof: ExportProved | None,
        notes: Sequence[str] = (),
    ) -> None:
        """Show it.

        Args:
            notes: what the person should know beside the verdict.
        """
        self._folder = folder
        self.notes.setText("\n".join(sentence(note) for note in notes))
        self.notes.setVisible(bool(notes))
        self.proof.show_proof(proof)
        self._where.setText(self.tr("The result is in {folder}").format(folder=folder))
        if form in ("gguf", "gguf_adapter"):
            file = next(folder.glob("*.gguf"), folder)
            self._how.setText(self.tr("This starts it with llama.cpp:"))
            self._copy.setText(self.tr("Copy the command"))
            self.snippet.setAccessibleName(self.tr("Command that starts the result"))
            template = _LOAD_GGUF if form == "gguf" else _LOAD_GGUF_ADAPTER
            self.snippet.setPlainText(template.format(file=file))
            return
        self._how.setText(self.tr("This Python loads it:"))
        self._copy.setText(self.tr("Copy the Python"))
        template = _LOAD_ADAPTER if form == "adapter" else _LOAD_MODEL
        self.snippet.setPlainText(template.format(folder=str(folder)))

    def _copy_snippet(self) -> None:
        QGuiApplication.clipboard().setText(self.snippet.toPlainText())
        self._copy.setText(self.tr("Copied"))

    def _button(self, name: str, text: str) -> SecondaryButton:
        button = SecondaryButton(text)
        button.setObjectName(name)
        return button

    def _snippet(self) -> QPlainTextEdit:
        edit = QPlainTextEdit()
        edit.setObjectName("exportSnippet")
        edit.setReadOnly(True)
        edit.setTabChangesFocus(True)
        edit.setFont(theme.mono_font(12))
        edit.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        edit.setAccessibleName(self.tr("Python that loads the result"))
        edit.setFixedHeight(SNIPPET_HEIGHT)
        return edit
