"""The queue: runs that wait for their turn, in an order that survives whatever ends the program.

A waiting run is a run like any other that has not begun (state "queued"), with a `queued.json`
in its folder that says it is waiting here. That file is the truth about what is waiting;
`queue.json` below home only holds the order, so a damaged one loses nothing but the order.

Who works through the queue, the window or a terminal, holds `working()` meanwhile, so that
there is only one. Its loop is

    with run_queue.working():
        while (run := run_queue.take_next()) is not None:
            if run_queue.admit(run):
                ...  # a worker does it, to its end
            run_queue.record_end(run)

What a run's end means for the next one: after a run that completed, failed or was interrupted
the next one starts; the cause stays with the run that failed. A run that the person stopped
pauses the queue: who ends one by hand wants the computer, or something is wrong with all of
them. `go_on` takes the pause away. A pause never touches the run that is under way.

Light; every function reads or writes a few small files, `admit` reads the data too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from training_backend import journal, paths, preflight, runs
from training_backend.errors import JobError, UserError
from training_backend.files import replace, write_json_atomic
from training_backend.job import TrainingJob
from training_backend.journal import JournalWriter
from training_backend.protocol import RunFailed, RunStarted, RunStopped
from training_backend.runs import PROBE_SECONDS, Run

MARK = "queued.json"
GUARD_SECONDS = 10.0
FIRST_LINE_BYTES = 4_096  # a longer journal surely holds more than an unfinished first line


@dataclass(frozen=True)
class QueueEntry:
    """A run that waits. `job` is None where its file is damaged; `sweep` is "" for a single run."""

    run: Run
    job: TrainingJob | None
    sweep: str

    @property
    def name(self) -> str:
        return self.job.name if self.job is not None else self.run.id


class Mark(BaseModel):
    """What `queued.json` holds; it stays in the folder, so that one sees later who had queued."""

    model_config = ConfigDict(frozen=True)

    added: float  # Unix seconds
    sweep: str = ""


class _Stored(BaseModel):
    """What `queue.json` holds: ids in their order, and which of them its worker took last."""

    version: int = 1
    order: list[str] = []
    taken: str = ""
    paused: bool = False
    notice: str = ""


# ------------------------------------------------------------------------- what the person does


def entries() -> list[QueueEntry]:
    """The runs that wait, the next one first; without the one that is under way."""
    return [_entry(run) for run in _waiting(_load())]


def add(jobs: Sequence[TrainingJob], sweep: str = "") -> list[Run]:
    """Put jobs at the queue's end, each as a run of its own: all of them, or none.

    Raises `OSError` on a full disk.
    """
    made: list[Run] = []
    try:
        for job in jobs:
            made.append(runs.create(job))
            mark = Mark(added=time.time(), sweep=sweep)
            write_json_atomic(made[-1].folder / MARK, mark.model_dump())
    except OSError:
        for run in made:
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    with _changing() as stored:
        # What waits without being in the order, after a crash, comes before what is new.
        earlier = [run.id for run in _waiting(stored) if run not in made]
        _set_order(stored, [*earlier, *(run.id for run in made)])
    return made


def move(run_id: str, to_index: int) -> None:
    """Put a waiting run at this place, counted from 0 in `entries()`; beyond the end is the end.

    Raises `UserError` when the run does not wait (any more).
    """
    with _changing() as stored:
        order = [run.id for run in _waiting(stored)]
        _require_waiting(run_id, order)
        order.remove(run_id)
        order.insert(max(0, to_index), run_id)
        _set_order(stored, order)


def remove(run_id: str) -> int:
    """Take a waiting run out of the queue, with its folder; returns the place that it had.

    The folder of the run that was removed last is kept aside, for `put_back`. Raises
    `UserError` when the run does not wait (any more).
    """
    with _changing() as stored:
        order = [run.id for run in _waiting(stored)]
        _require_waiting(run_id, order)
        index = order.index(run_id)
        aside = _aside()
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(exist_ok=True)
        replace(paths.runs_dir() / run_id, aside / run_id)
        order.remove(run_id)
        _set_order(stored, order)
    return index


def put_back(run_id: str, index: int) -> Run:
    """Undo `remove` of the run that was removed last. Raises `UserError` when it is gone."""
    with _changing() as stored:
        folder = paths.runs_dir() / run_id
        if not (_aside() / run_id / MARK).is_file():
            raise UserError("removed_for_good", "The run {run} is no longer there.", run=run_id)
        replace(_aside() / run_id, folder)
        order = [run.id for run in _waiting(stored) if run.id != run_id]
        order.insert(index, run_id)
        _set_order(stored, order)
    return Run(folder)


def is_paused() -> bool:
    """Whether no further run starts until `go_on`."""
    return _load().paused


def pause() -> None:
    """Let no further run start; the one under way is not touched."""
    with _changing() as stored:
        stored.paused = True


def go_on() -> None:
    """Take the pause away. Whoever works through the queue must ask `take_next` again."""
    with _changing() as stored:
        stored.paused = False


def notice() -> str:
    """What the person should know of the queue itself, until `dismiss_notice`; mostly ""."""
    return _load().notice


def dismiss_notice() -> None:
    with _changing() as stored:
        stored.notice = ""


# ----------------------------------------------------------------------- who works through it


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Held by whoever works through the queue, from the first run to the last.

    The lock is the system's: it ends with its process, however that ends. Raises `UserError`
    when another program holds it.
    """
    lock = _work_lock()
    try:
        lock.acquire(timeout=PROBE_SECONDS)
    except Timeout:
        raise UserError(
            "queue_is_worked_on",
            "Another program works through the queue already.",
            "What you add is done there, in its turn.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_worked_on() -> bool:
    """Whether this or another program works through the queue now."""
    lock = _work_lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def take_next() -> Run | None:
    """The run whose turn it is; None when the queue is empty or paused.

    For the holder of `working()` alone. The run keeps its place until `record_end`, so it is
    not lost when the program ends before it has begun.
    """
    with _changing() as stored:
        waiting = [] if stored.paused else _waiting(stored, with_taken=True)
        stored.taken = ""
        if waiting:
            stored.taken = waiting[0].id
            stored.order = [run.id for run in waiting]
    return waiting[0] if waiting else None


def admit(run: Run) -> bool:
    """Check a run before its worker starts. One that cannot start is ended with the reason.

    Seconds for large data: not for a GUI thread.
    """
    try:
        job = run.training_job()
    except UserError as error:
        refuse(run, error)
        return False
    try:
        preflight.check(job)
    except JobError as error:  # whose sentences say what is wrong without the names of fields
        reason = " ".join(problem.message for problem in error.problems)
        refuse(run, UserError("not_ready", "{reason}", field=error.field, reason=reason))
        return False
    except UserError as error:
        refuse(run, error)
        return False
    return True


def refuse(run: Run, error: UserError) -> None:
    """Write a run's beginning and its failure, as a worker would have; one that lives is let be."""
    try:
        held = run.worker_lock().acquire(timeout=PROBE_SECONDS)
    except Timeout:
        return
    with held:
        writer = JournalWriter(run.folder)
        try:
            writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=os.getpid()))
            writer.append(RunFailed.of(error))
        finally:
            writer.close()


