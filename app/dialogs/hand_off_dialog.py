"""What to do with an export: give it to a program on this computer, or copy its command."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from PySide6.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QListWidget,
    QPushButton,
    QStackedWidget,
    QWidget,
)

from app.helper_client import HelperClient
from app.i18n import explain
from app.widgets.card import (
    ElidedLabel,
    ErrorLabel,
    SecondaryButton,
    page_title,
    plain_label,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from app.widgets.inputs import SteadyComboBox
from app.widgets.runs.hand_off_way import Shell, WayView
from training_backend.errors import from_document

LIST_WIDTH = 150
_KINDS = {"ollama": "to_ollama", "lm_studio": "to_lm_studio"}  # of requests to the helper


class HandOffDialog(QDialog):
    """The programs at the left, those that take this export first; one of them at the right.

    Args:
        folder: of the export.
    """

    def __init__(self, helper: HelperClient, folder: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("handOffDialog")
        self.setWindowTitle(self.tr("Use it in another program"))
        self._helper = helper
        self._folder = folder
        self._said: dict[str, Any] = {}
        column = dialog_layout(self)
        column.addWidget(page_title(self.windowTitle()))
        where = ElidedLabel(str(folder))
        where.setProperty("role", "secondary")
        column.addWidget(where)
        self._error = ErrorLabel("handOffProblem")
        column.addWidget(self._error)
        self._waiting = secondary_label(self.tr("Looking at the export…"))
        column.addWidget(self._waiting)
        self._content = self._both_sides()
        column.addWidget(self._content, 1)
        column.addStretch(0)
        column.addLayout(self._foot())
        self.resize(820, 600)
        helper.ask("hand_off", {"folder": str(folder)}, self._show, self._on_error, self)

    def done(self, result: int) -> None:
        """Closing gives up what is under way."""
        for kind in ("hand_off", *_KINDS.values()):
            self._helper.cancel(kind, self)
        super().done(result)

    # ------------------------------------------------------------------------------- the parts

    def _both_sides(self) -> QWidget:
        sides = QWidget()
        sides.setVisible(False)
        self.programs = QListWidget()
        self.programs.setObjectName("handOffPrograms")
        self.programs.setAccessibleName(self.tr("Programs"))
        self.programs.setFixedWidth(LIST_WIDTH)
        self.ways = QStackedWidget()
        self.programs.currentRowChanged.connect(self.ways.setCurrentIndex)
        row = QHBoxLayout(sides)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        row.addWidget(self.programs)
        row.addWidget(self.ways, 1)
        return sides

    def _foot(self) -> QHBoxLayout:
        self.shells = SteadyComboBox()
        self.shells.setObjectName("handOffShell")
        self.shells.setAccessibleName(self.tr("Commands are written for"))
        self.shells.addItem(self.tr("bash and zsh (Linux, macOS)"), "posix")
        self.shells.addItem(self.tr("PowerShell (Windows)"), "powershell")
        self.shells.setCurrentIndex(1 if os.name == "nt" else 0)
        self.shells.currentIndexChanged.connect(lambda _: self._write_for_shell())
        self._for = plain_label(self.tr("Commands for"))
        self._for.setBuddy(self.shells)
        close = SecondaryButton(self.tr("Close"))
        close.clicked.connect(self.reject)
        close.setAutoDefault(False)  # Enter is for the name of a model
        row = QHBoxLayout()
        row.setSpacing(8)
        for part in (self._for, self.shells):
            part.setVisible(False)
            row.addWidget(part)
        row.addStretch(1)
        row.addWidget(close)
        return row

    # ------------------------------------------------------------------------ what is shown

    def _show(self, said: dict[str, Any]) -> None:
        self._said = said
        self._waiting.hide()
        self._error.show_error(" ".join(explain(from_document(w)) for w in said["warnings"]))
        # Those that take it first; the others say what to export for them.
        for way in sorted(said["programs"], key=lambda way: not way["commands"]):
            can_give = said["format"] == "gguf" and way["program"] in _KINDS and way["commands"]
            view = WayView(way, said["name"], bool(can_give), self._shell())
            view.give_requested.connect(partial(self._give, view))
            view.cancel_requested.connect(partial(self._cancel, view))
            self.ways.addWidget(view)
            self.programs.addItem(way["title"])
        for button in self.findChildren(QPushButton):
            button.setAutoDefault(False)
        for part in (self._content, self._for, self.shells):
            part.setVisible(True)
        self.programs.setCurrentRow(0)
        self.programs.setFocus()

    def _on_error(self, error: Exception) -> None:
        self._waiting.hide()
        self._error.show_error(explain(error))

    def _shell(self) -> Shell:
        chosen: Shell = self.shells.currentData()
        return chosen

    def _write_for_shell(self) -> None:
        for view in self.findChildren(WayView):
            view.set_shell(self._shell())

    # -------------------------------------------------------------------------- doing it

    def _give(self, view: WayView, name: str) -> None:
        view.begin()
        self._helper.ask(
            _KINDS[view.program],
            {"folder": str(self._folder), "file": self._said["file"], "name": name},
            partial(self._given, view, name),
            view.show_error,
            self,
            view.show_progress,
        )

    def _given(self, view: WayView, name: str, answer: dict[str, Any]) -> None:
        if view.program == "ollama":
            view.rename(name)
            said = self.tr("Ollama has it now. In a terminal: ollama run {name}").format(name=name)
        else:
            said = self.tr("It is in {file}. LM Studio lists it under My Models.").format(
                file=answer["file"]
            )
        view.show_done(said)

    def _cancel(self, view: WayView) -> None:
        self._helper.cancel(_KINDS[view.program], self)
        view.show_cancelled()
