"""The queue: runs that wait for their turn, in an order that survives whatever ends the program.

A waiting run is a run like any other that has not begun (state "queued"), with a mark in its folder
that says it is waiting here (`queue_file`).

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

from filelock import Timeout

from training_backend import paths, runs
from training_backend.errors import JobError, UserError
from training_backend.files import replace, write_json_atomic
from training_backend.job import TrainingJob
from training_backend.lifecycle import journal, preflight
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import RunFailed, RunStarted, RunStopped
from training_backend.queueing import queue_file
from training_backend.runs import PROBE_SECONDS, Run


@dataclass(frozen=True)
class QueueEntry:
    """A run that waits. `job` is None where its file is damaged; `sweep` is "" for a single run."""

    run: Run
    job: TrainingJob | None
    sweep: str

    @property
    def name(self) -> str:
        return self.job.name if self.job is not None else self.run.id


# ------------------------------------------------------------------------- what the person does


def entries() -> list[QueueEntry]:
    """The runs that wait, the next one first; without the one that is under way."""
    return [_entry(run) for run in queue_file.waiting(queue_file.load())]


def add(jobs: Sequence[TrainingJob], sweep: str = "") -> list[Run]:
    """Put jobs at the queue's end, each as a run of its own: all of them, or none.

    Raises `OSError` on a full disk.
    """
    made: list[Run] = []
    try:
        for job in jobs:
            made.append(runs.create(job))
            mark = queue_file.Mark(added=time.time(), sweep=sweep)
            write_json_atomic(made[-1].folder / queue_file.MARK, mark.model_dump())
    except OSError:
        for run in made:
            shutil.rmtree(run.folder, ignore_errors=True)
        raise
    with queue_file.changing() as stored:
        # What waits without being in the order, after a crash, comes before what is new.
        earlier = [run.id for run in queue_file.waiting(stored) if run not in made]
        stored.set_waiting([*earlier, *(run.id for run in made)])
    return made


def move(run_id: str, to_index: int) -> None:
    """Put a waiting run at this place, counted from 0 in `entries()`; beyond the end is the end.

    Raises `UserError` when the run does not wait (any more).
    """
    with queue_file.changing() as stored:
        order = [run.id for run in queue_file.waiting(stored)]
        _require_waiting(run_id, order)
        order.remove(run_id)
        order.insert(max(0, to_index), run_id)
        stored.set_waiting(order)


def remove(run_id: str) -> int:
    """Take a waiting run out of the queue, with its folder; returns the place that it had.

    The folder of the run that was removed last is kept aside, for `put_back`. Raises
    `UserError` when the run does not wait (any more).
    """
    with queue_file.changing() as stored:
        order = [run.id for run in queue_file.waiting(stored)]
        _require_waiting(run_id, order)
        index = order.index(run_id)
        aside = queue_file.aside()
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(exist_ok=True)
        replace(paths.runs_dir() / run_id, aside / run_id)
        order.remove(run_id)
        stored.set_waiting(order)
    return index


def put_back(run_id: str, index: int) -> Run:
    """Undo `remove` of the run that was removed last. Raises `UserError` when it is gone."""
    with queue_file.changing() as stored:
        folder = paths.runs_dir() / run_id
        if not (queue_file.aside() / run_id / queue_file.MARK).is_file():
            raise UserError("removed_for_good", "The run {run} is no longer there.", run=run_id)
        replace(queue_file.aside() / run_id, folder)
        order = [run.id for run in queue_file.waiting(stored) if run.id != run_id]
        order.insert(index, run_id)
        stored.set_waiting(order)
    return Run(folder)


def is_paused() -> bool:
    """Whether no further run starts until `go_on`."""
    return queue_file.load().paused


def pause() -> None:
    """Let no further run start; the one under way is not touched."""
    with queue_file.changing() as stored:
        stored.paused = True


def go_on() -> None:
    """Take the pause away. Whoever works through the queue must ask `take_next` again."""
    with queue_file.changing() as stored:
        stored.paused = False


def notice() -> str:
    """What the person should know of the queue itself, until `dismiss_notice`; mostly ""."""
    return queue_file.load().notice


def dismiss_notice() -> None:
    with queue_file.changing() as stored:
        stored.notice = ""


# ----------------------------------------------------------------------- who works through it


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Held by whoever works through the queue, from the first run to the last.

    The lock is the system's: it ends with its process, however that ends. Raises `UserError`
    when another program holds it.
    """
    lock = queue_file.work_lock()
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


def take_next() -> Run | None:
    """The run whose turn it is; None when the queue is empty or paused.

    For the holder of `working()` alone. The run keeps its place until `record_end`, so it is
    not lost when the program ends before it has begun.
    """
    with queue_file.changing() as stored:
        waiting = [] if stored.paused else queue_file.waiting(stored, with_taken=True)
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
    with queue_file.changing() as stored:
        stored.paused = stored.paused or stopped
        stored.taken = ""
        stored.order = [id for id in stored.order if id != run.id]


def _entry(run: Run) -> QueueEntry:
    mark = queue_file.read_mark(run)
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
