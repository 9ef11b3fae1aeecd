"""The run store as a table that sorts."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
)

from app import theme
from app.widgets import figures, wording
from app.widgets.card import plain_tool_tip
from training_backend.runs import RunSummary

SORT_ROLE = Qt.ItemDataRole.UserRole
NAME, STATE, STARTED, MODEL, DATA, STEPS, LOSS = range(7)
_NUMBERS = (STEPS, LOSS)
_Index = QModelIndex | QPersistentModelIndex


class RunsModel(QAbstractTableModel):
    """One row a run."""

    def __init__(self) -> None:
        super().__init__()
        self._runs: list[RunSummary] = []

    def show_runs(self, found: list[RunSummary]) -> None:
        if found != self._runs:
            self.beginResetModel()
            self._runs = found
            self.endResetModel()

    def summary(self, row: int) -> RunSummary:
        return self._runs[row]

    def row_of(self, run_id: str) -> int:
        """The row of a run; -1 when it is not there."""
        ids = [summary.run.id for summary in self._runs]
        return ids.index(run_id) if run_id in ids else -1

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else len(self._runs)

    def columnCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        return 0 if parent.isValid() else 7

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(section)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return (
            _tr("Name"), _tr("State"), _tr("Created"), _tr("Model"), _tr("Data"), _tr("Steps"),
            _tr("Loss"),
        )[section]  # fmt: skip

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        summary, column = self._runs[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return _text(summary, column)
            case Qt.ItemDataRole.ToolTipRole:
                return plain_tool_tip(_whole(summary, column))
            case Qt.ItemDataRole.ForegroundRole if column == STATE:
                return theme.current().color(wording.state_role(summary.state))
            case Qt.ItemDataRole.FontRole if column in _NUMBERS:
                return theme.font(13, tabular=True)
            case Qt.ItemDataRole.TextAlignmentRole:
                return _alignment(column)
        return _sort_key(summary, column) if role == SORT_ROLE else None


def _tr(text: str) -> str:
    return QCoreApplication.translate("RunsModel", text)


def _alignment(column: int) -> Qt.AlignmentFlag:
    side = Qt.AlignmentFlag.AlignRight if column in _NUMBERS else Qt.AlignmentFlag.AlignLeft
    return side | Qt.AlignmentFlag.AlignVCenter


def _text(summary: RunSummary, column: int) -> str:
    match column:
        case 0:
            return wording.one_line(summary.name)
        case 1:
            return wording.state_word(summary.state)
        case 2:
            return figures.clock(summary.created)
        case 3:
            return wording.model_name(summary.model)
        case 4:
            return wording.data_name(summary.dataset)
        case 5 if summary.step is not None and summary.total_steps is not None:
            return _tr("{step} of {total}").format(
                step=figures.count(summary.step), total=figures.count(summary.total_steps)
            )
        case 6 if summary.loss is not None:
            return figures.loss(summary.loss)
    return "–"


def _whole(summary: RunSummary, column: int) -> str:
    return {NAME: summary.name, MODEL: summary.model, DATA: summary.dataset}.get(
        column, _text(summary, column)
    )


def _sort_key(summary: RunSummary, column: int) -> Any:
    numbers = {STARTED: summary.created, STEPS: summary.step, LOSS: summary.loss}
    if column in numbers:
        value = numbers[column]
        return float("inf") if value is None else float(value)
    return _text(summary, column)
