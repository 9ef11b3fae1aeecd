"""What is on disk of the queue: a mark in each waiting run's folder, `queue.json` for the order.

The marks are the truth about what is waiting; a damaged `queue.json` loses nothing but the order.
Both may be changed by the window and by a terminal, so every change is made in `changing()`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from training_backend import paths
from training_backend.errors import UserError
from training_backend.files import replace, write_json_atomic
from training_backend.lifecycle import journal, run_folders
from training_backend.runs import Run

MARK = "queued.json"
GUARD_SECONDS = 10.0
FIRST_LINE_BYTES = 4_096  # a longer journal surely holds more than an unfinished first line


class Mark(BaseModel):
    """What `queued.json` holds; it stays in the folder, so that one sees later who had queued."""

    model_config = ConfigDict(frozen=True)

    added: float  # Unix seconds
    sweep: str = ""


class Stored(BaseModel):
    """What `queue.json` holds: ids in their order, and which of them its worker took last."""

    version: int = 1
    order: list[str] = []
    taken: str = ""
    paused: bool = False
    notice: str = ""

    def set_waiting(self, order: list[str]) -> None:
        """The order of what waits; a run just taken keeps its place before them."""
        ahead = [self.taken] if self.taken and self.taken not in order else []
        self.order = ahead + order


def read_mark(run: Run) -> Mark | None:
    """When and by which sweep a run was queued; None for one that never was."""
    path = run.folder / MARK
    if not os.path.isfile(path):
        return None
    try:
        return Mark.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):  # it waits all the same
        return Mark(added=0.0)


def queued_by(sweep: str) -> list[Run]:
    """All runs of a sweep, begun or not, in the order in which they were added."""
    found = []
    for folder in run_folders.listed(paths.runs_dir()):
        mark = read_mark(Run(folder))
        if mark is not None and mark.sweep == sweep:
            found.append((mark.added, folder))
    return [Run(folder) for _, folder in sorted(found)]


def waiting(stored: Stored, with_taken: bool = False) -> list[Run]:
    """The waiting runs in order; those that the order does not know at the end, oldest first."""
    marks = {}
    for folder in run_folders.listed(paths.runs_dir()):
        run = Run(folder)
        if (mark := read_mark(run)) is not None and not _has_begun(run):
            marks[run.id] = mark
    if not with_taken and stored.taken in marks and is_worked_on():
        del marks[stored.taken]
    known = [id for id in dict.fromkeys(stored.order) if id in marks]
    others = sorted(marks.keys() - set(known), key=lambda id: (marks[id].added, id))
    return [Run(paths.runs_dir() / id) for id in known + others]


def load() -> Stored:
    """The order and the pause as they are; a damaged file is set aside."""
    try:
        return _read()
    except ValidationError:
        with changing() as stored:  # sets the file aside
            return stored


@contextlib.contextmanager
def changing() -> Iterator[Stored]:
    """The stored state, for a change that no other program comes between.

    Raises `UserError` when another one keeps it, and `OSError` when it cannot be written; the
    file is then as it was.
    """
    try:
        held = _guard().acquire(timeout=GUARD_SECONDS)
    except Timeout:
        raise UserError(
            "queue_is_busy", "Another program is changing the queue.", "Try again in a moment."
        ) from None
    with held:
        try:
            before = _read()
            stored = before.model_copy(deep=True)
        except ValidationError:
            before, stored = None, _set_aside()
        yield stored
        if stored != before:
            write_json_atomic(_file(), stored.model_dump())


def aside() -> Path:
    """Where the run that was removed last lies until the next one is."""
    return paths.home() / "removed-from-queue"


def work_lock() -> FileLock:
    """Held by whoever works through the queue."""
    # The window's thread that lets go of it need not be the one that took it.
    return FileLock(paths.home() / "queue.lock", thread_local=False)


def is_worked_on() -> bool:
    """Whether this or another program works through the queue now."""
    lock = work_lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _has_begun(run: Run) -> bool:
    """Whether a worker has it, or had; quick, since this is asked of every run there ever was."""
    try:
        size = (run.folder / journal.FILE_NAME).stat().st_size
    except OSError:
        size = 0
    return size > FIRST_LINE_BYTES or run.state() != "queued"


def _file() -> Path:
    return paths.home() / "queue.json"


def _guard() -> FileLock:
    return FileLock(paths.home() / "queue.json.lock")


def _read() -> Stored:
    try:
        return Stored.model_validate_json(_file().read_bytes())
    except FileNotFoundError:
        return Stored()


def _set_aside() -> Stored:
    """Keep a damaged file for whoever wants to look; what waits is known without it."""
    damaged = _file().with_name("queue.damaged.json")
    replace(_file(), damaged)
    return Stored(
        notice=f"The order of the queue could not be read (the file is now {damaged}). Every "
        "run that waits is still there, the oldest first."
    )
