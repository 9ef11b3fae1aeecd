"""Runs a job in a worker and shows what it says, for a person at a terminal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

from training_backend.commands.console import Report
from training_backend.computer.stay_awake import StayAwake
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle import evidence, failures, journal, retrying, sleeping
from training_backend.lifecycle.launch import Worker, kill
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStopped,
)
from training_backend.runs import Run
from training_backend.watching import standstill

_WAY_OUT = (
    "It may go on by itself. Ctrl+C twice ends it; what was saved before stays, and `resume` goes "
    "on from there."
)


def follow(run: Run, shown_by: Report, on_stop: Callable[[], None] | None = None) -> Event:
    """Do a run to its end; returns its terminal event.

    The computer stays awake meanwhile, where it can. Ctrl+C saves and stops, and calls `on_stop`;
    a second one kills. Raises `UserError` when another process works on the run.
    """
    known = journal.last_event(run.folder)
    shown = -1 if known is None else known.seq  # of a resumed run, what it said before
    presses = obeyed = 0

    def on_ctrl_c(*_: object) -> None:  # an exception could lose the event just being shown
        nonlocal presses
        presses += 1

    terminal: Event | None = None
    watch, notices = standstill.Watch(), standstill.Notices()
    still: standstill.Standstill | None = None
    looked = time.monotonic()
    awake = StayAwake()
    awake.begin()
    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        with shown_by as report:
            for event in _attempts(run):
                if event is not None:
                    watch.take(event)
                now = time.monotonic()
                still, looked = watch.passed(now - looked), now
                match notices.of(still):
                    case standstill.Standstill() as found:
                        report.say(f"Note: {standstill.sentence(found)} {_WAY_OUT}")
                    case "moves":
                        report.say("It goes on.")
                if event is not None and event.seq > shown:
                    shown = event.seq
                    report.show(event)
                    terminal = event if isinstance(event, TERMINAL_TYPES) else None
                if presses > obeyed:
                    if obeyed:
                        kill(run, None if still is None else still.seconds)
                    else:
                        run.request("stop")
                        stopping = "Saving and stopping" if _is_training(run) else "Stopping"
                        report.say(f"{stopping}. Ctrl+C again ends it at once.")
                        if on_stop is not None:
                            on_stop()
                    obeyed += 1
            if isinstance(terminal, RunFailed | RunInterrupted):
                _tell_what_is_known(run, report)
    finally:
        signal.signal(signal.SIGINT, before)
        awake.end()
    if terminal is None:
        raise UserError(
            "run_is_taken", "Another process is working on run {run}.",
            "Wait until it ends, or ask it to stop.", run=run.id,
        )  # fmt: skip
    return terminal


def _tell_what_is_known(run: Run, report: Report) -> None:
    """Of a training that failed, and how to go on with it."""
    if not _is_training(run):
        return
    found = evidence.gather(run)
    for line in evidence.lines(found):
        report.say(f"  {line}")
    if found.log:
        report.say(f"  What its worker wrote: {run.log_path}")
    if found.code in failures.OUT_OF_MEMORY:
        report.say(f"What to change, and go on:  python -m training_backend fit {run.id}")
    if found.saved_step is not None:
        report.say(f"Go on with:  python -m training_backend resume {run.id}")
    report.say(
        f"A report to hand on, with nothing private in it:  python -m training_backend report "
        f"{run.id} --out report.zip"
    )


def _is_training(run: Run) -> bool:
    try:
        return isinstance(run.job(), TrainingJob)
    except UserError:  # of a folder that is gone nothing more is known
        return False


def _attempts(run: Run) -> Iterator[Event | None]:
    """All that it takes; an export, which could not go on, carries on after a sleep as it is."""

    def begin() -> Iterator[Event | None]:
        return retrying.follow(run, _attempt(run), _attempt)

    return sleeping.through_sleeps(run, begin) if _is_training(run) else begin()


def _attempt(run: Run) -> Iterator[Event | None]:
    """Have a worker do the run, until its process has ended."""
    worker = Worker()
    worker.start(run)
    yield from worker.follow(run)
    worker.process.join()


def exit_code(terminal: Event | None) -> int:
    """0 done, 1 failed, 3 stopped on request."""
    match terminal:
        case RunCompleted():
            return 0
        case RunStopped():
            return 3
    return 1
