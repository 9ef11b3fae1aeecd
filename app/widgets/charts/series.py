"""The points of one line of a chart, their smoothed course, and as many as a picture shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A line holds no more points than this (24 MB with its smoothed course). Beyond, of every four
# neighbours the lowest and the highest stay, so that peaks outlive the thinning.
MOST_POINTS = 2**20
SMOOTHING_BLOCK = 64


class Series:
    """Points ordered by x.

    A point that is not beyond the last one belongs to a later attempt of the run: it
    supersedes all points at the same or a later x.
    """

    def __init__(self) -> None:
        self._xs: Floats = np.empty(256)
        self._ys: Floats = np.empty(256)
        self._averages: Floats = np.empty(256)
        self._size = 0
        self._weight = -1.0
        self._total = 0.0  # the running sum before the division
        self._averaged = 0  # points that have an average
        self._counted = 0  # and those of them that are finite

    def __len__(self) -> int:
        return self._size

    @property
    def xs(self) -> Floats:
        return self._xs[: self._size]

    @property
    def ys(self) -> Floats:
        return self._ys[: self._size]

    def clear(self) -> None:
        self._size = 0
        self._forget_averages()

    def append(self, x: float, y: float) -> None:
        if self._size and x <= self._xs[self._size - 1]:
            self._cut(x)
        if self._size == len(self._xs):
            self._make_room(1)
        self._xs[self._size] = x
        self._ys[self._size] = y
        self._size += 1

    def extend(self, xs: Floats, ys: Floats) -> None:
        """Append many points at once; `xs` rises. Points without a y (NaN) are left out."""
        known = ~np.isnan(ys)
        xs, ys = xs[known], ys[known]
        if not len(xs):
            return
        if self._size and xs[0] <= self._xs[self._size - 1]:
            self._cut(float(xs[0]))
        for start in range(0, len(xs), MOST_POINTS // 2):
            part = slice(start, start + MOST_POINTS // 2)
            count = len(xs[part])
            if self._size + count > len(self._xs):
                self._make_room(count)
            self._xs[self._size : self._size + count] = xs[part]
            self._ys[self._size : self._size + count] = ys[part]
            self._size += count

    def smoothed(self, weight: float) -> Floats:
        """The exponential moving average, without its bias towards zero at the start.

        The sum of `weight`^k (1 - `weight`) y[i-k], divided by 1 - `weight`^(number of values).
        A value that is not finite has no average and does not spoil those after it.

        Args:
            weight: of what came before, from 0 (no smoothing) to below 1.
        """
        if weight != self._weight:
            self._forget_averages()
            self._weight = weight
        fresh = self._ys[self._averaged : self._size]
        if len(fresh):
            finite = np.isfinite(fresh)
            sums = _running_sums(fresh[finite], weight, self._total)
            counts = np.arange(self._counted + 1, self._counted + 1 + len(sums))
            averages = self._averages[self._averaged : self._size]
            averages[:] = np.nan
            averages[finite] = sums / (1 - weight**counts)
            self._total = float(sums[-1]) if len(sums) else self._total
            self._counted += len(sums)
            self._averaged = self._size
        return self._averages[: self._size]

    def nearest(self, x: float) -> int:
        """The index of the point nearest to x. There must be one."""
        xs = self.xs
        right = min(int(np.searchsorted(xs, x)), self._size - 1)
        left = max(right - 1, 0)
        return left if abs(xs[left] - x) <= abs(xs[right] - x) else right

    def _cut(self, x: float) -> None:
        self._size = int(np.searchsorted(self.xs, x))
        if self._averaged > self._size:
            self._forget_averages()

    def _forget_averages(self) -> None:
        self._weight, self._total = -1.0, 0.0
        self._averaged = self._counted = 0

    def _make_room(self, count: int) -> None:
        if self._size + count > MOST_POINTS:
            whole = self._size // 4 * 4
            xs, ys = _thinned(self._xs[:whole], self._ys[:whole])
            self._size = len(xs)
            self._xs[: self._size], self._ys[: self._size] = xs, ys
            self._forget_averages()
        capacity = len(self._xs)
        while capacity < self._size + count:
            capacity *= 2
        more = np.empty(capacity - len(self._xs))
        self._xs, self._ys, self._averages = (
            np.concatenate([array, more]) for array in (self._xs, self._ys, self._averages)
        )


def in_view(xs: Floats, low: float, high: float) -> slice:
    """The points between low and high, and one more on either side, to which lines lead."""
    first = int(np.searchsorted(xs, low)) - 1
    last = int(np.searchsorted(xs, high, side="right")) + 1
    return slice(max(first, 0), min(last, len(xs)))


def peaks(xs: Floats, ys: Floats, view: slice, most: int) -> tuple[Floats, Floats]:
    """What a picture `most` pixels wide shows of the points in `view`.

    Of many points the lowest and the highest of each group, at most about 2 `most` points.
    Groups are powers of two long and begin at multiples of that, so that a line does not
    flicker while it grows.
    """
    count = view.stop - view.start
    if count <= 2 * most:
        return xs[view], ys[view]
    size = 1 << int(np.ceil(np.log2(count / most)))
    start = view.start // size * size
    groups = (view.stop - start) // size
    end = start + groups * size
    grouped = ys[start:end].reshape(groups, size)
    found_xs, found_ys = np.empty(2 * groups), np.empty(2 * groups)
    found_xs[::2], found_xs[1::2] = xs[start:end:size], xs[start + size // 2 : end : size]
    found_ys[::2], found_ys[1::2] = grouped.min(axis=1), grouped.max(axis=1)
    if np.isnan(found_ys).any():  # slower, and seldom needed
        found_ys[::2] = np.fmin.reduce(grouped, axis=1)
        found_ys[1::2] = np.fmax.reduce(grouped, axis=1)
    rest = slice(end, view.stop)
    if rest.stop > rest.start:
        tail = ys[rest]
        found_xs = np.concatenate([found_xs, xs[end : end + 1], xs[end : end + 1], xs[rest][-1:]])
        extremes = np.array([np.fmin.reduce(tail), np.fmax.reduce(tail)])
        found_ys = np.concatenate([found_ys, extremes, tail[-1:]])
    return found_xs, found_ys


def _running_sums(values: Floats, weight: float, total: float) -> Floats:
    """s[i] = `weight` s[i-1] + (1 - `weight`) v[i], where `total` stands before the first.

    Computed for all blocks side by side, one place in the block after the other; only the blocks'
    ends are carried over one by one.
    """
    blocks = len(values) // SMOOTHING_BLOCK
    end = blocks * SMOOTHING_BLOCK
    sums = np.empty(len(values))
    if blocks:
        inside = np.ascontiguousarray(values[:end].reshape(blocks, SMOOTHING_BLOCK).T)
        inside *= 1 - weight
        for place in range(1, SMOOTHING_BLOCK):
            inside[place] += weight * inside[place - 1]
        before = np.empty(blocks)
        decay = weight**SMOOTHING_BLOCK
        for index, last in enumerate(inside[-1].tolist()):
            before[index] = total
            total = decay * total + last
        for place in range(SMOOTHING_BLOCK):
            inside[place] += weight ** (place + 1) * before
        sums[:end] = inside.T.reshape(end)
    for index in range(end, len(values)):
        total = weight * total + (1 - weight) * float(values[index])
        sums[index] = total
    return sums


def _thinned(xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
    """Half of the points (a multiple of four comes in): the lowest and highest of each four."""
    grouped = ys.reshape(-1, 4)
    order = np.argsort(grouped, axis=1)  # what is not a number comes last
    pairs = np.sort(order[:, [0, -1]], axis=1)
    kept = (pairs + 4 * np.arange(len(grouped))[:, None]).reshape(-1)
    return xs[kept], ys[kept]
