"""The parent's side of a worker: spawn it, hand it one run, follow what it says.

A worker can be spawned ahead of time: it does its slow imports and waits for its one run.
An idle worker ends when the pipe to it closes, so it never outlives its parent; one that
trains carries on.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.process
import signal
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil
from pydantic import ValidationError

from training_backend import preferences, runs, worker
from training_backend.lifecycle.journal import PIECE_BYTES, JournalReader
from training_backend.protocol import TERMINAL_TYPES, Event, parse_event
from training_backend.runs import Run

QUEUE_SIZE = 1_000
KILL_SECONDS = 10.0
SAY_WHERE_SECONDS = 0.5

logger = logging.getLogger(__name__)

# Whose run is done with, but whose exit code nobody has taken yet: until then the system keeps
# an entry for each, also long after it has ended.
_done_with: set[multiprocessing.process.BaseProcess] = set()


class Worker:
    """One spawned process that takes exactly one run.

    The constructor returns at once; `start` may be called at any time after it.
    """

    def __init__(self) -> None:
        _see_off()
        context = multiprocessing.get_context("spawn")
        self._preferences = preferences.load()
        self._queue: Any = context.Queue(QUEUE_SIZE)
        child_end, self._pipe = context.Pipe(duplex=False)
        self.process = context.Process(
            target=worker.main, args=(self._queue, child_end), name="lorasmith-worker"
        )
        self.process.start()
        child_end.close()
        # Python would wait at its exit for all its children; a training must not hold up a
        # window that closes, nor an idle worker that is still importing.
        vars(multiprocessing.process)["_children"].discard(self.process)
        # With our copy of the write end closed, the read end says so at once when the
        # worker dies; otherwise a reader would wait for ever.
        self._queue._writer.close()  # type: ignore[attr-defined]

    def start(self, run: Run) -> None:
        """Hand over the run. Raises `OSError` when the worker is dead already."""
        run.clear_requests()
        self._pipe.send(str(run.folder))

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def is_ready(self) -> bool:
        """Whether it lives, and began with what the person prefers now.

        The card, the network and the models' folder are settled when its libraries are imported.
        """
        return self.is_alive() and self._preferences == preferences.load()

    def dismiss(self) -> None:
        """Let an idle worker go. One that has its run is not touched."""
        self._pipe.close()
        _done_with.add(self.process)

    def follow(self, run: Run) -> Iterator[Event | None]:
        """Every event of the run, in order and without a gap, until its terminal one.

        Blocks; yields None now and then when nothing came, so that the caller can leave.
        The queue is quick but may drop events; what it lacks is read from the journal.
        """
        try:
            yield from self._events(run)
        finally:
            _done_with.add(self.process)

    def _events(self, run: Run) -> Iterator[Event | None]:
        journal = JournalReader(run.folder)
        seen = -1
        reader: Connection = self._queue._reader
        for event in journal.read():  # earlier attempts
            seen = event.seq
            yield event
        while True:
            fresh: list[Event] = []
            ended = False
            if wait([reader], timeout=0.25):
                try:
                    while reader.poll(0):
                        fresh.extend(_next_in(self._queue))
                except (EOFError, OSError):
                    ended = True
            if not fresh and not ended:
                ended = not self.process.is_alive()
            if ended or _has_gap(seen, fresh):
                fresh = journal.read()
            for event in fresh:
                if event.seq > seen:
                    seen = event.seq
                    yield event
                    if isinstance(event, TERMINAL_TYPES):
                        return
            if ended:
                self.process.join(10)
                closing = runs.settle(run, self.process.exitcode, self.process.pid)
                # Somebody else may have noticed first; the file has the event either way.
                rest = [event for event in journal.read() if event.seq > seen]
                yield from rest or ([] if closing is None else [closing])
                return
            if not fresh:
                yield None


def tail(run: Run) -> Iterator[Event | None]:
    """As `Worker.follow`, for a run that another process started: reads the journal alone."""
    journal = JournalReader(run.folder)
    while True:
        alive = run.is_alive()  # asked before reading, so that the last words are not missed
        last: Event | None = None
        # A long history comes piece by piece; what is longer than a piece, whole.
        while events := journal.read(PIECE_BYTES) or journal.read():
            for last in events:
                yield last
        if isinstance(last, TERMINAL_TYPES) and not alive:
            return
        if not alive:
            closing = runs.settle(run)
            yield from journal.read() or ([] if closing is None else [closing])
            return
        yield None
        time.sleep(0.25)


def kill(run: Run, still_seconds: float | None = None) -> None:
    """End a worker at once, with all its children, and see that they are gone.

    Not by SIGTERM, which it takes for a wish to save and stop (`child_process.stop_when_told`).

    Args:
        still_seconds: for how long it had stood still, if that is why.
    """
    process = run.worker()
    if process is None:
        return
    family = [process]
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself just now
        family += process.children(recursive=True)
    with contextlib.suppress(OSError):  # a full disk, a folder that is gone
        run.requests.note_end(still_seconds, halted=_is_halted(process))
    if still_seconds is not None:
        _have_it_say_where(process)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    deadline = time.monotonic() + KILL_SECONDS  # a card's driver may hold it up
    while any(map(_is_running, family)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _is_halted(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.Error:
        return False


def _have_it_say_where(process: psutil.Process) -> None:
    """Have a worker that stands still write down where, as `child_process` prepared it to."""
    if sys.platform != "win32":
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGUSR1)
            time.sleep(SAY_WHERE_SECONDS)


def is_ending(run: Run) -> bool:
    """Whether the worker that had the run last is still there, with the memory that it holds."""
    process = run.claimant()
    return process is not None and _is_running(process)


def _is_running(process: psutil.Process) -> bool:
    """Asked so, since psutil's `wait` would take the exit code, which says how a run ended."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _see_off() -> None:
    for process in list(_done_with):
        if not process.is_alive():  # which takes its exit code
            _done_with.discard(process)


def _next_in(feed: Any) -> list[Event]:
    """The next event of the queue; none where it holds what is no event.

    Raises `EOFError` or `OSError` when the worker is gone.
    """
    try:
        line = feed.get()
    except (EOFError, OSError):
        raise
    except Exception as error:  # reading a message is to run what it says, which may go wrong
        logger.warning("passed over a message that cannot be read: %r", error)
        return []
    try:
        return [parse_event(line)]
    except ValidationError:
        logger.warning("passed over a message that is no event: %.200r", line)
        return []


def _has_gap(seen: int, events: list[Event]) -> bool:
    newer = [event.seq for event in events if event.seq > seen]
    return newer != list(range(seen + 1, seen + 1 + len(newer)))
