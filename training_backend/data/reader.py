"""Rows from a data file. Light: no torch, no datasets."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from training_backend.errors import UserError

Row = dict[str, Any]

FIELD = "dataset.path"
DEMO = "demo"


def resolve_dataset(path: str) -> Path:
    """The file that a job's `dataset.path` names; `demo` is the bundled one.

    Raises `UserError` when there is no such file.
    """
    if path == DEMO:
        return Path(str(resources.files("resources") / "demo" / "support.jsonl"))
    # os.path answers False where Path raises: a name too long, an unknown user's home.
    file = os.path.expanduser(path)
    if os.path.isdir(file):
        raise UserError(
            "data_is_folder",
            "{path} is a folder.",
            "Choose a JSON or JSONL file in it.",
            field=FIELD,
            path=path,
        )
    if not os.path.isfile(file):
        raise UserError(
            "data_missing",
            "There is no data file {path}.",
            "Check the path, or choose another file.",
            field=FIELD,
            path=path,
        )
    return Path(file)


def read_rows(path: Path, limit: int | None = None) -> list[Row]:
    """The first `limit` rows (all by default) of a JSON or JSONL file.

    A JSON file holds a list of objects, or an object with exactly one list of objects in it
    (as `{"data": [...]}`). JSON lines in a file named .json are understood too.

    Raises `UserError` that names the file and the line or row at fault; a file without a
    row is an error too.
    """
    try:
        rows = _json_rows(path) if path.suffix.lower() == ".json" else _line_rows(path)
        found = list(itertools.islice(rows, limit))
    except UnicodeDecodeError:
        raise UserError(
            "data_not_utf8",
            "{name} is not UTF-8 text.",
            "Save it as UTF-8 and choose it again.",
            field=FIELD,
            name=path.name,
        ) from None
    except OSError as error:
        raise UserError(
            "data_unreadable",
            "{name} cannot be read: {reason}.",
            field=FIELD,
            name=path.name,
            reason=error.strerror or str(error),
        ) from None
    if not found:
        raise UserError(
            "data_empty",
            "{name} holds no rows.",
            "Choose a file with at least one row.",
            field=FIELD,
            name=path.name,
        )
    return found


def _json_rows(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        return
    try:
        document = _loads(text, path, 1)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and "\n" not in text[: error.pos].strip():
            yield from _line_rows(path)  # the first line is a whole document: JSON lines
            return
        raise _bad_json(path, error.msg, error.lineno, error.colno) from None
    for number, row in enumerate(_list_in(document), start=1):
        yield _checked(row, path, f"row {number}")


def _list_in(document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return [document]
    lists = [value for value in document.values() if _is_table(value)]
    return lists[0] if len(lists) == 1 and len(document) <= 4 else [document]


def _is_table(value: Any) -> bool:
    # A conversation is a list of objects too, but it is part of a row.
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, dict) and not {"role", "from"} & row.keys() for row in value)
    )


def _line_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = _loads(line, path, number)
            except json.JSONDecodeError as error:
                raise _bad_json(path, error.msg, number, error.colno) from None
            yield _checked(row, path, f"line {number}")


def _loads(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits; too deep
        raise _bad_json(path, str(error), line, 1) from None


def _checked(row: Any, path: Path, place: str) -> Row:
    if isinstance(row, dict):
        return row
    raise UserError(
        "row_not_object",
        "{name}, {place}: a row must be a JSON object with named columns, not {kind}.",
        "Correct that row and choose the file again.",
        field=FIELD,
        name=path.name,
        place=place,
        kind=type(row).__name__,
    )


def _bad_json(path: Path, reason: str, line: int, column: int) -> UserError:
    return UserError(
        "data_bad_json",
        "{name}, line {line}: not valid JSON ({reason}, column {column}).",
        "Correct that line and choose the file again.",
        field=FIELD,
        name=path.name,
        line=line,
        reason=reason,
        column=column,
    )
