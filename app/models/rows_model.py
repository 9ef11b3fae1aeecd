"""The rows of the data for a table: read page by page, as far as they are looked at."""

from __future__ import annotations

import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QPersistentModelIndex,
    Qt,
    Signal,
)

from app.i18n import integer
from app.widgets.wording import one_line, visible
from training_backend.data import mapping, reader
from training_backend.data.mapping import RowProblem
from training_backend.data.table import Progress, Row, Table
from training_backend.errors import StopRequested, UserError
from training_backend.job import DataFormat, SourceSection

SHOWN_CHARACTERS = 300  # of a cell; the whole row stands above the table
PAGE_ROWS = 100
KEPT_PAGES = 60
_Index = QModelIndex | QPersistentModelIndex


@dataclass(frozen=True)
class Source:
    """An opened source; `format` is None while it is not known what the rows are."""

    section: SourceSection
    table: Table
    format: DataFormat | None


@dataclass(frozen=True)
class RowTexts:
    """What a table shows of a row: texts by role, or by column where it does not map."""

    texts: dict[str, str]
    problem: str = ""


def open_sources(sections: Sequence[SourceSection]) -> tuple[list[Source], UserError | None]:
    """Open what the job names, for a thread; with it what keeps the rows from being mapped.

    Raises `UserError` when a source cannot be read.
    """
    found: list[Source] = []
    problem: UserError | None = None
    for section in sections:
        table = reader.open_source(section)
        format: DataFormat | None = section.format
        try:
            if section.mapping is not None:
                mapping.check_columns(section.mapping, table.columns)
                format = "custom"
            elif format == "auto":
                format = mapping.detect(list(table.rows(limit=20)))
        except UserError as error:
            format, problem = None, problem or error
        found.append(Source(section, table, format))
    return found, problem


def row_texts(row: Row, source: Source) -> RowTexts:
    """A row as the table shows it."""
    if source.format is None:
        return RowTexts({str(key): _one_line(value) for key, value in row.items()})
    try:
        messages = mapping.to_messages(row, source.format, source.section.mapping)
    except (RowProblem, UserError) as error:
        return RowTexts({}, str(error))
    texts: dict[str, str] = {}
    for message in messages:
        texts.setdefault(message["role"], _one_line(message["content"]))
    return RowTexts(texts)


def whole_text(row: Row, source: Source) -> str:
    """A row in plain words: who says what; or its columns where it does not map."""
    problem = ""
    if source.format is not None:
        try:
            messages = mapping.to_messages(row, source.format, source.section.mapping)
            return "\n\n".join(f"{m['role']}\n{m['content']}" for m in messages)
        except (RowProblem, UserError) as error:
            problem = f"{error}\n\n"
    return problem + "\n\n".join(f"{key}\n{value}" for key, value in row.items())


