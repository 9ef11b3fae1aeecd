"""A run's loss as one number, and whether it went the wrong way. Light."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

RECENT = 10  # reports; one batch alone says little
FEWEST = 10  # reports from which on a course can be told
RISEN = 1.5  # times the beginning is no longer chance
_KEPT = 1_000


class RecentLoss:
    """The mean of the newest reports, as tiles, tables and the end of a run tell it.

    A report that is not beyond the last one belongs to a later attempt of the run: it supersedes
    all at the same or a later step.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[int, float]] = deque(maxlen=_KEPT)

    def add(self, step: int, loss: float) -> None:
        while self._points and self._points[-1][0] >= step:
            self._points.pop()
        self._points.append((step, loss))

    @property
    def value(self) -> float | None:
        """None before the first report."""
        return recent([loss for _, loss in list(self._points)[-RECENT:]])


def recent(losses: Sequence[float]) -> float | None:
    """The mean of the last `RECENT` of the losses; None without any."""
    newest = losses[-RECENT:]
    return sum(newest) / len(newest) if newest else None


def rise(losses: Sequence[float]) -> tuple[float, float] | None:
    """Where the losses began and ended (means of a tenth each), if they clearly rose."""
    if len(losses) < FEWEST:
        return None
    tenth = len(losses) // 10
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return (first, last) if last > RISEN * first else None
