"""Rows from a source: a file of any known kind, a folder of them, or a dataset on the Hub.

Light: no torch; pyarrow, openpyxl and datasets only once a source needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path

from training_backend.data import hub, kinds
from training_backend.data.delimited import DelimitedFile, check_delimiter
from training_backend.data.folder import data_files
from training_backend.data.json_document import read_document
from training_backend.data.json_rows import read_lines
from training_backend.data.parquet import ParquetFile
from training_backend.data.plain_text import read_text
from training_backend.data.source_file import (
    SourceFile,
    check_unchanged,
    identity_of,
    open_file,
    open_text,
)
from training_backend.data.spreadsheet import Workbook
from training_backend.data.table import FIELD as FIELD
from training_backend.data.table import Details, Notices, Progress, Table, shown, with_head
from training_backend.data.table import Notice as Notice
from training_backend.data.table import Row as Row
from training_backend.errors import UserError
from training_backend.job import SourceSection

DEMO = "demo"

Read = Callable[[Progress, int], Iterator[Row]]


def open_source(source: SourceSection) -> Table:
    """Open what a source names, find out how it is written, and read its first rows.

    Raises:
        UserError: it is not there, of no known kind, damaged or empty; with the file, the
            line or row, and what to do.
    """
    path = source_path(source.path)
    if isinstance(path, str):
        return with_head(hub.open_hub(path, source.subset, source.split))
    if not path.is_dir():
        return with_head(_open_file(path, path.name, source))
    if hub.is_saved_dataset(path):
        return with_head(hub.open_saved(path, source.split))
    return with_head(_open_folder(path, source))


def source_path(path: str) -> Path | str:
    """The file or folder that a source's `path` names, or an id on the Hub (as text)."""
    if path == DEMO:
        return Path(str(resources.files("resources") / "demo" / "support.jsonl"))
    # os.path answers False where Path raises: a name too long, an unknown user's home.
    local = os.path.expanduser(path)
    if not os.path.lexists(local) and kinds.plain_suffix(path) not in kinds.KNOWN:
        id = hub.hub_id(path)
        if id is not None:
            return id
    if not os.path.lexists(local):
        raise _missing(path)
    return Path(local)


def _missing(path: str) -> UserError:
    return UserError(
        "data_missing",
        "There is no data file {path}.",
        "Check the path, or choose another file.",
        field=FIELD,
        path=path,
    )


def _open_file(path: Path, name: str, source: SourceSection) -> Table:
    file = open_file(path, name)
    match kinds.find_binary_kind(file):
        case "parquet":
            parquet = ParquetFile(file)
            details = Details("parquet", file.size_bytes)
            table = _table(file, details, parquet.read, parquet.columns)
            table.known_count = parquet.n_rows
            return table
        case "xlsx":
            book = Workbook(file, source.sheet)
            details = Details("xlsx", file.size_bytes, sheet=book.sheet, sheets=book.sheets)
            table = _table(file, details, book.read, book.columns)
            table.head = book.head
            return table
    return _open_text(file, source)


def _open_text(file: SourceFile, source: SourceSection) -> Table:
    text = open_text(file, source.encoding)
    kind = kinds.find_text_kind(file, text.head)
    if kind == "text" and source.delimiter is not None:
        kind = "csv"  # whoever names a delimiter sees columns in it
    columns: tuple[str, ...] = ()
    delimiter = None
    read: Read
    if kind == "csv":
        delimiter = source.delimiter or kinds.delimiter_of(file, text.head)
        delimited = DelimitedFile(text, check_delimiter(delimiter), source.skip_bad_lines)
        read, columns = delimited.read, delimited.columns
    elif kind == "jsonl":
        read = partial(read_lines, text, skip_bad=source.skip_bad_lines)
    elif kind == "json":
        read = partial(read_document, text, list_name=source.subset)
    else:
        read, columns = partial(read_text, text), ("text",)
    encoding = text.encoding.removesuffix("-sig")
    details = Details(kind, file.size_bytes, encoding, delimiter, compressed=file.compressed)
    return _table(file, details, read, columns)


def _table(file: SourceFile, details: Details, read: Read, columns: tuple[str, ...]) -> Table:
    """A table of one file, which is checked to stay the same from opening to the last row."""

    def checked(progress: Progress, start: int) -> Iterator[Row]:
        file.check_unchanged()
        try:
            yield from read(progress, start)
        except UserError:
            file.check_unchanged()  # the better reason, if it is the reason
            raise
        file.check_unchanged()

    return Table(file.name, details, checked, file.notes, columns)


def _open_folder(folder: Path, source: SourceSection) -> Table:
    """The rows of all files of a folder, one file after the other."""
    notes = Notices()
    paths, splits = data_files(folder, source.split, notes)
    names = {path: shown(path.relative_to(folder)) for path in paths}
    identities = {path: identity_of(path, name) for path, name in names.items()}
    total = sum(size for size, *_ in identities.values())

    def read(progress: Progress, start: int) -> Iterator[Row]:
        done = 0
        for path, name in names.items():
            check_unchanged(path, name, identities[path])
            table = _open_unless_empty(path, name)
            if table is None:
                continue
            inner = Progress()
            if table.known_count is not None and table.known_count <= start:
                start -= table.known_count
            else:
                for row in table.read(inner, 0):
                    progress.fraction = (done + inner.fraction * identities[path][0]) / total
                    if start > 0:
                        start -= 1
                    else:
                        yield row
            done += identities[path][0]
            notes.include(table.notes)

    def _open_unless_empty(path: Path, name: str) -> Table | None:
        try:
            return _open_file(path, name, source)
        except UserError as error:
            if error.code != "data_empty":
                raise
        notes.add("empty_file", "{name} is empty; it was passed over.", name=name)
        return None

    split = source.split if splits else None
    files = tuple(names.values())
    details = Details("folder", total, split=split, splits=splits, files=files)
    return Table(shown(folder.name), details, read, notes)


def resolve_dataset(path: str) -> Path:
    """The file that a job's `dataset.path` names; `demo` is the bundled one.

    Raises `UserError` when there is no such file.
    """
    found = source_path(path)
    if isinstance(found, str) or not found.exists():
        raise _missing(path)
    if found.is_dir():
        raise UserError(
            "data_is_folder",
            "{path} is a folder.",
            "Choose a JSON or JSONL file in it.",
            field=FIELD,
            path=path,
        )
    return found


def read_rows(path: Path, limit: int | None = None) -> list[Row]:
    """The first `limit` rows (all by default) of a file, as `open_source` reads it."""
    return list(open_source(SourceSection(path=str(path))).rows(limit=limit))