def record_end(run: Run) -> None:
    """Say that a taken run is over; call it however it ended, before the next `take_next`.

    A run that the person stopped pauses the queue. One that never began is ended as failed, so
    that the queue does not take it again for ever.
    """
    if run.state() == "queued":
        refuse(
            run,
            UserError(
                "not_started",
                "The run could not be started.",
                "Start it again; what the worker said is in worker.log in the run's folder.",
            ),
        )
    stopped = isinstance(journal.last_event(run.folder), RunStopped)
    with _changing() as stored:
        stored.paused = stored.paused or stopped
        stored.taken = ""
        stored.order = [id for id in stored.order if id != run.id]


# ------------------------------------------------------------------------------------ on disk


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
    for folder in paths.runs_dir().iterdir():
        mark = read_mark(Run(folder))
        if mark is not None and mark.sweep == sweep:
            found.append((mark.added, folder))
    return [Run(folder) for _, folder in sorted(found)]


def _waiting(stored: _Stored, with_taken: bool = False) -> list[Run]:
    """The waiting runs in order; those that the order does not know at the end, oldest first."""
    marks = {}
    for folder in paths.runs_dir().iterdir():
        run = Run(folder)
        if (mark := read_mark(run)) is not None and not _has_begun(run):
            marks[run.id] = mark
    if not with_taken and stored.taken in marks and is_worked_on():
        del marks[stored.taken]
    known = [id for id in dict.fromkeys(stored.order) if id in marks]
    others = sorted(marks.keys() - set(known), key=lambda id: (marks[id].added, id))
    return [Run(paths.runs_dir() / id) for id in known + others]


def _has_begun(run: Run) -> bool:
    """Whether a worker has it, or had; quick, since this is asked of every run there ever was."""
    try:
        size = (run.folder / journal.FILE_NAME).stat().st_size
    except OSError:
        size = 0
    return size > FIRST_LINE_BYTES or run.state() != "queued"


def _set_order(stored: _Stored, order: list[str]) -> None:
    """The order of what waits; a run just taken keeps its place before them."""
    ahead = [stored.taken] if stored.taken and stored.taken not in order else []
    stored.order = ahead + order


def _entry(run: Run) -> QueueEntry:
    mark = read_mark(run)
    try:
        job = run.training_job()
    except UserError:
        job = None
    return QueueEntry(run, job, mark.sweep if mark is not None else "")


def _require_waiting(run_id: str, order: list[str]) -> None:
    if run_id not in order:
        raise UserError(
            "not_waiting",
            "The run {run} does not wait in the queue.",
            "It may have begun meanwhile, or been removed.",
            run=run_id,
        )


def _file() -> Path:
    return paths.home() / "queue.json"


def _aside() -> Path:
    """Where the run that was removed last lies until the next one is."""
    return paths.home() / "removed-from-queue"


def _guard() -> FileLock:
    return FileLock(paths.home() / "queue.json.lock")


def _work_lock() -> FileLock:
    # The window's thread that lets go of it need not be the one that took it.
    return FileLock(paths.home() / "queue.lock", thread_local=False)


def _load() -> _Stored:
    try:
        return _read()
    except ValidationError:
        with _changing() as stored:  # sets the file aside
            return stored


@contextlib.contextmanager
def _changing() -> Iterator[_Stored]:
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


def _read() -> _Stored:
    try:
        return _Stored.model_validate_json(_file().read_bytes())
    except FileNotFoundError:
        return _Stored()


def _set_aside() -> _Stored:
    """Keep a damaged file for whoever wants to look; what waits is known without it."""
    damaged = _file().with_name("queue.damaged.json")
    replace(_file(), damaged)
    return _Stored(
        notice=f"The order of the queue could not be read (the file is now {damaged}). Every "
        "run that waits is still there, the oldest first."
    )
