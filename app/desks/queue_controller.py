"""Works through the queue on behalf of the window: one run after the other.

`run_queue` keeps the queue on disk, where a terminal may change it too; it is
read and changed in threads here, one change after the other, in the order they were asked for.
Nothing starts before the person has said so since the window opened.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PySide6.QtCore import QObject, Signal

from app.background import run_in_background
from app.i18n import explain
from app.run_controller import RunController
from training_backend import paths
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.protocol import RunStopped, Terminal
from training_backend.queueing import queue_file, run_queue, sweeps
from training_backend.queueing.run_queue import QueueEntry
from training_backend.queueing.sweeps import Axis
from training_backend.runs import Run
from training_backend.summaries import run_times


@dataclass(frozen=True)
class QueueState:
    """What there is to see of the queue.

    Attributes:
        entries: the runs that wait, the next one first.
        seconds: how long each of them will take; None where that is not known.
        paused: no further run starts until the person says so.
        elsewhere: another program works through the queue.
        notice: what the person should know of the queue itself; mostly "".
    """

    entries: tuple[QueueEntry, ...] = ()
    seconds: tuple[float | None, ...] = ()
    paused: bool = False
    elsewhere: bool = False
    notice: str = ""


class QueueController(QObject):
    """The window's queue; `training` does the runs, one at a time."""

    changed = Signal()  # `state`, `is_going` or `undo_word` differ
    problem = Signal(str)  # why something could not be done; "" when the next thing was
    beginning = Signal()  # the next run is about to take the memory
    drained = Signal()  # the last run of those that waited has ended

    def __init__(self, training: RunController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._training = training
        self._work = _Work()
        self._closed = False
        self._going = False
        self._taking = False
        self._taken: Run | None = None
        self._stopped_by_hand = False
        self._undo: tuple[str, Callable[[], object]] | None = None
        self._asked: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self._changing = False
        self.state = QueueState()
        training.run_ended.connect(self._on_run_ended)
        training.refused.connect(self._on_refused)

    # ------------------------------------------------------------------ what the person does

    def refresh(self, then: Callable[[], None] | None = None) -> None:
        """Read the queue again; a terminal may have changed it."""
        if then is not None:
            self._do(_nothing, lambda _: then())
        elif not self._asked:
            self._do(_nothing)

    def add(self, jobs: Sequence[TrainingJob]) -> None:
        """Put jobs at the end. While a run is under way they follow it by themselves."""
        self._add(lambda: run_queue.add(jobs))

    def add_sweep(self, job: TrainingJob, axes: Sequence[Axis]) -> None:
        """As `add`, with the runs of a sweep; they start at once when nothing else is there."""
        self._add(lambda: sweeps.start(job, axes))
        if not self._training.is_busy() and not self.state.entries:
            self.start()

    def _add(self, add: Callable[[], object]) -> None:
        def change() -> None:
            if not run_queue.entries():  # a pause was about those that waited then
                run_queue.go_on()
            add()

        def added(_: object) -> None:
            if self._training.is_busy() and not self.state.paused:
                self._set_going(True)

        self._undo = None
        self._ask(change, added)

    def start(self) -> None:
        """Begin with the first run that waits, or, while one is under way, go on after it."""
        self._stopped_by_hand = False
        self._set_going(True)
        self._ask(run_queue.go_on, lambda _: self._next())

    def pause(self) -> None:
        """Let no further run start; the one under way goes on to its end."""
        self._set_going(False)
        self._ask(run_queue.pause)

    def move(self, run_id: str, to_index: int) -> None:
        """Put a waiting run at another place; can be undone."""
        before = self._place_of(run_id)
        if before is None or before == to_index:
            return
        self._undo = (self.tr("Undo move"), partial(run_queue.move, run_id, before))
        self._ask(lambda: run_queue.move(run_id, to_index))

    def remove(self, run_id: str) -> None:
        """Take a waiting run out; can be undone."""

        def removed(index: int) -> None:
            self._undo = (self.tr("Undo remove"), partial(run_queue.put_back, run_id, index))
            self.changed.emit()

        self._ask(lambda: run_queue.remove(run_id), removed)

    def undo(self) -> None:
        """Take back the last `move` or `remove`."""
        if self._undo is not None:
            (_, change), self._undo = self._undo, None
            self._ask(change)

    def dismiss_notice(self) -> None:
        self._ask(run_queue.dismiss_notice)

    def is_going(self) -> bool:
        """Whether the next run starts by itself as soon as the memory is free."""
        return self._going

    def is_own(self, run: Run) -> bool:
        """Whether the queue began this run, which is still under way."""
        return run == self._taken

    def was_stopped_by_hand(self) -> bool:
        """Whether the pause comes from the person stopping a run."""
        return self._stopped_by_hand and self.state.paused

    def undo_word(self) -> str:
        """What `undo` would do; "" when there is nothing."""
        return self._undo[0] if self._undo is not None else ""

    def shutdown(self) -> None:
        """Let another program work through the queue; a run under way carries on."""
        self._closed = True
        self._going = False
        self._asked.clear()
        self._work.end()

    # ------------------------------------------------------------------- one run after the other

    def _next(self) -> None:
        """Start what is next, unless a run is under way: it is asked again at that one's end."""
        if not self._going or self._taking or self._training.is_busy():
            return
        self._taking = True
        run_in_background(self._work.take, self._on_taken, self._on_not_taken, self)

    def _on_taken(self, run: Run | None) -> None:
        self._taking = False
        if run is None:
            self._set_going(False)
            self.refresh()
            self.drained.emit()
        elif self._training.is_busy() or not self._going:  # meanwhile; it keeps its place
            self._do(self._work.end)
        else:
            self._taken = run
            self.beginning.emit()
            self._training.resume(run)
            self.refresh()

    def _on_not_taken(self, error: Exception) -> None:
        self._taking = False
        self._set_going(False)
        self.problem.emit(explain(_plain(error)))
        self.refresh()

    def _on_run_ended(self, run: Run | None, terminal: Terminal | None) -> None:
        by_hand = self._training.stop_was_asked()
        reason = terminal.reason if isinstance(terminal, RunStopped) else "asked"
        if reason == "sleep" and not by_hand:
            return  # it goes on when the computer wakes; nothing comes before it
        if (by_hand or reason == "system") and (self._going or self.state.entries):
            self._stopped_by_hand = by_hand
            self._going = False
            self._do(run_queue.pause)
        taken, self._taken = self._taken, None
        if run is not None and run == taken:
            self._do(lambda: run_queue.record_end(run), self._after_run)
        else:
            self._next()

    def _on_refused(self, error: UserError) -> None:
        if self._taken is None or self._training.is_busy():
            return  # of something else that was asked for
        run, self._taken = self._taken, None

        def give_up() -> None:
            run_queue.refuse(run, error)
            run_queue.record_end(run)

        self._do(give_up, self._after_run)

    def _after_run(self, _: object) -> None:
        if self.state.paused:
            self._set_going(False)
            self._do(self._work.end)
        self._next()

    # --------------------------------------------------------------------------- in the background

    def _ask(self, change: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """As `_do`, for what the person asks: what could not be done before is past."""
        self.problem.emit("")
        self._do(change, then)

    def _do(self, change: Callable[[], Any], then: Callable[[Any], None] | None = None) -> None:
        """Change the queue in a thread, read it, then call `then` with what the change gave."""
        if not self._closed:
            self._asked.append((change, then or (lambda _: None)))
            self._work_off()

    def _work_off(self) -> None:
        if self._changing or not self._asked:
            return
        self._changing = True
        change, then = self._asked.popleft()

        def work() -> tuple[Any, QueueState]:
            return change(), self._work.read()

        def done(found: tuple[Any, QueueState]) -> None:
            result, state = found
            self._changing = False
            self._show(state)
            then(result)
            self._work_off()

        def failed(error: Exception) -> None:
            self._changing = False
            self.problem.emit(explain(_plain(error)))
            if change is not _nothing:
                self.refresh()
            self._work_off()

        run_in_background(work, done, failed, self)

    def _show(self, state: QueueState) -> None:
        if state != self.state:
            self.state = state
            self.changed.emit()

    def _set_going(self, going: bool) -> None:
        if going != self._going:
            self._going = going
            self.changed.emit()

    def _place_of(self, run_id: str) -> int | None:
        ids = [entry.run.id for entry in self.state.entries]
        return ids.index(run_id) if run_id in ids else None


def _plain(error: Exception) -> Exception:
    """A disk that cannot be written, in a sentence."""
    if not isinstance(error, OSError):
        return error
    return UserError(
        "queue_not_written",
        "The queue cannot be changed: {reason}.",
        "Look whether there is room on the disk, and whether {home} may be written.",
        reason=error.strerror or error,
        home=paths.home(),
    )


def _nothing() -> None:
    """The change of who only wants to look."""


class _Work:
    """Holds the queue's lock from the first run to the last. For threads."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        self._holds = False
        self._guard = threading.Lock()

    def take(self) -> Run | None:
        """The next run that can start; those that cannot are ended with the reason.

        None, and the lock let go of, when nothing waits or the queue is paused. Raises
        `UserError` when another program works through the queue.
        """
        with self._guard:
            if not self._holds:
                self._held.enter_context(run_queue.working())
                self._holds = True
            while (run := run_queue.take_next()) is not None:
                if run_queue.admit(run):
                    return run
                run_queue.record_end(run)
            self._let_go()
            return None

    def end(self) -> None:
        with self._guard:
            self._let_go()

    def read(self) -> QueueState:
        entries = tuple(run_queue.entries())
        return QueueState(
            entries,
            tuple(run_times.expected_seconds([entry.job for entry in entries])),
            run_queue.is_paused(),
            not self._holds and queue_file.is_worked_on(),
            run_queue.notice(),
        )

    def _let_go(self) -> None:
        self._held.close()
        self._holds = False