class RowReader:
    """Reads rows of all sources, numbered from 0 over all of them; for threads."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources
        self.stopped = threading.Event()
        self.counts: list[int | None] = [source.table.known_count for source in sources]

    def page(self, start: int, limit: int) -> list[tuple[Row, Source]]:
        """Rows from `start` on. Raises `UserError`, and `StopRequested` after `stop`."""
        found: list[tuple[Row, Source]] = []
        for source, count in zip(self.sources, self.counts, strict=True):
            if count is not None and start >= count:
                start -= count
                continue
            table, rest = source.table, limit - len(found)
            if start + rest <= len(table.head):
                rows = table.rows(start, rest)
            else:
                rows = itertools.islice(table.read(_Watched(self.stopped), start), rest)
            found += [(row, source) for row in rows]
            if len(found) >= limit or count is None:
                break  # the rows of the next source come once this one is counted
            start = 0
        return found


class _Watched(Progress):
    """Progress of a pass that ends when nobody waits for it any more."""

    def __init__(self, stopped: threading.Event) -> None:
        object.__setattr__(self, "_stopped", stopped)
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        if vars(self)["_stopped"].is_set():
            raise StopRequested
        super().__setattr__(name, value)


class RowsModel(QAbstractTableModel):
    """Numbers rows from 1, as people do. Asks by `page_wanted` for what it has not got."""

    page_wanted = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._pages: OrderedDict[int, list[RowTexts]] = OrderedDict()
        self._wanted: set[int] = set()
        self._columns: list[str] = []
        self._mapped = True
        self._count = 0
        self._only: list[int] | None = None
        self._lengths: dict[int, int] = {}

    # ---------------------------------------------------------------------------- what to show

    def show_rows(self, head: list[RowTexts], columns: list[str], mapped: bool) -> None:
        """Begin with the first rows of new data."""
        self.beginResetModel()
        self._pages.clear()
        self._wanted.clear()
        self._lengths.clear()
        self._only = None
        self._columns = [*columns, "tokens"] if mapped else columns
        self._mapped = mapped
        self._count = len(head)
        if head:
            self._pages[0] = head
        self.endResetModel()

    def set_count(self, count: int) -> None:
        """So many rows there are, as far as is known."""
        if count <= self._count or self._only is not None:
            self._count = max(count, self._count)
            return
        self.beginInsertRows(QModelIndex(), self._count, count - 1)
        self._count = count
        self.endInsertRows()

    def add_page(self, start: int, rows: list[RowTexts]) -> None:
        page = start // PAGE_ROWS
        self._wanted.discard(page)
        self._pages[page] = rows
        while len(self._pages) > KEPT_PAGES:
            self._pages.popitem(last=False)
        self._repaint()

    def set_lengths(self, lengths: dict[int, int]) -> None:
        """Tokens of rows, by row number."""
        self._lengths |= lengths
        self._repaint()

    def clear_lengths(self) -> None:
        self._lengths.clear()
        self._repaint()

    def show_only(self, rows: list[int] | None) -> None:
        """Show these rows, or all again."""
        self.beginResetModel()
        self._only = rows
        self.endResetModel()

    # ------------------------------------------------------------------------- what is in there

    def total(self) -> int:
        """The rows known of, whatever is shown of them."""
        return self._count

    def is_filtered(self) -> bool:
        return self._only is not None

    def number_of(self, place: int) -> int:
        """The number, from 0, of the row at a place of the table."""
        return place if self._only is None else self._only[place]

    def place_of(self, number: int) -> int:
        """Where a row stands in the table; -1 when it is not shown."""
        if self._only is None:
            return number if number < self._count else -1
        return self._only.index(number) if number in self._only else -1

    def has_length(self, number: int) -> bool:
        return number in self._lengths

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008
        if parent.isValid():
            return 0
        return self._count if self._only is None else len(self._only)

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
            return integer(self.number_of(section) + 1)
        if not self._mapped:
            return one_line(self._columns[section])
        titles = {
            "user": QCoreApplication.translate("RowsModel", "User"),
            "assistant": QCoreApplication.translate("RowsModel", "Assistant"),
            "text": QCoreApplication.translate("RowsModel", "Text"),
            "tokens": QCoreApplication.translate("RowsModel", "Tokens"),
        }
        return titles[self._columns[section]]

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role not in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return None
        number, column = self.number_of(index.row()), self._columns[index.column()]
        row = self._row(number)
        if row is None:
            return "…" if index.column() == 0 else ""
        if self._mapped and column == "tokens":
            length = self._lengths.get(number)
            return "" if length is None else integer(length)
        if row.problem:
            if index.column() > 0:
                return ""
            return QCoreApplication.translate("RowsModel", "cannot be used: {why}").format(
                why=row.problem
            )
        return visible(row.texts.get(column, ""))

    def _row(self, number: int) -> RowTexts | None:
        page, place = divmod(number, PAGE_ROWS)
        rows = self._pages.get(page)
        if rows is not None and place < len(rows):
            return rows[place]
        if page not in self._wanted:
            self._wanted.add(page)
            self.page_wanted.emit(page * PAGE_ROWS)
        return None

    def forget_wanted(self) -> None:
        """What was asked for and has not come may be asked for again."""
        self._wanted.clear()

    def _repaint(self) -> None:
        if self.rowCount():
            corner = self.index(self.rowCount() - 1, len(self._columns) - 1)
            self.dataChanged.emit(self.index(0, 0), corner)


def columns_of(rows: list[RowTexts], mapped: bool) -> list[str]:
    """The columns of a table that begins with these rows."""
    found = dict.fromkeys(column for row in rows for column in row.texts)
    if not mapped:
        return list(found)
    return ["text"] if set(found) == {"text"} else ["user", "assistant"]


def _one_line(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text[:SHOWN_CHARACTERS].split())
