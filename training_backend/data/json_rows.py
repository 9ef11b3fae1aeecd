"""Rows from JSON: one object a line, or a document with a list of objects in it.

The parser is the standard library's throughout. Documents are walked one element at a time,
so that a large one never is in memory whole.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from training_backend.data.source_file import SourceFile, TextFile
from training_backend.data.table import MAX_ROW, Progress, Row
from training_backend.errors import UserError

_MAX_DEPTH = 100  # tool descriptions reach about twenty; Python code fails near a thousand
_CHUNK = 256 * 1024
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRIPPED = " \t\r\n\ufeff"  # the last is a byte order mark: files were joined
_BLANK = re.compile(r"[ \t\n\r]*")

# What may be left over at the end of a text that was cut within a word or number.
_CUT = ("true", "false", "null", "NaN", "Infinity", "-Infinity", ".", "e-", "e+", "E-", "E+")

_WRAPPED_DEPTH = 3  # {"result": {"items": {"data": [...]}}}

# In an object with one of these before any list, that object is a row, not a wrapping.
_ROW_KEYS = {"messages", "conversations", "instruction", "prompt", "question", "text"}
# Lists of objects that belong to a row.
_ROW_LISTS = {"messages", "conversations", "conversation", "tools", "functions"}


class Decoder:
    """`json` with what a file may hold but a row should not: each is noted and set right."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._duplicate = self._constant = False
        kwargs: Any = {"object_pairs_hook": self._pairs, "parse_constant": self._no_number}
        self._strict = json.JSONDecoder(**kwargs)
        self._loose = json.JSONDecoder(strict=False, **kwargs)

    def decode(self, text: str, start: int, place: int, word: str) -> tuple[Any, int]:
        """The value at `start` of `text` and where it ends.

        `place` and `word` ("line" or "row") say where that is in the file. Raises
        `json.JSONDecodeError`, and `UserError` for what no repair helps.
        """
        self._duplicate = self._constant = False
        try:
            value, end = self._decode(text, start, place, word)
        except RecursionError:
            raise self._too_deep(place, word) from None
        except json.JSONDecodeError:
            raise
        except ValueError:  # Python's limit on the digits of a whole number
            raise self._file.error(
                "number_too_long",
                "{name}, {word} {place}: a number has thousands of digits.",
                "Put it in quotes, or remove it.",
                word=word,
                place=place,
            ) from None
        brackets = text.count("[", start, end) + text.count("{", start, end)
        if brackets > _MAX_DEPTH and _is_deep(value):
            raise self._too_deep(place, word)
        if text.find("\\ud", start, end) >= 0 or text.find("\\uD", start, end) >= 0:
            value = self._without_surrogates(value, place, word)
        self._note_findings(place, word)
        return value, end

    def _decode(self, text: str, start: int, place: int, word: str) -> tuple[Any, int]:
        try:
            return self._strict.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Invalid control character"):
                raise
            decoded = self._loose.raw_decode(text, start)
            self._file.notes.add(
                "raw_control_characters",
                "{name}: line breaks or tabs stand inside quotes in {count} place(s); they were "
                "kept (first in {word} {first}).",
                place,
                name=self._file.name,
                word=word,
            )
            return decoded

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            self._duplicate = True
        return found

    def _no_number(self, text: str) -> None:
        self._constant = True

    def _note_findings(self, place: int, word: str) -> None:
        name = self._file.name
        if self._duplicate:
            self._file.notes.add(
                "duplicate_keys",
                "{name}: {count} row(s) name the same column twice; the last value was taken "
                "(first in {word} {first}).",
                place, name=name, word=word,
            )  # fmt: skip
        if self._constant:
            self._file.notes.add(
                "not_a_number",
                "{name}: {count} row(s) hold NaN or Infinity, which are read as empty "
                "(first in {word} {first}).",
                place, name=name, word=word,
            )  # fmt: skip

    def _without_surrogates(self, value: Any, place: int, word: str) -> Any:
        clean = _replace_surrogates(value)
        if clean != value:
            self._file.notes.add(
                "lone_surrogates",
                "{name}: {count} row(s) hold halves of characters (such as \\ud83d alone); "
                "each was replaced by \N{REPLACEMENT CHARACTER} (first in {word} {first}).",
                place, name=self._file.name, word=word,
            )  # fmt: skip
        return clean

    def _too_deep(self, place: int, word: str) -> UserError:
        return self._file.error(
            "nested_too_deep",
            "{name}, {word} {place}: lists or objects are nested more than {limit} deep.",
            "Remove that row, or store the nested part as text.",
            word=word,
            place=place,
            limit=_MAX_DEPTH,
        )


