"""The table that runs are listed in."""

from __future__ import annotations

from PySide6.QtCore import QSortFilterProxyModel, Qt
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

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
from training_backend.runs import RunSummary

ROW_HEIGHT = 30
_WIDTHS = {NAME: 190, STATE: 100, STARTED: 110, MODEL: 180, DATA: 150, STEPS: 110, LOSS: 80}


class RunsTable(QTableView):
    """One row a run, newest first until a header is pressed; one is selected."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.runs = RunsModel()
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self.runs)
        self._sorted.setSortRole(SORT_ROLE)
        self._sorted.setSortCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.setModel(self._sorted)
        self.setSortingEnabled(True)
        self.sortByColumn(STARTED, Qt.SortOrder.DescendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        self.horizontalHeader().setHighlightSections(False)
        for column, width in _WIDTHS.items():
            self.setColumnWidth(column, width)
        self.horizontalHeader().setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)

    def show_runs(self, found: list[RunSummary]) -> None:
        """Show these; what was selected stays selected, and when it is gone the next one is."""
        selected = self.selected()
        row = self.currentIndex().row()
        scrolled = self.verticalScrollBar().value()
        self.runs.show_runs(found)
        if selected is not None and self.runs.row_of(selected.run.id) < 0:
            self.setCurrentIndex(self._sorted.index(min(row, len(found) - 1), 0))
        elif found:
            self.select(selected.run.id if selected else found[0].run.id)
        self.verticalScrollBar().setValue(scrolled)  # selecting scrolls

    def selected(self) -> RunSummary | None:
        rows = self.selectionModel().selectedRows()
        return self.runs.summary(self._sorted.mapToSource(rows[0]).row()) if rows else None

    def select(self, run_id: str) -> None:
        """Select a run; the first one if it is gone."""
        row = max(0, self.runs.row_of(run_id))
        self.setCurrentIndex(self._sorted.mapFromSource(self.runs.index(row, 0)))
