"""The child process: takes one run, does its job, reports, ends.

Light at module level: the parent imports this module as its spawn target. Whatever goes
wrong becomes exactly one terminal event; a traceback goes to `worker.log` and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from filelock import Timeout

from training_backend import __version__, preferences, runs
from training_backend.computer import devices
from training_backend.computer.memory_sampler import SAMPLE_SECONDS, MemorySampler
from training_backend.errors import StopRequested, UserError
from training_backend.job import ExportJob, Job, ProbeJob, TrainingJob, VerifyJob
from training_backend.lifecycle import card_lock, checkpoints, extend, failures, halving, revised
from training_backend.lifecycle.checkpoints import Checkpoint
from training_backend.lifecycle.child_process import (
    choose_card,
    detach,
    numpy_without_threads,
    redirect_output,
    set_environment,
    stop_when_told,
)
from training_backend.lifecycle.journal import JournalWriter
from training_backend.paths import home
from training_backend.protocol import (
    TERMINAL_TYPES,
    CheckpointSaved,
    Event,
    Heartbeat,
    LogLine,
    Phase,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStopped,
    Terminal,
    WarningRaised,
)
from training_backend.runs import Run

STATE_CHANGE_WAIT_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
SIGN_SECONDS = 10.0
LOCK_WAIT_SECONDS = 10.0

_TOO_LATE = {
    "checkpoint": "save another checkpoint",
    "pause": "pause",
    "question": "answer a question that was asked",
}
_STATE_CHANGES = (RunStarted, PhaseChanged, CheckpointSaved, WarningRaised, *TERMINAL_TYPES)


class Reporter:
    """The one way out of a worker: the journal first, then the queue.

    Also carries what the person asks for, since both are the job's link to the outside.
    Safe to use from several threads.

    Args:
        extended: this attempt is to go on longer than the one before.
    """

    def __init__(self, run: Run, feed: Any, *, extended: bool = False) -> None:
        self.run = run
        self.extended = extended
        self._journal = JournalWriter(run.folder)
        self._feed = feed
        self._last = self._signed = time.monotonic()
        self.phase_now: Phase | None = None
        self._order = threading.Lock()
        self._listeners: list[Callable[[Event], None]] = []

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Tell it every event from now on, too; from whichever thread it comes."""
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        """Record an event and offer it to the window, which never holds up the training."""
        with self._order:
            if isinstance(event, PhaseChanged):
                self.phase_now = event.phase
            line = self._journal.append(event)
            self._last = time.monotonic()
            with contextlib.suppress(queue.Full):
                if isinstance(event, _STATE_CHANGES):
                    self._feed.put(line, timeout=STATE_CHANGE_WAIT_SECONDS)
                else:
                    self._feed.put_nowait(line)
        for listener in self._listeners:
            listener(event)

    def phase(self, phase: Phase, fraction: float | None = None, **known: Any) -> None:
        """Say what is being done; between phases a request to stop is obeyed."""
        self.emit(PhaseChanged(phase=phase, fraction=fraction, **known))
        self.check_stop()

    def warn(
        self,
        code: str,
        template: str,
        *,
        since: int | None = None,
        until: int | None = None,
        **params: Any,
    ) -> None:
        """Say something that does not end the run; of which steps, where it is of some."""
        message = template.format(since=since, until=until, **params)
        self.emit(
            WarningRaised(code=code, message=message, params=params, since=since, until=until)
        )

    def make_room(self) -> None:
        """There is room again on a disk that was full."""
        self._journal.make_room()

    def is_short_of_room(self) -> bool:
        """Whether the journal is written at the cost of its reserve."""
        return not self._journal.has_reserve()

    def log(self, message: str) -> None:
        self.emit(LogLine(message=message))

    def stop_requested(self) -> bool:
        return self.run.requested("stop")

    def check_stop(self) -> None:
        """Raises `StopRequested` when the person asked to stop."""
        if self.stop_requested():
            raise StopRequested

    def end_now(self, terminal: Terminal, exit_code: int) -> NoReturn:
        """End the process in the midst of its work, with this as its last word.

        For work that leaves nothing behind; the other threads say nothing any more.
        """
        self.run.clear_requests()
        self._order.acquire()
        self._journal.append(terminal)  # where its reader looks when the queue ends
        os._exit(exit_code)

    def sign_of_life(self) -> None:
        """Called by the work in the midst of something long; now and then it is told."""
        if time.monotonic() - self._signed >= SIGN_SECONDS:
            self._signed = time.monotonic()
            self.emit(Heartbeat(working=True))

    def quiet_seconds(self) -> float:
        return time.monotonic() - self._last

    def close(self) -> None:
        self._journal.close()


def main(feed: Any, pipe: Connection) -> None:
    """Spawn target. Waits for one run folder on `pipe`; an end of file there means: go."""
    # A window that was killed no longer empties the queue; without this we would hang at
    # exit on what it did not read, and hold on to the card.
    feed.cancel_join_thread()
    detach()
    choose_card()
    set_environment()
    idle_log = home() / "logs" / "idle-worker.log"
    idle_log.parent.mkdir(exist_ok=True)
    redirect_output(idle_log, append=False)
    if not pipe.poll(0):
        _import_ahead()
    try:
        run = Run(Path(pipe.recv()))
    except EOFError:
        return
    redirect_output(run.log_path, append=True)
    preferences.apply_to_environment()  # it may have been spawned long before
    sys.exit(_work(run, feed))


