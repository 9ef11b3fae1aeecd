"""A run's journal: `events.jsonl`, one event a line, appended by the worker alone.

The writer flushes every line and fsyncs what must survive a power cut. A reader takes
whole lines only, so that a line being written is never read by half.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from training_backend.files import fsync_folder, is_disk_full
from training_backend.protocol import (
    TERMINAL_TYPES,
    CheckpointSaved,
    Event,
    PhaseChanged,
    RunStarted,
    parse_event,
)

FILE_NAME = "events.jsonl"
RESERVE_NAME = "events.reserve"
RESERVE_BYTES = 2**20
TAIL_BYTES = 65_536
PIECE_BYTES = 32 * 2**10
_DURABLE = (RunStarted, PhaseChanged, CheckpointSaved, *TERMINAL_TYPES)

logger = logging.getLogger(__name__)


class JournalWriter:
    """Appends events and numbers them; safe to use from several threads.

    A line that a killed predecessor left unfinished is closed first, so that the next
    event starts on a line of its own. A megabyte is kept in reserve: it is given back when the
    disk is full, so that the run can still say so.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / FILE_NAME
        self._reserve = folder / RESERVE_NAME
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._phase: str | None = None
        self._file = path.open("ab", buffering=0)
        if not self._file.tell():
            fsync_folder(folder)  # its name too is to survive a power cut
        elif not _ends_with_newline(path):
            self._write(b"\n")
        last = last_event(folder)
        self._next_seq = 0 if last is None else last.seq + 1
        self.make_room()

    def make_room(self) -> None:
        """Put the reserve by, where the disk has room for it."""
        with contextlib.suppress(OSError):
            if not self._reserve.exists():
                self._reserve.write_bytes(bytes(RESERVE_BYTES))

    def has_reserve(self) -> bool:
        return self._reserve.exists()

    def append(self, event: Event) -> str:
        """Writes the event with `seq`, `time` and `elapsed` filled in; returns its line.

        Raises `OSError` when the disk is full and the reserve used up.
        """
        with self._lock:
            stamped = event.model_copy(
                update={
                    "seq": self._next_seq,
                    "time": time.time(),
                    "elapsed": round(time.monotonic() - self._began, 3),
                }
            )
            line = stamped.model_dump_json()
            try:
                self._write(line.encode() + b"\n")
            except OSError as error:
                if not is_disk_full(error) or not self._reserve.exists():
                    raise
                self._reserve.unlink(missing_ok=True)
                self._write(line.encode() + b"\n")
            self._next_seq += 1
            if isinstance(event, _DURABLE) and not self._only_tells_how_far(event):
                os.fsync(self._file.fileno())
            if isinstance(event, PhaseChanged):
                self._phase = event.phase
        return line

    def _only_tells_how_far(self, event: Event) -> bool:
        """Of the phase that it is in; an fsync would wait for all that the phase writes."""
        if not isinstance(event, PhaseChanged) or event.fraction is None:
            return False
        return event.phase == self._phase

    def close(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        """All of it or, on a full disk, nothing: half a line would spoil the next one."""
        start = self._file.seek(0, os.SEEK_END)
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(start)
            raise


class JournalReader:
    """Reads a journal from where it last stopped; the file may not exist yet."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._offset = 0

    @property
    def offset(self) -> int:
        """How many bytes have been read."""
        return self._offset

    def read(self, most_bytes: int = -1) -> list[Event]:
        """The whole events that came since the last call; at most so many bytes of them.

        Bad lines are logged and passed over.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(most_bytes)
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(_parsed(whole.splitlines()))


def pieces(folder: Path, most_bytes: int = PIECE_BYTES) -> Iterator[tuple[list[Event], float]]:
    """The journal as it is now, oldest first and piece by piece, each with the share read so far.

    A journal of a million lines would take a gigabyte as one list.
    """
    reader = JournalReader(folder)
    size = _size(folder)
    while reader.offset < size:
        before = reader.offset
        events = reader.read(most_bytes)
        if reader.offset > before:
            yield events, min(1.0, reader.offset / size)
        elif most_bytes < size:
            most_bytes *= 4  # one line is longer: a sample may hold a whole document
        else:
            return  # the last line is still being written


def last_event(folder: Path) -> Event | None:
    """The newest whole event, from the file's end; None for an empty or missing journal."""
    back = TAIL_BYTES
    while True:
        events = tail(folder, back)
        if events:
            return events[-1]
        if back >= _size(folder):
            return None
        back *= 16  # the last line is longer: a sample may hold a whole document


def tail(folder: Path, bytes_back: int = TAIL_BYTES) -> list[Event]:
    """The events within the journal's last `bytes_back` bytes, oldest first."""
    try:
        with (folder / FILE_NAME).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - bytes_back)
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return list(_parsed(lines[1:] if start else lines))


def _size(folder: Path) -> int:
    try:
        return (folder / FILE_NAME).stat().st_size
    except FileNotFoundError:
        return 0


def _parsed(lines: list[bytes]) -> Iterator[Event]:
    for line in lines:
        try:
            yield parse_event(line)
        except ValidationError:
            logger.warning("passed over a line that is no event: %r", line[:200])


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
