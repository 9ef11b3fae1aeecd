"""The points of one line of a chart, and their smoothed course."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Series:
    """Points ordered by x.

    A point that is not beyond the last one belongs to a later attempt of the run: it
    supersedes all points at the same or a later x.
    """

    def __init__(self) -> None:
        self._xs: Floats = np.empty(256)
        self._ys: Floats = np.empty(256)
        self._sums: Floats = np.empty(256)
        self._summed = 0
        self._weight = -1.0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def xs(self) -> Floats:
        return self._xs[: self._size]

    @property
    def ys(self) -> Floats:
        return self._ys[: self._size]

    def clear(self) -> None:
        self._size = self._summed = 0

    def append(self, x: float, y: float) -> None:
        if self._size and x <= self._xs[self._size - 1]:
            self._size = int(np.searchsorted(self.xs, x))
            self._summed = min(self._summed, self._size)
        if self._size == len(self._xs):
            self._xs, self._ys, self._sums = (
                np.concatenate([array, np.empty_like(array)])
                for array in (self._xs, self._ys, self._sums)
            )
        self._xs[self._size] = x
        self._ys[self._size] = y
        self._size += 1

    def smoothed(self, weight: float) -> Floats:
        """The exponential moving average, without its bias towards zero at the start.

        Args:
            weight: of what came before, from 0 (no smoothing) to below 1.
        """
        if weight != self._weight:
            self._weight, self._summed = weight, 0
        total = float(self._sums[self._summed - 1]) if self._summed else 0.0
        for index in range(self._summed, self._size):
            total = weight * total + (1 - weight) * float(self._ys[index])
            self._sums[index] = total
        self._summed = self._size
        counts = np.arange(1, self._size + 1)
        return np.asarray(self._sums[: self._size] / (1 - weight**counts), dtype=np.float64)

    def nearest(self, x: float) -> int:
        """The index of the point nearest to x. There must be one."""
        xs = self.xs
        right = min(int(np.searchsorted(xs, x)), self._size - 1)
        left = max(right - 1, 0)
        return left if abs(xs[left] - x) <= abs(xs[right] - x) else right
