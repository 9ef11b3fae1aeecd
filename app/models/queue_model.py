"""The runs that wait, as rows that can be dragged to another place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QMimeData,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
    Signal,
)

from app import theme
from app.widgets import figures, wording
from app.widgets.card import plain_tool_tip
from training_backend.queueing.run_queue import QueueEntry

PLACE, NAME, MODEL, DATA, METHOD, TIME = range(6)
MIME = "application/x-lorasmith-waiting-run"
_Index = QModelIndex | QPersistentModelIndex


class QueueModel(QAbstractTableModel):
    """One row a run, the next one first. Says by `moved` where a row was dropped."""

    moved = Signal(str, int)  # the run's id, its new place

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[QueueEntry] = []
        self._seconds: list[float | None] = []

    def show_entries(self, entries: Sequence[QueueEntry], seconds: Sequence[float | None]) -> None:
        """Show these.

        Args:
            seconds: how long each will take, None where that is not known.
        """
        if (list(entries), list(seconds)) != (self._entries, self._seconds):
            self.beginResetModel()
            self._entries, self._seconds = list(entries), list(seconds)
            self.endResetModel()

    def id_at(self, row: int) -> str:
        """The id of the run in a row."""
        return self._entries[row].run.id

    def row_of(self, run_id: str) -> int:
        """The row of a run; -1 when it is not there."""
        return next((row for row in range(len(self._entries)) if self.id_at(row) == run_id), -1)

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._entries)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else 6

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return (
            "", _tr("Name"), _tr("Model"), _tr("Data"), _tr("Method"), _tr("Takes about"),
        )[section]  # fmt: skip

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        column = index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._text(index.row(), column)
            case Qt.ItemDataRole.ToolTipRole:
                return plain_tool_tip(self._text(index.row(), column))
            case Qt.ItemDataRole.FontRole if column in (PLACE, TIME):
                return theme.font(13, tabular=True)
        return None

    def _text(self, row: int, column: int) -> str:
        entry, seconds = self._entries[row], self._seconds[row]
        job = entry.job
        match column:
            case 0:
                return figures.count(row + 1)
            case 1:
                return wording.one_line(entry.name)
            case _ if job is None:
                return _tr("the job file is damaged") if column == MODEL else ""
            case 2:
                return wording.model_name(job.model.id)
            case 3:
                return wording.data_names(job)
            case 4:
                return wording.method(job)
        return "–" if seconds is None else figures.duration(seconds)

    # ------------------------------------------------------------------------ drag and drop

    def flags(self, index: _Index) -> Qt.ItemFlag:
        if not index.isValid():  # between the rows, not onto one
            return Qt.ItemFlag.ItemIsDropEnabled
        return super().flags(index) | Qt.ItemFlag.ItemIsDragEnabled

    def supportedDropActions(self) -> Qt.DropAction:
        return Qt.DropAction.MoveAction

    def mimeTypes(self) -> list[str]:
        return [MIME]

    def mimeData(self, indexes: Sequence[QModelIndex]) -> QMimeData:
        carried = QMimeData()
        carried.setData(MIME, self.id_at(indexes[0].row()).encode())
        return carried

    def dropMimeData(
        self, data: QMimeData, action: Qt.DropAction, row: int, column: int, parent: _Index
    ) -> bool:
        """Never true: the rows change when the queue has, and Qt is to take none away."""
        run_id = data.data(MIME).toStdString()
        before = self.row_of(run_id)
        if before >= 0:
            to = row if row >= 0 else len(self._entries)
            self.moved.emit(run_id, to - 1 if to > before else to)
        return False


def _tr(text: str) -> str:
    return QCoreApplication.translate("QueueModel", text)
