"""The exports that were made: found again, looked at, checked again, handed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHeaderView, QWidget

from app.models.made_exports import (
    ANSWERS,
    FOLDER,
    FORM,
    MADE,
    NAME,
    SIZE,
    MadeExport,
    MadeExportsModel,
)
from app.widgets.actions import open_folder
from app.widgets.card import Card, SecondaryButton
from app.widgets.flow import FlowRow
from app.widgets.list_table import ListTable

_WIDTHS = {FORM: 130, MADE: 110, SIZE: 80, ANSWERS: 222}


class ExportList(Card):
    """A table, and below it what can be done with the row that is chosen."""

    show_requested = Signal(object)  # MadeExport
    check_requested = Signal(object)  # MadeExport
    hand_off_requested = Signal(object)  # Path
    push_requested = Signal(object)  # Path

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.set_title(self.tr("Exports"))
        self.setObjectName("exportList")
        self.exports = MadeExportsModel()
        self.table = ListTable()
        self.table.setObjectName("exportsTable")
        self.table.setAccessibleName(self.tr("Exports that were made"))
        self.table.setModel(self.exports)
        for column, width in _WIDTHS.items():
            self.table.setColumnWidth(column, width)
        header = self.table.horizontalHeader()
        for column in (NAME, FOLDER):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
        self.table.activated.connect(lambda _: self._with_chosen(self.show_requested.emit))
        self.table.selectionModel().selectionChanged.connect(lambda *_: self._enable())
        self._busy = False
        self._buttons = FlowRow()
        self.look = self._button(
            "showExportButton", self.tr("What was checked"), self.show_requested.emit
        )
        self.check = self._button(
            "checkExportButton", self.tr("Check again"), self.check_requested.emit
        )
        self.open = self._button(
            "openMadeExportButton",
            self.tr("Open the folder"),
            lambda made: open_folder(made.folder),
        )
        self.hand_off = self._button(
            "handOffMadeButton",
            self.tr("Use it in another program"),
            lambda made: self.hand_off_requested.emit(made.folder),
        )
        self.push = self._button(
            "pushMadeButton",
            self.tr("Push to the Hub"),
            lambda made: self.push_requested.emit(made.folder),
        )
        self.body.addWidget(self.table, 1)
        self.body.addWidget(self._buttons)
        self.show_exports([])

    def show_exports(self, made: list[MadeExport]) -> None:
        """Show these; what was chosen stays chosen."""
        before = self.chosen()
        self.exports.show_exports(made)
        row = self.exports.row_of(before.folder) if before else -1
        if made:
            self.table.selectRow(max(0, row))
        self._enable()

    def choose(self, folder: Path) -> None:
        row = self.exports.row_of(folder)
        if row >= 0:
            self.table.selectRow(row)

    def chosen(self) -> MadeExport | None:
        rows = self.table.selectionModel().selectedRows()
        return self.exports.export(rows[0].row()) if rows else None

    def set_busy(self, busy: bool) -> None:
        """While an export or a check is under way no other check can begin."""
        self._busy = busy
        self._enable()

    def _enable(self) -> None:
        there = self.chosen() is not None
        for button in (self.look, self.open, self.hand_off, self.push):
            button.setEnabled(there)
        self.check.setEnabled(there and not self._busy)

    def _with_chosen(self, act: Callable[[MadeExport], object]) -> None:
        chosen = self.chosen()
        if chosen is not None:
            act(chosen)

    def _button(self, name: str, text: str, act: Callable[[MadeExport], object]) -> SecondaryButton:
        button = SecondaryButton(text)
        button.setObjectName(name)
        button.clicked.connect(lambda: self._with_chosen(act))
        self._buttons.add(button)
        return button
