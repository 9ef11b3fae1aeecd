"""The rows of a data file for a table: conversations where they map, else raw columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
)

from training_backend.data.mapping import Message, RowProblem, to_messages
from training_backend.errors import UserError
from training_backend.job import DataFormat

SHOWN_CHARACTERS = 300  # of a cell; the whole row stands below the table
_Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class PreviewRow:
    """One row as read, as messages where it maps, and why not where it does not."""

    raw: dict[str, Any]
    messages: tuple[Message, ...]
    problem: str


def preview_rows(rows: list[dict[str, Any]], form: DataFormat | None) -> list[PreviewRow]:
    """Map every row; `form` is None when the file's form is not known."""
    found = []
    for row in rows:
        messages: tuple[Message, ...] = ()
        problem = ""
        if form is not None:
            try:
                messages = tuple(to_messages(row, form))
            except (RowProblem, UserError) as error:
                problem = str(error)
        found.append(PreviewRow(row, messages, problem))
    return found


class RowsModel(QAbstractTableModel):
    """Shows what `preview_rows` made; numbers rows from 1, as people do."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[PreviewRow] = []
        self._mapped = False
        self._columns: list[str] = []

    def show_rows(self, rows: list[PreviewRow], mapped: bool) -> None:
        self.beginResetModel()
        self._rows = rows
        self._mapped = mapped
        self._columns = _columns(rows, mapped)
        self.endResetModel()

    def row(self, index: int) -> PreviewRow:
        return self._rows[index]

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._columns)

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if orientation == Qt.Orientation.Vertical:
            return section + 1
        if not self._mapped:
            return self._columns[section]
        titles = {
            "system": QCoreApplication.translate("RowsModel", "System"),
            "user": QCoreApplication.translate("RowsModel", "User"),
            "assistant": QCoreApplication.translate("RowsModel", "Assistant"),
            "text": QCoreApplication.translate("RowsModel", "Text"),
            "turns": QCoreApplication.translate("RowsModel", "Messages"),
        }
        return titles[self._columns[section]]

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role not in (
            Qt.ItemDataRole.DisplayRole,
            Qt.ItemDataRole.AccessibleTextRole,
        ):
            return None
        row, column = self._rows[index.row()], self._columns[index.column()]
        if not self._mapped:
            return _one_line(row.raw.get(column, ""))
        if not row.messages:
            if index.column() > 0:
                return ""
            return QCoreApplication.translate("RowsModel", "cannot be used: {why}").format(
                why=row.problem
            )
        if column == "turns":
            return len(row.messages)
        return next((_one_line(m["content"]) for m in row.messages if m["role"] == column), "")


def _columns(rows: list[PreviewRow], mapped: bool) -> list[str]:
    if not mapped:
        return list(dict.fromkeys(key for row in rows[:100] for key in row.raw))
    roles: set[str] = {message["role"] for row in rows for message in row.messages}
    if roles == {"text"}:
        return ["text"]
    longest = max((len(row.messages) for row in rows), default=0)
    order: list[str] = ["system", "user", "assistant"]
    shown = [role for role in order if role in roles]
    return [*shown, "turns"] if longest > 2 else shown


def _one_line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text[:SHOWN_CHARACTERS].split())