def _is_deep(value: Any) -> bool:
    """Whether it is nested beyond the limit; level by level, since recursion would fail."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = [item for outer in level for item in _items(outer)]
        level = [item for item in inner if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _items(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value


def is_json_lines(head: str, suffix: str) -> bool:
    """Whether it is one object a line, rather than a document that may span lines.

    Told by the first lines: one that begins an object without indent and ends it too.
    """
    start = head.lstrip().replace("\r\n", "\n").replace("\r", "\n")
    if not start.startswith("{"):
        return not start.startswith("[")  # by lines, so that the message names one
    lines = start.split("\n", 20)
    if len(lines) == 1 and suffix == ".json":
        return False  # might be wrapped
    return any(line.startswith("{") and _is_object(line) for line in lines[:20])


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def read_lines(text: TextFile, progress: Progress, start: int, skip_bad: bool) -> Iterator[Row]:
    """Rows of a file with one JSON object a line; blank lines are passed over.

    A last line that breaks off, as in a log that is being written, is left out with a notice.
    """
    decoder, file = Decoder(text.file), text.file
    has_rows = False
    for number, line in text.lines(progress):
        content = line.strip(_STRIPPED)
        if not content:
            continue
        if start > 0:
            start -= 1
            has_rows = True
            continue
        try:
            value, end = decoder.decode(content, 0, number, "line")
            if end != len(content):
                raise json.JSONDecodeError("Extra data", content, end)
            row = checked(file, value, "line", number)
        except (json.JSONDecodeError, UserError) as error:
            if isinstance(error, json.JSONDecodeError):
                if has_rows and not line.endswith("\n") and _breaks_off(error):
                    file.notes.add(
                        "torn_last_line",
                        "{name}: the last line ({first}) breaks off in the middle; it was left "
                        "out.",
                        number, name=file.name,
                    )  # fmt: skip
                    return
                error = bad_json(file, error.msg, number, error.colno)
            if not skip_bad:
                raise error from None
            file.notes.add(
                "bad_lines_left_out",
                "{name}: {count} line(s) are no JSON objects and were left out (first is line "
                "{first}).",
                number, name=file.name,
            )  # fmt: skip
            continue
        has_rows = True
        yield row


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
            raise self._syntax_error(
                f"Expecting , or {bracket}" if sign else "the file breaks off here"
            )
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
                message = ""
            except json.JSONDecodeError as error:
                message = error.msg
                if self._is_all or not _breaks_off(error):
                    if _breaks_off(error):
                        message = "the file breaks off here"
                    self._at = min(error.pos, len(self._buffer))
                    raise self._syntax_error(message) from None
            if len(self._buffer) - self._at > MAX_ROW:
                raise self._file.error(
                    "row_too_large",
                    "{name}, row {row}: longer than {limit} million characters.",
                    "Split it into rows that a model can learn from.",
                    row=self._row,
                    limit=MAX_ROW // 1_000_000,
                )
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


def _breaks_off(error: json.JSONDecodeError) -> bool:
    """Whether the text is right as far as it goes, so that the rest of it may be missing."""
    if error.msg.startswith("Unterminated string"):
        return True
    rest = error.doc[error.pos : error.pos + 20].rstrip()
    if error.msg.startswith("Invalid \\"):  # an escape such as \u00e9, cut
        return len(rest) < 6
    return any(word.startswith(rest) for word in _CUT)


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


def checked(file: SourceFile, row: Any, word: str, place: int) -> Row:
    """`row`, if it is an object. Raises `UserError` naming the place."""
    if isinstance(row, dict):
        return row
    raise file.error(
        "row_not_object",
        "{name}, {word} {place}: a row must be a JSON object with named columns, not {kind}.",
        "Correct that row and choose the file again.",
        word=word,
        place=place,
        kind=type(row).__name__,
    )


def bad_json(file: SourceFile, reason: str, line: int, column: int) -> UserError:
    return file.error(
        "data_bad_json",
        "{name}, line {line}: not valid JSON ({reason}, column {column}).",
        "Correct that line and choose the file again.",
        line=line,
        column=column,
        reason=reason,
    )
