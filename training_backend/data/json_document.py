"""Rows from a JSON document: from its list of objects, wherever that is.

The parser is the standard library's; only the outer brackets are walked here, so that one
element at a time is in memory, however large the document.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from training_backend.data.json_rows import Decoder, bad_json, breaks_off, checked
from training_backend.data.source_file import TextFile
from training_backend.data.table import MAX_ROW, Progress, Row
from training_backend.errors import UserError

_CHUNK = 256 * 1024
_BLANK = re.compile(r"[ \t\n\r]*")
_CUT_SHORT = "the file breaks off here"

_WRAPPED_DEPTH = 3  # {"result": {"items": {"data": [...]}}}

# In an object with one of these before any list, that object is a row, not a wrapping.
_ROW_KEYS = {"messages", "conversations", "instruction", "prompt", "question", "text"}
# Lists of objects that belong to a row.
_ROW_LISTS = {"messages", "conversations", "conversation", "tools", "functions"}


def read_document(
    text: TextFile, progress: Progress, start: int, list_name: str | None
) -> Iterator[Row]:
    """Rows of a JSON document: of its list of objects, wherever that is, or the one object.

    Args:
        list_name: which list to take when the document holds several; None is the first.
    """
    rows = _Document(text, progress, list_name).rows()
    numbered = enumerate(rows, start=1)
    return itertools.islice((checked(text.file, row, "row", n) for n, row in numbered), start, None)


class _Document:
    """Walks the outer brackets of a document; what is inside them is left to `json`."""

    def __init__(self, text: TextFile, progress: Progress, list_name: str | None) -> None:
        self._file = text.file
        self._decoder = Decoder(text.file)
        self._pieces = text.pieces(progress, _CHUNK)
        self._wanted = list_name
        self._buffer = ""
        self._at = 0
        self._is_all = False
        self._line = 1  # of the buffer's first character
        self._row = 0

    def rows(self) -> Iterator[Any]:
        while self._peek():
            if self._peek() == "[":
                yield from self._elements()
            elif self._peek() == "{":
                self._row += 1
                found = yield from self._object()
                if found is not None:
                    yield from self._rows_of(found)
            else:
                self._row += 1
                yield self._value()
            if self._peek() == ",":  # objects one after the other, with commas but no list
                self._at += 1

    def _rows_of(self, document: Row) -> Iterable[Row]:
        """An object without a list of objects: one row, unless its columns are lists."""
        if self._wanted is not None:
            raise self._file.error(
                "list_missing",
                "{name} holds no list named {list}.",
                "It holds: {names}.",
                list=self._wanted,
                names=", ".join(list(document)[:12]) or "nothing",
            )
        return _transposed(document) if _is_columnar(document) else [document]

    def _elements(self) -> Iterator[Any]:
        """The elements of the list that begins here."""
        self._at += 1
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            self._row += 1
            yield self._value()
            if self._closes("]"):
                return

    def _object(self, depth: int = 1) -> Generator[Any, None, Row | None]:
        """Yields the rows of the list in the object that begins here; returns the object
        itself when there is none."""
        self._at += 1
        found: Row = {}
        taken = ""
        if self._peek() == "}":
            self._at += 1
            return found
        while True:
            key = self._value()
            if not isinstance(key, str) or self._peek() != ":":
                raise self._syntax_error("Expecting a name in quotes and a colon")
            self._at += 1
            if taken:
                self._pass_over(key, taken)
            elif self._is_table(key, found):
                taken = key
                self._row = 0
                yield from self._elements()
            elif self._peek() == "{" and depth < _WRAPPED_DEPTH and not _ROW_KEYS & found.keys():
                inner = yield from self._object(depth + 1)
                if inner is None:
                    taken = key
                else:
                    found[key] = inner
            else:
                found[key] = self._value()
            if self._closes("}"):
                return None if taken else found

    def _is_table(self, key: str, before: Row) -> bool:
        """Whether a list of rows begins here, and not a part of the one row that this is."""
        if self._peek() != "[":
            return False
        if self._wanted is not None:
            return key == self._wanted
        if key in _ROW_LISTS or _ROW_KEYS & before.keys():
            return False
        return self._following(1) == "{"

    def _pass_over(self, key: str, taken: str) -> None:
        """Steps over what follows the list of rows in its object."""
        if self._peek() != "[":
            self._value()
            return
        before, is_table = self._row, self._following(1) == "{"
        for _ in self._elements():
            pass
        self._row = before
        if is_table:
            self._file.notes.add(
                "other_list",
                "{name} holds the lists {taken} and {other}; only {taken} is read. To read the "
                "other one, name it as the subset.",
                name=self._file.name,
                taken=taken,
                other=key,
            )

    def _closes(self, bracket: str) -> bool:
        """Steps over what follows an element: a comma, or the end."""
        sign = self._peek()
        self._at += 1
        if sign == bracket:
            return True
        if sign != ",":
            self._at -= 1
            raise self._syntax_error(f"Expecting , or {bracket}" if sign else _CUT_SHORT)
        return False

    def _value(self) -> Any:
        """The value that begins here; reads on until it is whole."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.decode(self._buffer, self._at, max(1, self._row), "row")
                # A number at the end of the buffer may go on after it: 1 of 1e-5.
                if end + len("e-") < len(self._buffer) or self._is_all:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._is_all or not breaks_off(error):
                    self._at = min(error.pos, len(self._buffer))
                    reason = _CUT_SHORT if breaks_off(error) else error.msg
                    raise self._syntax_error(reason) from None
            self._read_on()

    def _peek(self) -> str:
        """The next sign that is not blank, or "" at the end."""
        return self._following(0)

    def _following(self, ahead: int) -> str:
        """Steps over blanks; with 1, the first sign after the bracket that then stands there."""
        while True:
            self._at = _end_of_blank(self._buffer, self._at)
            at = _end_of_blank(self._buffer, self._at + 1) if ahead else self._at
            if at < len(self._buffer):
                return self._buffer[at]
            if self._is_all:
                return ""
            self._read_on()

    def _read_on(self) -> None:
        """Drops what is done and reads more: twice as much if a long value is not whole yet."""
        if len(self._buffer) - self._at > MAX_ROW:
            raise self._file.error(
                "row_too_large",
                "{name}, row {row}: longer than {limit} million characters.",
                "Split it into rows that a model can learn from.",
                row=max(1, self._row),
                limit=MAX_ROW // 1_000_000,
            )
        self._line += self._buffer.count("\n", 0, self._at)
        rest = self._buffer[self._at :]
        pieces = [rest]
        wanted = min(max(_CHUNK, len(rest)), MAX_ROW + 1 - len(rest))
        while wanted > 0:
            piece = next(self._pieces, "")
            if not piece:
                self._is_all = True
                break
            pieces.append(piece)
            wanted -= len(piece)
        self._buffer = "".join(pieces)
        self._at = 0

    def _syntax_error(self, reason: str) -> UserError:
        line = self._line + self._buffer.count("\n", 0, self._at)
        column = self._at - self._buffer.rfind("\n", 0, self._at)
        return bad_json(self._file, reason, line, column)


def _end_of_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    assert found is not None
    return found.end()


def _is_columnar(document: Row) -> bool:
    """Whether it holds a list of plain values for each column, as pandas writes by default."""
    columns = [_column(value) for value in document.values()]
    return (
        len(columns) > 1
        and all(columns)
        and len({len(column) for column in columns}) == 1
        and not any(isinstance(value, dict | list) for column in columns for value in column)
    )


def _column(value: Any) -> list[Any]:
    """A column's values: a list, or an object that numbers them ({"0": ..., "1": ...})."""
    if isinstance(value, dict) and all(key.isdigit() for key in value):
        return list(value.values())
    return value if isinstance(value, list) else []


def _transposed(document: Row) -> Iterator[Row]:
    for values in zip(*map(_column, document.values()), strict=True):
        yield dict(zip(document, values, strict=True))
