"""A transfer to or from the Hub: how far it is, when to stop, how patient to be. Light."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from training_backend.errors import StopRequested, UserError
from training_backend.hub.hub_errors import is_line_error, no_connection

RATE_SECONDS = 5.0  # the rate is that of so many seconds
_SETTLED_SECONDS = 0.5  # before, it would jump about
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between tries; bytes that get through set them back
SILENCE_SECONDS = 10.0
MAX_WAIT_SECONDS = 120.0  # of what a Retry-After asks for
SWITCH_SECONDS = 1.0  # so often it is looked whether to work offline
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
PASSING = ("no_connection", "hub_unavailable", "hub_busy")  # codes of what may be over soon

Phase = Literal["asking", "waiting", "downloading", "uploading", "checking", "done"]
T = TypeVar("T")


@dataclass(frozen=True)
class TransferProgress:
    """How far it is, over all files. The rate and the time left are None at first.

    `phase` "waiting": another process downloads the same model, or the line is gone.
    """

    phase: Phase
    done_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    file: str = ""


class Meter:
    """Counts the bytes of one transfer."""

    def __init__(self) -> None:
        self.done = 0
        self.total: int | None = None
        self.file = ""
        self._seen: list[tuple[float, int]] = []  # when so many bytes had come

    def count(self, arrived: int) -> None:
        """So many bytes have gone over the line just now."""
        self.done += arrived
        now = time.monotonic()
        self._seen.append((now, self.done))
        while now - self._seen[0][0] > RATE_SECONDS and len(self._seen) > 2:
            del self._seen[0]

    def start_anew(self, done: int) -> None:
        """From here on, with so many bytes; what was before says nothing of the rate to come."""
        self.done = done
        self._seen = [(time.monotonic(), done)]

    def at(self, phase: Phase) -> TransferProgress:
        rate = self._rate() if phase in ("downloading", "uploading") else None
        left = (self.total - self.done) / rate if rate and self.total is not None else None
        return TransferProgress(phase, self.done, self.total, rate, left, self.file)

    def _rate(self) -> float | None:
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end - start > _SETTLED_SECONDS else None


OnProgress = Callable[[TransferProgress], None]
ShouldStop = Callable[[], bool]


class Transfer:
    """One download or upload: says how far it is, obeys, and is patient with the line.

    Args:
        on_progress: called in this thread, for every piece that gets through.
        should_stop: asked as often.
        require_online: raises `UserError` while “work offline” is on.
        pauses: seconds between tries.
    """

    def __init__(
        self,
        on_progress: OnProgress | None,
        should_stop: ShouldStop | None,
        require_online: Callable[[], None],
        pauses: Sequence[float],
    ) -> None:
        self.meter = Meter()
        self._tell = on_progress or (lambda _: None)
        self._should_stop = should_stop or (lambda: False)
        self._require_online = require_online
        self._pauses = pauses
        self._switch_seen = 0.0

    def report(self, phase: Phase) -> None:
        """Says how far it is. Raises `StopRequested`, or `UserError` for the switch."""
        if self._should_stop():
            raise StopRequested
        if time.monotonic() - self._switch_seen >= SWITCH_SECONDS:
            self._switch_seen = time.monotonic()
            self._require_online()
        self._tell(self.meter.at(phase))

    def patiently(self, action: Callable[[], T]) -> T:
        """Does it, again and again while the line or the Hub is only gone for a while."""
        failures = 0
        before = self.meter.done
        while True:
            pause = 0.0
            try:
                return action()
            except Refused as refusal:
                if refusal.status not in _TEMPORARY:
                    raise refusal.error from None
                error, pause = refusal.error, refusal.retry_after
            except UserError as refusal:
                if refusal.code not in PASSING:
                    raise
                error = refusal
            except Exception as broken:
                if not is_line_error(broken):
                    raise
                error = no_connection(broken)
            if self.meter.done > before:
                failures = 0
            before = self.meter.done
            if failures >= len(self._pauses):
                raise error from None
            self._wait(max(pause, self._pauses[failures]))
            failures += 1

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + min(seconds, MAX_WAIT_SECONDS)
        while (left := until - time.monotonic()) > 0:
            self.report("waiting")
            time.sleep(min(0.2, left))
        self.meter.start_anew(self.meter.done)


class Refused(Exception):
    """An answer that is not what was asked for. `retry_after`: seconds, as far as it says."""

    def __init__(self, answer: Any, error: UserError) -> None:
        self.answer = answer
        self.status = int(answer.status_code)
        self.error = error
        told = answer.headers.get("Retry-After", "")
        self.retry_after = float(told) if told.isdecimal() else 0.0
        super().__init__(error.message)


def as_text(progress: TransferProgress) -> str:
    """In a few words: downloading the model: 1.2 of 16.1 GB, 3 min left."""
    if progress.phase == "asking":
        return "asking the Hugging Face Hub for the model"
    if progress.phase == "waiting":
        return "waiting for the connection, or for another download of this model"
    if progress.phase == "checking":
        return f"checking {progress.file}"
    if progress.total_bytes is None or progress.phase == "done":
        return "the model"
    unit, size = _unit(progress.total_bytes)
    done, total = (f"{count / size:.1f}" for count in (progress.done_bytes, progress.total_bytes))
    text = f"downloading the model: {done} of {total} {unit}"
    if progress.seconds_left is None:
        return text
    minutes = round(progress.seconds_left / 60)
    return f"{text}, {f'{minutes} min' if minutes else 'less than a minute'} left"


def amount(count: int) -> str:
    """Such as 0.3 MB or 1.2 GB."""
    unit, size = _unit(count)
    return f"{count / size:.1f} {unit}"


def _unit(count: int) -> tuple[str, float]:
    return ("GB", 1e9) if count >= 1e9 else ("MB", 1e6)