def _work(run: Run, feed: Any) -> int:
    """Do the run's job; returns the exit code: 0 done, 1 failed, 3 stopped."""
    try:
        held = run.worker_lock().acquire(timeout=LOCK_WAIT_SECONDS)
    except Timeout:
        print(f"Another worker has {run.id}; process {os.getpid()} leaves it alone.", flush=True)
        return 1
    with held, stop_when_told(lambda: run.requests.ask_to_stop("system")):
        run.claim()
        resume_from = checkpoints.newest_verified(run.checkpoints)
        known = run.events()
        before, now = _jobs(run, known)
        extended = before is not None and now is not None and extend.is_longer(before, now)
        reporter = Reporter(run, feed, extended=extended)
        reporter.emit(
            RunStarted(
                run_id=run.id,
                folder=str(run.folder),
                attempt=1 + runs.attempts(known),
                resumed_from_step=resume_from.step if resume_from else None,
                extended=extended,
                revision=run.revisions(),
                pid=os.getpid(),
                app_version=__version__,
            )
        )
        if known and isinstance(known[-1], RunStopped) and known[-1].reason == "sleep":
            minutes = max(1, round((time.time() - known[-1].time) / 60))
            reporter.log(f"The computer went to sleep {minutes:,} min ago; the run goes on.")
        if before is not None and now is not None:
            halved = halving.note(before, now, known, resume_from.step if resume_from else None)
            if halved is not None:
                reporter.emit(halved)
                known.append(halved)
            elif told := revised.sentence(before, now):
                reporter.log(told)
        ended = threading.Event()
        pulse = threading.Thread(target=_pulse, args=(reporter, ended), daemon=True)
        pulse.start()
        terminal = _outcome(run, reporter, resume_from)
        if now is not None and isinstance(terminal, RunFailed) and reporter.phase_now == "training":
            on_card = devices.this_device().kind != "cpu"
            due = halving.is_due(now, terminal.code, known, on_card=on_card)
            goes_on = due and not reporter.stop_requested()
            terminal = terminal.model_copy(update={"goes_on": goes_on})
        ended.set()
        pulse.join()
        with contextlib.suppress(OSError):  # a full disk; what matters more is the end
            _tell_left_over(run, reporter)
        run.clear_requests()
        reporter.emit(terminal)
        reporter.close()
    time.sleep(0.1)  # lets the queue's own thread hand over the last events
    match terminal:
        case RunCompleted():
            return 0
        case RunStopped():
            return 3
    return 1


def _jobs(run: Run, known: list[Event]) -> tuple[TrainingJob | None, TrainingJob | None]:
    """The job of the attempt before, where it was another one, and that of this one.

    None, too, for what is no training and what cannot be read, which comes out elsewhere.
    """
    try:
        return runs.job_before(run, known), run.training_job()
    except UserError:
        return None, None


def _outcome(run: Run, reporter: Reporter, resume_from: Checkpoint | None) -> Terminal:
    job: Job | None = None
    try:
        job = run.job()
        if not isinstance(job, ExportJob | VerifyJob):
            card_lock.hold(devices.this_device(), job.name, reporter)
        match job:
            case TrainingJob():
                from training_backend import train
                from training_backend.training import tensorboard_log

                tensorboard_log.follow(job, reporter, resume_from.step if resume_from else None)
                return train.run(job, reporter, resume_from)
            case ProbeJob():
                from training_backend import probe

                return probe.run(job, reporter)
            case ExportJob():
                numpy_without_threads()
                from training_backend.export import folder

                return folder.run(job, reporter)
            case VerifyJob():
                from training_backend.export import proof

                return proof.run(job, reporter)
    except StopRequested:
        newest = checkpoints.finished(run.checkpoints)
        return RunStopped(
            step=newest[-1].step if newest else None,
            checkpoint=str(newest[-1].folder) if newest else None,
            reason=run.requests.stop_reason(),
        )
    except UserError as error:
        return RunFailed.of(error)
    except Exception as error:
        traceback.print_exc()
        if isinstance(job, ExportJob):
            again = "Then start the same export again."
            return RunFailed.of(failures.explained(error, Path(job.out), again))
        return RunFailed.of(failures.explained(error, run.folder))


def _tell_left_over(run: Run, reporter: Reporter) -> None:
    """Say what was asked too late to be done."""
    for what in run.requests.pending():
        if what in _TOO_LATE:
            reporter.warn(
                "request_too_late", "The run ended before it could {what}.", what=_TOO_LATE[what]
            )


def _pulse(reporter: Reporter, ended: threading.Event) -> None:
    """Once a second, and at the end, what memory is used; a heartbeat where none can tell.

    The end counts, since a training of a few steps may fall between two samples.
    """
    sampler = MemorySampler()
    last = False
    while True:
        with contextlib.suppress(OSError):  # a full disk: the training itself will say so
            sample = sampler.read()
            if sample is not None:
                reporter.emit(sample)
            elif reporter.quiet_seconds() > HEARTBEAT_SECONDS:
                reporter.emit(Heartbeat())
        if last:
            return
        last = ended.wait(SAMPLE_SECONDS)


def _import_ahead() -> None:
    """Do the slow imports (5-9 s) before there is a run, so that its first step comes sooner."""
    import training_backend.train  # noqa: F401
