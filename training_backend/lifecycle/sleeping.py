"""Follows a run at a terminal through the computer's sleeps: saved before, going on after.

The window does the same by its own means (`app/desktop/sleeping.py`). Light.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from training_backend.computer.sleep_watch import Change, SleepWatch, card_keeps_memory
from training_backend.lifecycle.launch import kill
from training_backend.protocol import Event, RunFailed, RunInterrupted, RunStopped
from training_backend.runs import Run

LOOK_SECONDS = 0.25
GO_ON_AFTER_SECONDS = 2.0  # drivers and drives on the network need a moment
# By a clock that stands still in a sleep: for who never hears of the waking.
SURELY_AWAKE_AFTER_SECONDS = 60.0

Events = Iterator[Event | None]


def ended_by_sleep(terminal: Event | None) -> bool:
    """Whether a run that was asked to save for a sleep did so, or did not survive the sleep."""
    match terminal:
        case RunStopped(reason="sleep") | RunInterrupted():
            return True
        case RunFailed(code="card_lost" | "card_error"):
            return True
    return False


def through_sleeps(run: Run, begin: Callable[[], Events]) -> Events:
    """All events of a run over its sleeps, and None now and then, as `Worker.follow`.

    What the person stops stays stopped, also while the computer is about to sleep.

    Args:
        begin: hands the run to a worker, at the start and after each sleep.
    """
    heard: SimpleQueue[Change] = SimpleQueue()
    watch = SleepWatch(heard.put)
    watch.begin()
    try:
        while True:
            watch.hold()
            asked = False
            woke = True
            last: Event | None = None
            for event in begin():
                while (change := _next(heard)) is not None:
                    asked = _act(run, change, asked)
                    woke = woke if change == "shutdown" else change == "wake"
                last = event or last
                yield event
            if not asked or not ended_by_sleep(last):
                return
            watch.let_go()
            until = time.monotonic() + SURELY_AWAKE_AFTER_SECONDS
            while not woke and time.monotonic() < until:
                woke = _next(heard) == "wake"
                yield None
                time.sleep(LOOK_SECONDS)
            time.sleep(GO_ON_AFTER_SECONDS)
            if run.requested("stop"):  # by the person, since the worker has ended
                return
    finally:
        watch.end()


def _act(run: Run, change: Change, asked: bool) -> bool:
    """Do what a change asks for; whether the run has been asked to save for a sleep."""
    match change:
        case "sleep" if not run.requested("stop") and not run.requested("pause"):
            run.requests.ask_to_stop("sleep")
            return True
        case "wake" if asked and not card_keeps_memory():
            kill(run)  # what the step under way computes is worth nothing now
        case "shutdown":
            run.requests.ask_to_stop("system")
    return asked


def _next(heard: SimpleQueue[Change]) -> Change | None:
    try:
        return heard.get_nowait()
    except Empty:
        return None
