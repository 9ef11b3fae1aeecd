"""Tells when a run that is alive does not move: its worker is silent, or its work stands still.

A worker says once a second what memory it uses, whatever else it does; when that stops, nothing of
it runs any more. Its work says something at every step and, where one takes long, in between
(`Heartbeat.working`); when only that stops, the work waits for something that does not come. A run
may go on by itself: whoever follows it is told, and decides. Light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import psutil

from training_backend.lifecycle.pauses import STANDING
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    Heartbeat,
    LogLine,
    MemorySampled,
    MetricsLogged,
    Phase,
    PhaseChanged,
    RunStarted,
)
from training_backend.runs import Run

SILENT_SECONDS = 60.0
# Importing or loading may keep Python from doing anything else for a while.
SILENT_BEFORE_TRAINING_SECONDS = 180.0
STILL_SECONDS = 300.0
STILL_BEFORE_STEP_SECONDS = 1_800.0  # compiling, a first step on a slow processor, loading
TIMES_THE_LONGEST = 10.0
# Of a tick that took longer, the rest was sleep: the computer's, or that of whoever asks.
MOST_SECONDS_A_TICK = 15.0
_LOOK_SECONDS = 0.5

Kind = Literal["silent", "still"]
Doing = Literal["halted", "waits_for_disk", "computes", "waits", "unknown"]


@dataclass(frozen=True)
class Standstill:
    """What is known of a run that does not move.

    Attributes:
        kind: `silent`: its process does nothing at all; `still`: its work does not go on.
        seconds: since its last word, or since its work's last sign.
        usual_seconds: the longest between two signs of this training so far, None before them.
        step: the last that it reported.
    """

    kind: Kind
    seconds: float
    usual_seconds: float | None = None
    step: int | None = None


class Watch:
    """Is told the events of a run that is followed, and how much time passes.

    Time counts as it passes for the one who asks, so that a computer that slept, or an hour-old
    journal that is read just now, is no standstill.
    """

    def __init__(self) -> None:
        self._silent = self._still = 0.0
        self._phase: Phase | None = None
        self._sign_at: float | None = None  # seconds into the attempt, of the training's last sign
        self._longest: float | None = None
        self._step: int | None = None

    def take(self, event: Event) -> None:
        self._silent = 0.0
        if isinstance(event, (RunStarted, *TERMINAL_TYPES)):  # another attempt may follow
            self._phase = self._sign_at = self._longest = self._step = None
        if isinstance(event, MemorySampled | LogLine):
            return
        if isinstance(event, Heartbeat) and not event.working:
            return
        self._still = 0.0
        if isinstance(event, PhaseChanged):
            self._phase, self._sign_at = event.phase, None
        if isinstance(event, MetricsLogged):
            self._step = event.step
        if self._phase == "training":
            if self._sign_at is not None:
                took = event.elapsed - self._sign_at
                self._longest = max(self._longest or 0.0, took)
            self._sign_at = event.elapsed

    def passed(self, seconds: float) -> Standstill | None:
        """So much time went by since the last call; tells whether the run moves."""
        tick = min(seconds, MOST_SECONDS_A_TICK)
        self._silent += tick
        self._still += 0.0 if self._phase in STANDING else tick
        # On a full disk the worker can say nothing; that it waits is known.
        if self._phase != "no_room" and self._silent >= self._patience_with_silence():
            return Standstill("silent", self._silent, self._longest, self._step)
        if self._still >= self._patience_with_work():
            return Standstill("still", self._still, self._longest, self._step)
        return None

    def _patience_with_silence(self) -> float:
        return SILENT_SECONDS if self._phase == "training" else SILENT_BEFORE_TRAINING_SECONDS

    def _patience_with_work(self) -> float:
        if self._phase != "training" or self._longest is None:
            return STILL_BEFORE_STEP_SECONDS
        return max(STILL_SECONDS, TIMES_THE_LONGEST * self._longest)


class Notices:
    """What is worth saying of a run's standing still: when it begins, doubles, and ends."""

    def __init__(self) -> None:
        self._said: float | None = None

    def of(self, found: Standstill | None) -> Standstill | Literal["moves"] | None:
        """None where there is nothing new."""
        if found is None:
            said, self._said = self._said, None
            return "moves" if said is not None else None
        if self._said is not None and found.seconds < 2 * self._said:
            return None
        self._said = found.seconds
        return found


def doing(run: Run) -> Doing:
    """What the worker's process does, as the system sees it; takes half a second."""
    process = run.worker()
    if process is None:
        return "unknown"
    try:
        busy = process.cpu_percent(_LOOK_SECONDS) > 20
        match process.status():
            case psutil.STATUS_RUNNING:  # or would be, if others let it
                return "computes"
            case psutil.STATUS_STOPPED | psutil.STATUS_TRACING_STOP:
                return "halted"
            case psutil.STATUS_DISK_SLEEP:
                return "waits_for_disk"
    except psutil.Error:
        return "unknown"
    return "computes" if busy else "waits"


def sentence(found: Standstill) -> str:
    """For a terminal."""
    time = f"{found.seconds / 60:.0f} min" if found.seconds >= 120 else f"{found.seconds:.0f} s"
    where = f" after step {found.step}" if found.step is not None else ""
    if found.kind == "silent":
        return f"The worker has not answered for {time}{where}."
    usual = ""
    if found.usual_seconds is not None:
        usual = f" (so far no step took longer than {max(1, round(found.usual_seconds))} s)"
    return f"The training has stood still for {time}{where}{usual}."
