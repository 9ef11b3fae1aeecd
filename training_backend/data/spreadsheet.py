"""Rows from the sheets of an Excel file (.xlsx)."""

from __future__ import annotations

import itertools
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from training_backend.data.parquet import plain
from training_backend.data.source_file import SourceFile
from training_backend.data.table import HEAD_ROWS, Progress, Row, distinct
from training_backend.errors import UserError

# Unpacked; more is a bomb, or too much for a spreadsheet. Shared texts are held in memory.
_MAX_SHEET_BYTES = 4_000_000_000
_MAX_TEXTS_BYTES = 500_000_000


class Workbook:
    """One sheet of an Excel file; the first row that is not blank names the columns.

    Raises `UserError` when the file is damaged or too large, or has no such sheet.
    """

    def __init__(self, file: SourceFile, sheet: str | None) -> None:
        self._file = file
        self._check_size()
        # Opening takes seconds where there are many texts: all that is needed, in one go.
        with self._opened() as book:
            self.sheets: tuple[str, ...] = tuple(sheet.title for sheet in book.worksheets)
            if sheet is not None and sheet not in self.sheets:
                raise self._no_sheet(sheet)
            if not self.sheets:
                raise self._damaged()
            # Often the first sheet is a cover without a table.
            for name in [sheet] if sheet else [*self.sheets, self.sheets[0]]:
                self.sheet = name
                self.columns = tuple(filter(None, next(self._cells(book), [])))
                self.head = list(itertools.islice(self._rows(book), HEAD_ROWS))
                if self.head:
                    break
        if sheet is None and len(self.sheets) > 1:
            file.notes.add(
                "other_sheets",
                "{name} has {n_sheets} sheets; only {sheet} is read.",
                name=file.name,
                n_sheets=len(self.sheets),
                sheet=self.sheet,
            )

    def read(self, progress: Progress, start: int) -> Iterator[Row]:
        """The rows below the header; columns without a name and blank rows are passed over."""
        with self._opened() as book:
            for number, row in enumerate(self._rows(book)):
                progress.fraction = number / (number + 1000)  # a sheet does not tell its length
                if number >= start:
                    yield row

    def _rows(self, book: Any) -> Iterator[Row]:
        cells = self._cells(book)
        names = next(cells, [])
        for values in cells:
            row: Row = dict.fromkeys(self.columns)
            row.update((name, value) for name, value in zip(names, values, strict=False) if name)
            yield row

    def _cells(self, book: Any) -> Iterator[list[Any]]:
        """The rows that are not blank; the first one as distinct names."""
        sheet = book[self.sheet]
        sheet.reset_dimensions()  # many programs write a wrong size, and rows would be lost
        is_header = True
        for cells in sheet.iter_rows(values_only=True):
            if all(cell is None or cell == "" for cell in cells):
                continue
            values = [plain(cell) for cell in cells]
            if is_header:
                values = distinct("" if value is None else str(value).strip() for value in values)
                is_header = False
            yield values

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import openpyxl

        try:
            with self._file.path.open("rb") as raw, warnings.catch_warnings():
                # About decorations that it does not know.
                warnings.simplefilter("ignore")
                book = openpyxl.load_workbook(raw, read_only=True, data_only=True)
                try:
                    yield book
                finally:
                    book.close()
        except UserError:
            raise
        except Exception:  # openpyxl lets through whatever a damaged part makes it run into
            raise self._damaged() from None

    def _check_size(self) -> None:
        try:
            with zipfile.ZipFile(self._file.path) as parts:
                infos = parts.infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError):
            raise self._damaged() from None
        texts = [info for info in infos if info.filename.endswith("sharedStrings.xml")]
        if (
            sum(info.file_size for info in infos) > _MAX_SHEET_BYTES
            or sum(info.file_size for info in texts) > _MAX_TEXTS_BYTES
        ):
            raise self._file.error(
                "workbook_too_large",
                "{name} is too large for a spreadsheet when unpacked.",
                "Save the sheet as CSV.",
            )

    def _no_sheet(self, sheet: str) -> UserError:
        return UserError(
            "sheet_missing",
            "{name} has no sheet {sheet}.",
            "Choose one of: {sheets}.",
            field="dataset.sheet",
            name=self._file.name,
            sheet=sheet,
            sheets=", ".join(self.sheets),
        )

    def _damaged(self) -> UserError:
        return self._file.error(
            "workbook_damaged",
            "{name} is an Excel file that is damaged, not complete or protected.",
            "Open it in Excel or LibreOffice and save it again, or save the sheet as CSV.",
        )
