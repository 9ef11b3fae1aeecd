"""Starts, follows, stops and re-attaches a worker on behalf of the window.

One thread a run does everything that may block: the checks before the start, making the run's
folder, spawning the worker, and waiting for what it says. What it reads reaches the GUI thread
as queued signals, one an event, never more than a few at a time, so that a long history cannot
hold up the window.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from PySide6.QtCore import QObject, Qt, QTimer, Signal, SignalInstance, Slot

from training_backend import runs
from training_backend.errors import UserError
from training_backend.job import Job, TrainingJob
from training_backend.lifecycle import journal, launch, preflight, retrying
from training_backend.lifecycle.run_requests import Request
from training_backend.protocol import TERMINAL_TYPES, Event, StopReason, Terminal
from training_backend.runs import Run

# A step on a slow computer may take a minute, and saving comes on top.
STOP_PATIENCE_SECONDS = 180
EVENTS_UNDER_WAY = 64
LEAVE_SECONDS = 3.0

logger = logging.getLogger(__name__)

Opening = Callable[[], tuple[Run, Iterator[Event | None]]]


class RunController(QObject):
    """The window's link to one worker at a time.

    Args:
        lender: takes the worker that this one has warmed, in the place of one of its own.
    """

    event_arrived = Signal(object)  # Event
    run_opened = Signal(object)  # Run
    run_ended = Signal(object, object)  # Run, the terminal event or None
    refused = Signal(object)  # UserError

    _read_opened = Signal(object)
    _read_event = Signal(object)
    _read_ended = Signal(object)
    _read_refused = Signal(object)

    def __init__(self, parent: QObject | None = None, lender: RunController | None = None) -> None:
        super().__init__(parent)
        self._lender = lender or self
        self._warm: launch.Worker | None = None
        self._warm_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._run: Run | None = None
        self._leaving = threading.Event()
        self._room = threading.Semaphore(EVENTS_UNDER_WAY)
        self._stop_asked = False
        self._patience = QTimer(self, singleShot=True, interval=STOP_PATIENCE_SECONDS * 1000)
        self._patience.timeout.connect(self.end)
        queued = Qt.ConnectionType.QueuedConnection
        self._read_opened.connect(self._on_opened, queued)
        self._read_event.connect(self._on_event, queued)
        self._read_ended.connect(self._on_ended, queued)
        self._read_refused.connect(self._on_refused, queued)

    # ------------------------------------------------------------------ what the window asks

    def warm_up(self) -> None:
        """Spawn a worker ahead of time, so that the first step of a run comes sooner."""
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def start(self, job: Job) -> None:
        """Check the job, make its run and begin. Ends in `run_opened` or `refused`."""

        def opening() -> tuple[Run, Iterator[Event | None]]:
            preflight.check(job)
            run = runs.create(job)
            return run, self._begin(run)

        self._follow_in_thread(opening)

    def resume(self, run: Run) -> None:
        """Begin with a run that waits, go on with an ended one from its newest checkpoint, or
        follow a live one. As `start`.
        """

        def opening() -> tuple[Run, Iterator[Event | None]]:
            if run.is_alive():  # another window, or the terminal, was faster
                return run, launch.tail(run)
            return run, self._begin(run)

        self._follow_in_thread(opening)

    def extend(self, run: Run, revised: TrainingJob) -> None:
        """Go on with an ended run by another job: a longer one, or one that needs less memory.

        As `start`.
        """

        def opening() -> tuple[Run, Iterator[Event | None]]:
            preflight.check(revised, run.folder)
            runs.revise(run, revised)
            return run, self._begin(run)

        self._follow_in_thread(opening)

    def attach(self, run: Run) -> None:
        """Follow a live run that an earlier window started."""
        self._follow_in_thread(lambda: (run, launch.tail(run)))

    def stop(self) -> None:
        """Ask the run to save and stop; when it does not obey, end it. Asking twice is once."""
        if self._run is None or self._stop_asked:
            return
        self._stop_asked = True
        self._run.request("stop")
        self._patience.start()

    def stop_for(self, reason: StopReason) -> None:
        """Have the run save and stop for the computer; asked for by the person it is `stop`."""
        if self._run is not None:
            with contextlib.suppress(OSError):  # a full disk, a folder that is gone
                self._run.requests.ask_to_stop(reason)

    def request(self, what: Request) -> None:
        """Ask the run for a checkpoint or a pause; it obeys at the end of its step."""
        self._ask(lambda run: run.request(what))

    def go_on(self) -> None:
        """Let a paused run train again."""
        self._ask(lambda run: run.requests.done("pause"))

    def ask_model(self, prompt: str | None) -> None:
        """Have the model in training answer this, or its job's own questions."""
        self._ask(lambda run: run.requests.ask_question(prompt))

    def _ask(self, leave: Callable[[Run], None]) -> None:
        if self._run is None:
            return
        try:
            leave(self._run)
        except UserError as error:
            self.refused.emit(error)
        except OSError as error:
            self.refused.emit(
                UserError("system_error", "The system refused: {reason}.", reason=error)
            )

    def end(self, still_seconds: float | None = None) -> None:
        """End the run as it is; what it learned since its newest checkpoint is lost.

        Args:
            still_seconds: for how long it has stood still, if that is why.
        """
        self._kill(still_seconds)

    def stop_was_asked(self) -> bool:
        """Whether the person stopped the newest run, which may have ended since."""
        return self._stop_asked

    def active(self) -> Run | None:
        """The run being followed."""
        return self._run

    def is_busy(self) -> bool:
        """Whether a run is being followed or prepared."""
        return self._busy

    def shutdown(self) -> None:
        """Let go of everything; a worker that trains carries on without the window."""
        self._leaving.set()
        self._patience.stop()
        with self._warm_lock:
            if self._warm is not None:
                self._warm.dismiss()
                self._warm = None
        if self._thread is not None:
            self._thread.join(LEAVE_SECONDS)

    # -------------------------------------------------------------------- in the run's thread

    def _follow_in_thread(self, opening: Opening) -> None:
        if self._busy:
            self.refused.emit(
                UserError(
                    "busy", "Another run is under way.", "Stop it first, or wait until it ends."
                )
            )
            return
        self._busy = True
        self._thread = threading.Thread(
            target=self._follow, args=(opening,), name="run-reader", daemon=True
        )
        self._thread.start()

    def _follow(self, opening: Opening) -> None:
        try:
            run, events = opening()
        except UserError as error:
            self._tell(self._read_refused, error)
            return
        except Exception as error:
            logger.exception("a run could not be started")
            self._tell(
                self._read_refused,
                UserError("cannot_start", "The run cannot start: {reason}.", reason=str(error)),
            )
            return
        self._tell(self._read_opened, run)
        terminal: Event | None = None
        try:
            terminal = self._hand_on(run, retrying.follow(run, events, self._begin))
        except Exception:  # a disk that cannot be read; the run itself may well go on
            logger.exception("%s can no longer be followed", run.id)
        self._tell(self._read_ended, terminal)

    def _hand_on(self, run: Run, events: Iterator[Event | None]) -> Event | None:
        last: Event | None = None
        for event in events:
            if self._leaving.is_set():
                return None
            if event is not None:
                last = event
                self._tell(self._read_event, event)
        return last if isinstance(last, TERMINAL_TYPES) else journal.last_event(run.folder)

    def _tell(self, signal: SignalInstance, payload: object) -> None:
        """Hand something to the GUI thread, when it has taken in what came before."""
        while not self._leaving.is_set():
            if self._room.acquire(timeout=0.25):
                with contextlib.suppress(RuntimeError):  # the window is gone
                    signal.emit(payload)
                return

    def _begin(self, run: Run) -> Iterator[Event | None]:
        """Hand the run to the warm worker, or to a fresh one when there is none alive."""
        worker = self._lender.take_warm()
        if worker is not None:
            with contextlib.suppress(OSError):
                worker.start(run)
                return worker.follow(run)
        worker = launch.Worker()
        worker.start(run)
        return worker.follow(run)

    def _warm_up(self) -> None:
        with self._warm_lock:
            if self._leaving.is_set() or (self._warm is not None and self._warm.is_ready()):
                return
            if self._warm is not None:
                self._warm.dismiss()
            try:
                self._warm = launch.Worker()
            except OSError:
                logger.exception("no worker could be started ahead of time")

    def take_warm(self) -> launch.Worker | None:
        """The worker spawned ahead of time, if it is still of use; it is the caller's now."""
        with self._warm_lock:
            worker, self._warm = self._warm, None
        if worker is None or worker.is_ready():
            return worker
        worker.dismiss()
        return None

    # ---------------------------------------------------------------------- in the GUI thread

    @Slot(object)
    def _on_opened(self, run: Run) -> None:
        self._room.release()
        self._run = run
        self._stop_asked = False
        self.run_opened.emit(run)

    @Slot(object)
    def _on_event(self, event: Event) -> None:
        self._room.release()
        self.event_arrived.emit(event)

    @Slot(object)
    def _on_ended(self, terminal: Terminal | None) -> None:
        self._room.release()
        run, self._run, self._busy = self._run, None, False
        self._patience.stop()
        self.run_ended.emit(run, terminal)

    @Slot(object)
    def _on_refused(self, error: UserError) -> None:
        self._room.release()
        self._busy = False
        self.refused.emit(error)

    def _kill(self, still_seconds: float | None = None) -> None:
        if self._run is not None:
            threading.Thread(
                target=launch.kill, args=(self._run, still_seconds), daemon=True
            ).start()
