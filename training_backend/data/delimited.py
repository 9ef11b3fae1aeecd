"""Rows from CSV and TSV files. Every cell stays the text that it is: 007 is no number here."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator

from training_backend.data.source_file import SourceFile, TextFile
from training_backend.data.table import LEAVE_OUT, MAX_ROW, Progress, Row, distinct
from training_backend.errors import UserError

DELIMITERS = (",", ";", "\t", "|")  # ties go to the first
MAX_COLUMNS = 10_000
_SNIFFED_ROWS = 200
_EXCEL_HINT = re.compile(r"sep=(.)\s*$", re.IGNORECASE)


def find_delimiter(head: str, suffix: str) -> str:
    """The delimiter that splits the first rows most evenly into the most columns.

    `csv.Sniffer` is not used: it takes letters for delimiters, and its patterns take minutes
    on long texts in quotes.
    """
    hint = _EXCEL_HINT.match(head.split("\n", 1)[0])
    if hint:
        return hint[1]

    def score(delimiter: str) -> tuple[float, int]:
        widths = _widths(head, delimiter)
        columns = widths[0] if widths else 0
        if columns < 2:
            return 0.0, 0
        return widths.count(columns) / len(widths), columns

    preferred = "\t" if suffix in (".tsv", ".tab") else ","
    return max(sorted(DELIMITERS, key=lambda sign: sign != preferred), key=score)


def _widths(head: str, delimiter: str) -> list[int]:
    """The number of cells in each of the first rows; the last one, perhaps cut, left out."""
    widths: list[int] = []
    try:
        for cells in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter):
            if cells:
                widths.append(len(cells))
            if len(widths) > _SNIFFED_ROWS:
                break
    except csv.Error:
        pass
    return widths[:-1] or widths


class DelimitedFile:
    """A CSV file with its header. Raises `UserError` when it has none that can be used."""

    def __init__(self, text: TextFile, delimiter: str, skip_bad: bool) -> None:
        # One row at most; an unclosed quote would otherwise take in the rest of the file. The
        # limit is the process's: there is no other way to set it.
        csv.field_size_limit(MAX_ROW)
        self._text = text
        self._delimiter = delimiter
        self._skip_bad = skip_bad
        self.columns = self._header()

    @property
    def _file(self) -> SourceFile:
        return self._text.file

    def read(self, progress: Progress, start: int) -> Iterator[Row]:
        """The rows below the header. One of too many cells is an error, or left out."""
        records = self._records(self._text.lines(progress, newline=""))
        next(records, None)  # the header
        width = len(self.columns)
        for line, cells in records:
            if start > 0 and not self._skip_bad:  # else bad ones must be told from rows
                start -= 1
                continue
            if len(cells) > width:
                while len(cells) > width and not cells[-1]:
                    cells.pop()
                if len(cells) > width:
                    if self._skip_bad:
                        self._note("bad_lines_left_out", "{name}: {count} row(s) have more cells "
                                   "than the header and were left out (first in line {first}).",
                                   line)  # fmt: skip
                        continue
                    raise self._too_many_cells(line, cells)
            if start > 0:
                start -= 1
                continue
            row: Row = dict(zip(self.columns, cells, strict=False))
            if len(cells) < width:
                self._note("cells_missing", "{name}: {count} row(s) have fewer cells than the "
                           "header; the others are empty (first in line {first}).",
                           line)  # fmt: skip
                row.update(dict.fromkeys(self.columns[len(cells) :]))
            yield row

    def _header(self) -> tuple[str, ...]:
        # From the head alone where possible, so that opening does not read the file twice.
        head = io.StringIO(self._text.head, newline="")
        for _, cells in self._records(enumerate(head, start=1)):
            return self._named(cells)
        raise self._file.error(
            "data_empty", "{name} holds no rows.", "Choose a file with at least one row."
        )

    def _named(self, cells: list[str]) -> tuple[str, ...]:
        if len(cells) > MAX_COLUMNS:
            raise self._file.error(
                "too_many_columns",
                "{name} has {found} columns in its first line.",
                "Check the delimiter, and that lines end.",
                found=len(cells),
            )
        numbered = [cell.strip() or f"column_{n}" for n, cell in enumerate(cells, start=1)]
        names = distinct(numbered)
        if names != [cell.strip() for cell in cells]:
            self._note("columns_renamed", "{name}: columns without a name or with the name of "
                       "another were renamed.")  # fmt: skip
        return tuple(names)

    def _records(self, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
        """Records that are not blank, each with the line where it begins."""
        last = 0

        def texts() -> Iterator[str]:
            nonlocal last
            for number, line in lines:
                last = number
                if number == 1 and _EXCEL_HINT.match(line):
                    continue
                yield line

        reader = csv.reader(texts(), delimiter=self._delimiter, strict=True)
        while True:
            first = last + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise self._bad(error, first, last) from None
            if cells is None:
                return
            if any(cells):
                yield first, cells

    def _bad(self, error: csv.Error, first: int, last: int) -> UserError:
        if "unexpected end" in str(error) or "field limit" in str(error):
            return self._file.error(
                "quote_not_closed",
                "{name}, line {line}: a quote is opened and never closed.",
                "Close it in that row, or double it if it is part of the text.",
                line=first,
            )
        return self._file.error(
            "data_bad_csv",
            "{name}, line {line}: text follows a closing quote (the row begins in line {first}).",
            "Double every quote that is part of a text, and check that quotes are closed.",
            line=last,
            first=first,
        )

    def _too_many_cells(self, line: int, cells: list[str]) -> UserError:
        return self._file.error(
            "too_many_cells",
            "{name}, line {line}: {found} cells where the header has {expected}.",
            "Put texts that contain {delimiter} in quotes, or choose another delimiter. "
            + LEAVE_OUT,
            line=line,
            found=len(cells),
            expected=len(self.columns),
            delimiter="a tab" if self._delimiter == "\t" else self._delimiter,
        )

    def _note(self, code: str, message: str, line: int | None = None) -> None:
        self._file.notes.add(code, message, line, name=self._file.name)


def check_delimiter(delimiter: str) -> str:
    """The delimiter that the person chose. Raises `UserError` for one that cannot be."""
    if len(delimiter) == 1 and delimiter not in '"\r\n':
        return delimiter
    raise UserError(
        "delimiter_impossible",
        "{delimiter} cannot separate columns.",
        "Choose a comma, a semicolon, a tab or a vertical bar.",
        field="dataset.delimiter",
        delimiter=repr(delimiter),
    )
