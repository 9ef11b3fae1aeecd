"""One regular file on the disk: what it is by its first bytes, and reading it as text.

Nothing is opened that is not a regular file, since a FIFO or a device would hang. Text is
read line by line in bounded memory, repaired where that is certain (byte order marks, UTF-16,
stray bytes that are not UTF-8, NUL bytes), and each repair is noted.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from training_backend.data.encoding import find_encoding, known_encoding
from training_backend.data.table import FIELD, MAX_ROW, Notices, Progress
from training_backend.errors import UserError

HEAD_BYTES = 1024 * 1024  # what kind, encoding and delimiter are found out from

_GZIP = b"\x1f\x8b"
# Bytes that were not UTF-8 stand here as the lone surrogates of `surrogateescape`.
_STRAY = re.compile("[\udc80-\udcff]+")

Identity = tuple[int, int, int]  # size, time of change, inode


@dataclass
class SourceFile:
    """A regular, readable file with the first bytes of its (unpacked) content.

    `name` is how messages call it; `head` is at most `HEAD_BYTES`, `is_whole` when that is
    everything.
    """

    path: Path
    name: str
    head: bytes
    is_whole: bool
    compressed: bool
    identity: Identity
    notes: Notices = field(default_factory=Notices)

    @property
    def size_bytes(self) -> int:
        return self.identity[0]

    def error(self, code: str, message: str, remedy: str = "", **params: object) -> UserError:
        """A `UserError` about this file; {name} is filled in."""
        return UserError(code, message, remedy, field=FIELD, **{"name": self.name, **params})

    def check_unchanged(self) -> None:
        """Raises `UserError` when the file is not the one that was opened any more."""
        check_unchanged(self.path, self.name, self.identity)

    @contextmanager
    def open_bytes(self, progress: Progress) -> Iterator[BinaryIO]:
        """The file's content, unpacked if it is compressed."""
        try:
            with self.path.open("rb") as raw:
                counted = io.BufferedReader(_Counted(raw, progress, self.size_bytes), 1 << 18)
                content = gzip.GzipFile(fileobj=counted) if self.compressed else counted
                yield cast(BinaryIO, content)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise self.error(
                "data_gzip_damaged",
                "{name} is a gzip file that is damaged or not complete.",
                "Download or copy it again.",
            ) from None
        except OSError as error:
            raise unreadable(self.name, error) from None


class _Counted(io.RawIOBase):
    """A raw file that reports how much of it has been read."""

    def __init__(self, raw: BinaryIO, progress: Progress, size: int) -> None:
        self._raw, self._progress, self._size, self._done = raw, progress, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        count = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self._done += count
        self._progress.fraction = min(1.0, self._done / max(1, self._size))
        return int(count)


def open_file(path: Path, name: str) -> SourceFile:
    """Look at a file. Raises `UserError` when it is none, cannot be read, or is empty."""
    identity = identity_of(path, name)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == _GZIP
            raw.seek(0)
            content = gzip.GzipFile(fileobj=raw) if compressed else raw
            head = content.read(HEAD_BYTES)
            is_whole = len(head) < HEAD_BYTES
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(
            "data_gzip_damaged",
            "{name} is a gzip file that is damaged or not complete.",
            "Download or copy it again.",
            field=FIELD,
            name=name,
        ) from None
    except OSError as error:
        raise unreadable(name, error) from None
    file = SourceFile(path, name, head, is_whole, compressed, identity)
    if compressed and path.suffix.lower() != ".gz":
        file.notes.add("gzip", "{name} is compressed with gzip and is unpacked as it is read.",
                       name=name)  # fmt: skip
    if is_whole and not head.strip():
        raise file.error("data_empty", "{name} holds no rows.",
                         "Choose a file with at least one row.")  # fmt: skip
    return file


def check_unchanged(path: Path, name: str, identity: Identity) -> None:
    """Raises `UserError` when a file is not the one that it was."""
    if identity_of(path, name) != identity:
        raise UserError(
            "data_changed",
            "{name} was changed since it was opened.",
            "Choose it again when nothing writes to it any more, or use a copy.",
            field=FIELD,
            name=name,
        )


