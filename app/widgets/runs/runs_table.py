"""The table that runs are listed in."""

from __future__ import annotations

from PySide6.QtCore import QItemSelectionModel, QSortFilterProxyModel, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QWidget

from app.models.runs_model import (
    DATA,
    LOSS,
    MODEL,
    NAME,
    SORT_ROLE,
    STARTED,
    STATE,
    STEPS,
    RunsModel,
)
from app.widgets.list_table import ListTable
from training_backend.runs import RunSummary

_WIDTHS = {STATE: 95, STARTED: 110, STEPS: 100, LOSS: 75}
# They give way to the name, which the person gave and knows the run by.
_YIELDING = {MODEL: (105, 150), DATA: (90, 120)}
_NAME_WIDTH = 205


class RunsTable(ListTable):
    """One row a run, newest first until a header is pressed; one is selected, or several."""

    def __init__(self, *, several: bool = False, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.runs = RunsModel()
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self.runs)
        self._sorted.setSortRole(SORT_ROLE)
        self._sorted.setSortCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setModel(self._sorted)
        self.setSortingEnabled(True)
        self.sortByColumn(STARTED, Qt.SortOrder.DescendingOrder)
        if several:
            self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        for column, width in _WIDTHS.items():
            self.setColumnWidth(column, width)
        self.horizontalHeader().setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The name's column first, then those that say more where there is room."""
        least = sum(low for low, _ in _YIELDING.values())
        more = sum(high - low for low, high in _YIELDING.values())
        room = self.viewport().width() - sum(_WIDTHS.values()) - _NAME_WIDTH - least
        share = min(1.0, max(0.0, room / more))
        for column, (low, high) in _YIELDING.items():
            self.setColumnWidth(column, low + round(share * (high - low)))
        super().resizeEvent(event)

    def show_runs(self, found: list[RunSummary]) -> None:
        """Show these; what was selected stays selected, and when all of it is gone the next is."""
        selected = [summary.run.id for summary in self.selected()]
        row = min((index.row() for index in self.selectionModel().selectedRows()), default=0)
        scrolled = self.verticalScrollBar().value()
        self.runs.show_runs(found)
        rows = [self.runs.row_of(run_id) for run_id in selected]
        kept = [index for index in rows if index >= 0]
        if kept:
            self._select_rows(kept)
        elif selected:
            self.selectRow(min(row, len(found) - 1))
        elif found:
            self.select(found[0].run.id)
        self.verticalScrollBar().setValue(scrolled)  # selecting scrolls

    def selected(self) -> list[RunSummary]:
        """In the order of the table."""
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        sources = [self._sorted.mapToSource(self._sorted.index(row, 0)) for row in rows]
        return [self.runs.summary(source.row()) for source in sources]

    def select(self, run_id: str) -> None:
        """Select a run alone; the first one if it is gone."""
        self._select_rows([max(0, self.runs.row_of(run_id))])

    def _select_rows(self, rows: list[int]) -> None:
        indexes = [self._sorted.mapFromSource(self.runs.index(row, 0)) for row in rows]
        flags = QItemSelectionModel.SelectionFlag
        self.selectionModel().setCurrentIndex(indexes[0], flags.ClearAndSelect | flags.Rows)
        for index in indexes[1:]:
            self.selectionModel().select(index, flags.Select | flags.Rows)
