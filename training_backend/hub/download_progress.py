"""How far a download is: bytes, rate and time left. Light."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

RATE_SECONDS = 5.0  # the rate is that of so many seconds
_SETTLED_SECONDS = 0.5  # before, it would jump about

Phase = Literal["asking", "waiting", "downloading", "checking", "done"]


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is, over all files. The rate and the time left are None at first.

    `phase` "waiting": another process downloads the same model, or the line is gone.
    """

    phase: Phase
    done_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    file: str = ""


class Meter:
    """Counts the bytes of one download."""

    def __init__(self) -> None:
        self.done = 0
        self.total: int | None = None
        self.file = ""
        self._seen: list[tuple[float, int]] = []  # when so many bytes had come

    def count(self, arrived: int) -> None:
        """So many bytes have come just now."""
        self.done += arrived
        now = time.monotonic()
        self._seen.append((now, self.done))
        while now - self._seen[0][0] > RATE_SECONDS and len(self._seen) > 2:
            del self._seen[0]

    def start_anew(self, done: int) -> None:
        """From here on, with so many bytes; what was before says nothing of the rate to come."""
        self.done = done
        self._seen = [(time.monotonic(), done)]

    def at(self, phase: Phase) -> DownloadProgress:
        rate = self._rate() if phase == "downloading" else None
        left = (self.total - self.done) / rate if rate and self.total is not None else None
        return DownloadProgress(phase, self.done, self.total, rate, left, self.file)

    def _rate(self) -> float | None:
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end - start > _SETTLED_SECONDS else None


def as_text(progress: DownloadProgress) -> str:
    """In a few words: downloading the model: 1.2 of 16.1 GB, 3 min left."""
    if progress.phase == "asking":
        return "asking the Hugging Face Hub for the model"
    if progress.phase == "waiting":
        return "waiting for the connection, or for another download of this model"
    if progress.phase == "checking":
        return f"checking {progress.file}"
    if progress.total_bytes is None or progress.phase == "done":
        return "the model"
    unit, size = ("GB", 1e9) if progress.total_bytes >= 1e9 else ("MB", 1e6)
    done, total = (f"{count / size:.1f}" for count in (progress.done_bytes, progress.total_bytes))
    text = f"downloading the model: {done} of {total} {unit}"
    if progress.seconds_left is None:
        return text
    minutes = round(progress.seconds_left / 60)
    return f"{text}, {f'{minutes} min' if minutes else 'less than a minute'} left"
