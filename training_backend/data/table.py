"""What every kind of file becomes: a table of rows that is read as a stream.

The modules beside this one (json_rows, delimited, parquet, spreadsheet, plain_text, folder,
hub) each turn one kind of source into a `Table`. Light: no pandas, pyarrow or datasets.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training_backend.errors import StopRequested, UserError

Row = dict[str, Any]

FIELD = "dataset.path"

# A row beyond this many characters (about four million tokens) is a damaged file, not data.
# The limit also bounds the memory that a file without line ends can take.
MAX_ROW = 16 * 1024 * 1024

LEAVE_OUT = "Or leave out the lines that cannot be read (dataset.skip_bad_lines)."  # a remedy


def can_be_left_out(error: Exception) -> bool:
    """Whether `skip_bad_lines` would help."""
    return isinstance(error, UserError) and error.remedy.endswith(LEAVE_OUT)


HEAD_ROWS = 50  # the columns are those of so many rows, where the file has no header
_MAX_NOTICES = 100  # a folder can have thousands of files
_MAX_PLACES = 10_000  # of one notice; beyond that it says "more than"
_REPORT_EVERY = 0.1  # seconds between two reports of progress


@dataclass(frozen=True)
class Notice:
    """A repair made while reading, or something left out: an English template and its values."""

    code: str
    message: str
    params: dict[str, Any]

    def __str__(self) -> str:
        return self.message.format(**self.params)


class Notices:
    """Collects notices; the same one at many places becomes one with a count.

    A place (line or row, from 1) counts once, however often the file is gone through.
    """

    def __init__(self) -> None:
        # By code and file, since a folder has one collection.
        self._found: dict[tuple[str, str], tuple[str, dict[str, Any], set[int]]] = {}

    def add(self, code: str, message: str, place: int | None = None, **params: Any) -> None:
        """Notes something. In `message`, {count} and {first} are filled from the places."""
        key = (code, str(params.get("name")))
        if key not in self._found and len(self._found) >= _MAX_NOTICES:
            return
        _, _, places = self._found.setdefault(key, (message, params, set()))
        if place is not None and len(places) <= _MAX_PLACES:
            places.add(place)

    def include(self, other: Notices) -> None:
        """Takes over all notices of another collection."""
        for (code, _), (message, params, places) in other._found.items():
            self.add(code, message, **params)
            for place in places:
                self.add(code, message, place, **params)

    def __call__(self) -> tuple[Notice, ...]:
        found = []
        for (code, _), (message, params, places) in list(self._found.items()):
            count = f"more than {_MAX_PLACES}" if len(places) > _MAX_PLACES else len(places)
            places_seen = {"count": count, "first": min(places, default=0)}
            found.append(Notice(code, message, {**places_seen, **params}))
        return tuple(found)


@dataclass(frozen=True)
class Details:
    """What was found out about a source; None where it does not apply.

    `encoding`, `delimiter`, `sheet`, `subset` and `split` are named as the source's fields
    that change them; the plural ones are what there is to choose from.
    """

    kind: str  # jsonl, json, csv, parquet, xlsx, text, markdown, folder, saved_dataset, hub
    size_bytes: int | None = None
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    sheets: tuple[str, ...] = ()
    subset: str | None = None
    subsets: tuple[str, ...] = ()
    split: str | None = None
    splits: tuple[str, ...] = ()
    compressed: bool = False  # gzip
    files: tuple[str, ...] = ()  # of a folder, those that are read


@dataclass
class Progress:
    """How far one pass over a source is, from 0 to 1; whoever reads the source updates it."""

    fraction: float = 0.0


@dataclass
class Table:
    """Rows with named columns, streamed from a source.

    Raises `UserError`, from every method, with a sentence that names the file and the line or
    row; also when the file has changed since it was opened.
    """

    name: str
    details: Details
    read: Callable[[Progress, int], Iterator[Row]]  # all rows from the one numbered `start`
    notes: Notices = field(default_factory=Notices)
    columns: tuple[str, ...] = ()
    known_count: int | None = None  # where the source itself tells
    head: list[Row] = field(default_factory=list)  # the first rows, kept from opening

    def rows(self, start: int = 0, limit: int | None = None) -> Iterator[Row]:
        """Rows `start`, `start` + 1, … (from 0), at most `limit` of them."""
        if limit is not None and start + limit <= len(self.head):
            return iter(self.head[start : start + limit])
        return itertools.islice(self.read(Progress(), start), limit)

    def count(
        self,
        on_progress: Callable[[int, float], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> int:
        """The number of rows. Goes through the whole source where that does not tell it.

        Args:
            on_progress: is given the rows so far and the share of the source gone through,
                about ten times a second and at the end.
            should_stop: asked as often; True ends the count with `StopRequested`.
        """
        if self.known_count is not None:
            return self.known_count
        progress, number, due = Progress(), 0, 0.0
        for number, _ in enumerate(self.read(progress, 0), start=1):
            if time.monotonic() >= due:
                if should_stop and should_stop():
                    raise StopRequested
                if on_progress:
                    on_progress(number, progress.fraction)
                due = time.monotonic() + _REPORT_EVERY
        if on_progress:
            on_progress(number, 1.0)
        return number

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What was repaired or left out so far; it grows as more of the source is read."""
        return self.notes()


def with_head(table: Table) -> Table:
    """Reads the first rows of a new table, and with them its columns.

    Raises `UserError` when there is not one row. A mistake after the first row is left for
    whoever reads that far.
    """
    try:
        for row in [] if table.head else table.rows(limit=HEAD_ROWS):
            table.head.append(row)
    except UserError:
        if not table.head:
            raise
    if not any(table.head):
        raise UserError(
            "data_empty",
            "{name} holds no rows.",
            "Choose a file with at least one row.",
            field=FIELD,
            name=table.name,
        )
    if not table.columns:
        table.columns = tuple(dict.fromkeys(column for row in table.head for column in row))
    return table


def shown(path: Path | str) -> str:
    """A path as messages name it: without the bytes that are no text in some file names."""
    return str(path).encode("utf-8", "replace").decode("utf-8")


def distinct(names: Iterable[str]) -> list[str]:
    """Names of columns, with a number behind each that was there before; empty ones stay."""
    seen: set[str] = set()
    found = []
    for plain in names:
        name, copies = plain, 1
        while name and name in seen:
            copies += 1
            name = f"{plain}_{copies}"
        seen.add(name)
        found.append(name)
    return found