def identity_of(path: Path, name: str) -> Identity:
    """What tells a file from a changed one. Raises `UserError` unless it is a regular file."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise unreadable(name, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(
            "data_not_a_file",
            "{name} is not a file with data but a pipe, socket or device.",
            "Save what it delivers as a file and choose that.",
            field=FIELD,
            name=name,
        )
    return found.st_size, found.st_mtime_ns, found.st_ino


def unreadable(name: str, error: OSError) -> UserError:
    """The `UserError` for what the operating system says about a file."""
    if isinstance(error, FileNotFoundError):
        return UserError(
            "data_missing",
            "There is no data file {path}.",
            "Check the path, or choose another file.",
            field=FIELD,
            path=name,
        )
    if error.errno == errno.ELOOP:
        return UserError(
            "data_link_loop",
            "{name} is a link that leads in a circle.",
            "Choose the file itself.",
            field=FIELD,
            name=name,
        )
    return UserError(
        "data_unreadable",
        "{name} cannot be read: {reason}.",
        "Check that the file is on this computer and that you may read it.",
        field=FIELD,
        name=name,
        reason=error.strerror or str(error),
    )


@dataclass
class TextFile:
    """A file read as text, in an encoding that was given or found out."""

    file: SourceFile
    encoding: str
    is_given: bool  # by the person: then a byte that does not fit is an error
    head: str  # the first `HEAD_BYTES`, decoded

    def lines(self, progress: Progress, newline: str | None = None) -> Iterator[tuple[int, str]]:
        """Numbered lines (from 1) with their ends, each at most `MAX_ROW` characters.

        Args:
            newline: as in `open`: None for any of the three kinds of line end, each read as
                `\\n`; "" to keep them as they are.
        """
        with self.file.open_bytes(progress) as raw, self._decoded(raw, newline) as text:
            number = 0
            try:
                for number, line in enumerate(iter(lambda: text.readline(MAX_ROW), ""), start=1):
                    if len(line) == MAX_ROW:
                        raise self.file.error(
                            "row_too_long",
                            "{name}, line {line}: longer than {limit} million characters.",
                            "Split it into rows that a model can learn from, one a line.",
                            line=number,
                            limit=MAX_ROW // 1_000_000,
                        )
                    is_clean = line.isascii() and "\0" not in line
                    yield number, line if is_clean else self._repaired(line, number)
            except UnicodeError as error:
                raise self._does_not_fit(error, number) from None

    def pieces(self, progress: Progress, size: int) -> Iterator[str]:
        """The text in pieces of at most `size` characters."""
        with self.file.open_bytes(progress) as raw, self._decoded(raw, None) as text:
            line = 1
            try:
                for piece in iter(lambda: text.read(size), ""):
                    yield self._repaired(piece, line)
                    line += piece.count("\n")
            except UnicodeError as error:
                raise self._does_not_fit(error, line - 1) from None

    def _decoded(self, raw: BinaryIO, newline: str | None) -> io.TextIOWrapper:
        errors = "strict" if self.is_given else "surrogateescape"
        return io.TextIOWrapper(raw, self.encoding, errors, newline)

    def _repaired(self, text: str, line: int) -> str:
        clean = _without_nul_and_stray(text)
        if clean is text:
            return text
        if "\0" in text:
            self.file.notes.add(
                "nul_bytes", "{name}: NUL bytes were left out (first in line {first}).", line,
                name=self.file.name,
            )  # fmt: skip
        if _STRAY.search(text):
            self.file.notes.add(
                "stray_bytes",
                "{name}: {count} line(s) hold bytes that do not fit the encoding; they were read "
                "as Windows-1252 (first in line {first}).",
                line,
                name=self.file.name,
            )
        return clean

    def _does_not_fit(self, error: UnicodeError, lines_before: int) -> UserError:
        line = lines_before + 1
        if isinstance(error, UnicodeDecodeError):
            line += error.object[: error.start].count(b"\n")
        return UserError(
            "data_wrong_encoding",
            "{name}, line {line}: not text in the encoding {encoding}.",
            "Choose another encoding." if self.is_given else "Save the file as UTF-8.",
            field="dataset.encoding" if self.is_given else FIELD,
            name=self.file.name,
            line=line,
            encoding=self.encoding,
        )


def _without_nul_and_stray(text: str) -> str:
    """`text` itself where there is nothing to repair, which is quick to see."""
    if "\0" in text:
        text = text.replace("\0", "")
    if not text.isascii() and _STRAY.search(text):
        text = _STRAY.sub(_from_windows, text)
    return text


def _from_windows(stray: re.Match[str]) -> str:
    raw = stray[0].encode("utf-8", "surrogateescape")
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def open_text(file: SourceFile, encoding: str | None) -> TextFile:
    """Read a file as text. Raises `UserError` when it is none, or the encoding is unknown."""
    found = find_encoding(file) if encoding is None else known_encoding(encoding)
    text = TextFile(file, found, encoding is not None, "")
    decoder = codecs.getincrementaldecoder(found)("replace" if text.is_given else "surrogateescape")
    try:
        text.head = _without_nul_and_stray(decoder.decode(file.head, file.is_whole))
    except UnicodeError as error:  # UTF-16 and UTF-32 can be broken beyond that
        raise text._does_not_fit(error, 0) from None
    if "\r" in text.head and "\n" not in text.head:
        file.notes.add(
            "old_line_ends",
            "{name} ends its lines as old Macs did; it was read so.",
            name=file.name,
        )
    return text
