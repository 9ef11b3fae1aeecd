"""The rows of the data as a table, read page by page as they come into sight."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, Qt, QTimer, Signal
from PySide6.QtWidgets import QAbstractItemView, QHBoxLayout, QHeaderView, QTableView, QWidget

from app.background import run_in_background
from app.models.rows_model import PAGE_ROWS, RowReader, RowsModel, Source, columns_of, row_texts
from app.widgets.card import Card, QuietButton, secondary_label
from training_backend.data.table import Row
from training_backend.errors import StopRequested

LENGTHS_PAUSE_MS = 150  # after the last scrolling
AHEAD_ROWS = 10  # measured above and below those in sight
FEW_COLUMNS = 4  # that share the width, instead of scrolling


class RowsCard(Card):
    """Shows the rows that a reader gives; all of them, or those of one finding."""

    row_chosen = Signal(int)  # its number in the data, from 0
    lengths_wanted = Signal(int, int)  # from this row on, so many
    failed = Signal(object)  # Exception: rows that cannot be read

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self._reader = RowReader([])
        self._lengths_pause = QTimer(self, singleShot=True, interval=LENGTHS_PAUSE_MS)
        self._lengths_pause.timeout.connect(self._ask_for_lengths)
        self.model = RowsModel()
        self.model.page_wanted.connect(self._read_page)
        self.body.addWidget(self._make_filter_line())
        self._table = self._make_table()
        self.body.addWidget(self._table, 1)
        self._empty = secondary_label(self.tr("The rows of the data will stand here."))
        self.body.addWidget(self._empty, 1, Qt.AlignmentFlag.AlignCenter)
        self.clear()

    def show_rows(self, reader: RowReader, mapped: bool) -> None:
        """Show the first rows of a reader, and from now on the others as they are wanted.

        Args:
            mapped: whether every row becomes a conversation, whose turns are the columns.
        """
        self._reader = reader
        first = reader.sources[0]
        head = [row_texts(row, first) for row in first.table.head[:PAGE_ROWS]]
        self.model.show_rows(head, columns_of(head, mapped), mapped)
        self._fit_columns(mapped)
        self._filter_line.hide()
        self._empty.hide()
        self._table.show()
        self._table.selectRow(0)

    def clear(self) -> None:
        """There is nothing to show."""
        self._reader = RowReader([])
        self.model.show_rows([], [], mapped=True)
        self._table.hide()
        self._filter_line.hide()
        self._empty.show()

    def show_only(self, rows: list[int] | None, words: str) -> None:
        """Show the rows of a finding, which `words` names, or all again."""
        self.model.show_only(rows)
        self._filter_line.setVisible(rows is not None)
        self._filter_text.setText(self.tr("Rows that {what}").format(what=words))
        self._table.selectRow(0)
        self._lengths_pause.start()

    def forget_lengths(self) -> None:
        """They are no longer true; those in sight are asked for again."""
        self.model.clear_lengths()
        self._lengths_pause.start()

    def step(self, by: int) -> None:
        """Choose the row so many places further down."""
        place = self._table.currentIndex().row() + by
        if 0 <= place < self.model.rowCount():
            self._table.selectRow(place)

    def current_row(self) -> int | None:
        """The number of the chosen row in the data."""
        place = self._table.currentIndex().row()
        return self.model.number_of(place) if place >= 0 else None

    # -------------------------------------------------------------------------------- the parts

    def _make_filter_line(self) -> QWidget:
        self._filter_line = QWidget()
        line = QHBoxLayout(self._filter_line)
        line.setContentsMargins(0, 0, 0, 0)
        self._filter_text = secondary_label()
        show_all = QuietButton(self.tr("Show all rows"))
        show_all.clicked.connect(lambda: self.show_only(None, ""))
        line.addWidget(self._filter_text, 1)
        line.addWidget(show_all)
        return self._filter_line

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setObjectName("datasetPreviewTable")
        table.setAccessibleName(self.tr("Rows of the data"))
        table.setModel(self.model)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setTabKeyNavigation(False)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        table.verticalHeader().setDefaultSectionSize(30)
        table.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header = table.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        table.selectionModel().currentRowChanged.connect(self._on_row_changed)
        table.verticalScrollBar().valueChanged.connect(lambda _: self._lengths_pause.start())
        return table

    def _fit_columns(self, mapped: bool) -> None:
        """Share the width among the texts; many raw columns scroll instead."""
        header = self._table.horizontalHeader()
        count = self.model.columnCount()
        stretch = mapped or count <= FEW_COLUMNS
        header.setSectionResizeMode(
            QHeaderView.ResizeMode.Stretch if stretch else QHeaderView.ResizeMode.Interactive
        )
        if mapped and count > 1:
            header.setSectionResizeMode(count - 1, QHeaderView.ResizeMode.Fixed)
            self._table.setColumnWidth(count - 1, 80)

    # -------------------------------------------------------------------------- page after page

    def _on_row_changed(self, current: QModelIndex, before: QModelIndex) -> None:
        if current.isValid():
            self.row_chosen.emit(self.model.number_of(current.row()))

    def _read_page(self, start: int) -> None:
        reader = self._reader

        def work() -> list[tuple[Row, Source]]:
            try:
                return reader.page(start, PAGE_ROWS)
            except StopRequested:
                return []

        def show(found: list[tuple[Row, Source]]) -> None:
            if reader is self._reader:
                self.model.add_page(start, [row_texts(*pair) for pair in found])
                self._lengths_pause.start()

        def fail(error: Exception) -> None:
            if reader is self._reader:
                self.failed.emit(error)

        run_in_background(work, show, fail, self)

    def _ask_for_lengths(self) -> None:
        """Tokens of the rows that are in sight."""
        first = self._table.rowAt(0)
        last = self._table.rowAt(self._table.viewport().height() - 1)
        if first < 0 or self.model.is_filtered():
            return
        last = last if last >= 0 else self.model.rowCount() - 1
        if not all(self.model.has_length(number) for number in range(first, last + 1)):
            count = last - first + 1 + 2 * AHEAD_ROWS
            self.lengths_wanted.emit(max(0, first - AHEAD_ROWS), count)
