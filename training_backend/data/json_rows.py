"""Rows from JSON lines, and what every JSON value of a data file goes through."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from training_backend.data.source_file import SourceFile, TextFile
from training_backend.data.table import LEAVE_OUT, Progress, Row
from training_backend.errors import UserError

_MAX_DEPTH = 100  # tool descriptions reach about twenty; Python code fails near a thousand
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRIPPED = " \t\r\n\ufeff"  # the last is a byte order mark: files were joined

# What may be left over at the end of a text that was cut within a word or number.
_CUT = ("true", "false", "null", "NaN", "Infinity", "-Infinity", ".", "e-", "e+", "E-", "E+")


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
        # Neither form: by lines, so that the message names one.
        return not start.startswith("[") and suffix != ".json"
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
        if start > 0 and not skip_bad:  # else it takes reading to know what counts as a row
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
                if has_rows and not line.endswith("\n") and breaks_off(error):
                    file.notes.add(
                        "torn_last_line",
                        "{name}: the last line ({first}) breaks off in the middle; it was left "
                        "out.",
                        number, name=file.name,
                    )  # fmt: skip
                    return
                error = bad_json(file, error.msg, number, error.colno)
            if not skip_bad:
                error.remedy = f"{error.remedy} {LEAVE_OUT}"
                raise error from None
            file.notes.add(
                "bad_lines_left_out",
                "{name}: {count} line(s) are no JSON objects and were left out (first is line "
                "{first}).",
                number, name=file.name,
            )  # fmt: skip
            continue
        has_rows = True
        if start > 0:
            start -= 1
            continue
        yield row


def breaks_off(error: json.JSONDecodeError) -> bool:
    """Whether the text is right as far as it goes, so that the rest of it may be missing."""
    if error.msg.startswith("Unterminated string"):
        return True
    rest = error.doc[error.pos : error.pos + 20].rstrip()
    if error.msg.startswith("Invalid \\"):  # an escape such as \u00e9, cut
        return len(rest) < 6
    return any(word.startswith(rest) for word in _CUT)


def checked(file: SourceFile, row: Any, word: str, place: int) -> Row:
    """`row`, if it is an object. Raises `UserError` naming the place."""
    if isinstance(row, dict):
        return row
    raise file.error(
        "row_not_object",
        "{name}, {place}: a row must be a JSON object with named columns, not {kind}.",
        "Correct that row and choose the file again.",
        place=f"{word} {place}",
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
