"""Whether the steps of a training have become slower than what they compute explains. Light.

How long a step takes depends on its rows: their lengths differ, the last step of an epoch is
smaller. So each step is held against earlier ones that had at least as much to compute in every
respect, which should not have been faster. One slow step means nothing; most of a while must be.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WARM_UP = 3  # steps in which a device finds its fastest ways and fills its caches
FEWEST_ALIKE = 5  # earlier steps, below which nothing can be said of one
WHILE_STEPS = 7  # most of a while must be slow: of so many steps at least, and so many seconds
WHILE_SECONDS = 20.0
SLOW = 1.7  # times as long
OVER = 1.25  # from here down it is as before
WORSE = 2.0  # times what was said before is worth saying again
LOOK_SECONDS = 1.0
_KEPT = 200


class Work(NamedTuple):
    """What a step computes: rows of one length are `rows` sequences of `length` tokens."""

    tokens: int  # with the padding, which is computed as well
    squares: int  # of the lengths, summed over the rows: the work of attention

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, int]]) -> Work:
        """Of micro-batches, each so many rows of one length."""
        return cls(
            sum(rows * length for rows, length in shapes),
            sum(rows * length * length for rows, length in shapes),
        )


@dataclass(frozen=True)
class Slower:
    """Since this step the steps take `factor` times as long: `now` instead of `before` seconds."""

    since: int
    factor: float
    before: float
    now: float


@dataclass(frozen=True)
class AsBefore:
    """From `since` to `until` they were slow; now they are not."""

    since: int
    until: int


class _Judged(NamedTuple):
    step: int
    seconds: float
    ratio: float  # to the earlier ones


class StepTimes:
    """Is told every step of one attempt, in order."""

    def __init__(self) -> None:
        self._seen = 0
        self._normal: deque[tuple[Work, float]] = deque(maxlen=_KEPT)
        self._while: deque[_Judged] = deque()
        self._while_seconds = 0.0
        self._unlooked = 0.0  # seconds
        self._told: Slower | None = None

    def add(self, step: int, seconds: float, work: Work) -> Slower | AsBefore | None:
        """Tell how long a step took; answers when something has changed.

        Args:
            seconds: without tests, saves, answers and pauses.
        """
        self._seen += 1
        if self._seen <= WARM_UP:
            return None
        alike = [took for other, took in self._normal if _covers(other, work)]
        ratio = seconds / statistics.median(alike) if len(alike) >= FEWEST_ALIKE else None
        if self._told is None and (ratio is None or ratio < SLOW):
            self._normal.append((work, seconds))
        if ratio is None:
            return None
        self._append(_Judged(step, seconds, ratio))
        self._unlooked += seconds
        if self._unlooked < LOOK_SECONDS:
            return None
        self._unlooked = 0.0
        return self._look()

    def _append(self, judged: _Judged) -> None:
        self._while.append(judged)
        self._while_seconds += judged.seconds
        while (
            len(self._while) > WHILE_STEPS
            and self._while_seconds - self._while[0].seconds >= WHILE_SECONDS
        ):
            self._while_seconds -= self._while.popleft().seconds

    def _look(self) -> Slower | AsBefore | None:
        if len(self._while) < WHILE_STEPS or self._while_seconds < WHILE_SECONDS:
            return None
        factor = statistics.median(judged.ratio for judged in self._while)
        told = self._told
        if factor >= (SLOW if told is None else WORSE * told.factor):
            slow = [judged for judged in self._while if judged.ratio >= SLOW]
            since = slow[0].step if told is None else told.since
            now = statistics.median(judged.seconds for judged in slow)
            self._told = Slower(since, factor, now / factor, now)
            return self._told
        if told is not None and factor <= OVER:
            slow_steps = [judged.step for judged in self._while if judged.ratio >= SLOW]
            self._told = None
            return AsBefore(told.since, max(slow_steps, default=self._while[0].step))
        return None


def _covers(one: Work, other: Work) -> bool:
    """Whether one step had at least as much to compute as the other."""
    return one.tokens >= other.tokens and one.squares >= other.squares
