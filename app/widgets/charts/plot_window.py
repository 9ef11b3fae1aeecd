"""Which part of its data a plot shows: along x what was zoomed to, along y what is there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from app.widgets.charts.plot_axes import round_up
from app.widgets.charts.series import Floats

SMALLEST_PART = 1e-5  # of the whole: nobody zooms in further
SAMPLED = 10_000
FEWEST_FOR_OUTLIERS = 20
FLATTENED = 0.25  # when 98 % of the values would get less than this of the height


class Window:
    """The range along x, in the axis's own units (logarithms on a log axis)."""

    def __init__(self) -> None:
        self.whole = (0.0, 1.0)
        self._zoomed: tuple[float, float] | None = None

    @property
    def shown(self) -> tuple[float, float]:
        return self._zoomed or self.whole

    @property
    def is_zoomed(self) -> bool:
        return self._zoomed is not None

    def reset(self) -> None:
        self._zoomed = None

    def zoom_to(self, one: float, other: float) -> None:
        """Show this part; what is as large as the whole is the whole."""
        low, high = min(one, other), max(one, other)
        size = max(high - low, (self.whole[1] - self.whole[0]) * SMALLEST_PART)
        if size >= self.whole[1] - self.whole[0]:
            self._zoomed = None
            return
        low = min(max(low, self.whole[0]), self.whole[1] - size)
        self._zoomed = (low, low + size)

    def zoom_about(self, x: float, factor: float) -> None:
        """Show `factor` as much as now (below 1: closer), with x staying where it is."""
        low, high = self.shown
        self.zoom_to(x - (x - low) * factor, x + (high - x) * factor)

    def bring_in(self, x: float) -> None:
        """Move the zoomed part so far that x is in it."""
        if self._zoomed is not None:
            low, high = self._zoomed
            by = min(x - low, 0.0) + max(x - high, 0.0)
            if by:
                self.zoom_to(low + by, high + by)


def value_range(lines: Iterable[tuple[Floats, bool]], clip: bool) -> tuple[float, float] | None:
    """The lowest and the highest value to show; None where there is nothing finite.

    Args:
        lines: values of each line, and whether its outliers may be cut off.
        clip: leave out the outermost 1 % at either end, where they would flatten the rest.
    """
    found = [_range(values[np.isfinite(values)], clip and may_cut) for values, may_cut in lines]
    ranges = [each for each in found if each is not None]
    if not ranges:
        return None
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def round_out(low: float, high: float, least: float, steps: int = 6) -> tuple[float, float]:
    """The next round numbers around a range that is at least `least` high."""
    step = round_up(max(high - low, least) / steps)
    low, high = float(np.floor(low / step)) * step, float(np.ceil(high / step)) * step
    return (low, high) if high > low else (low - step, high + step)


def _range(values: Floats, clip: bool) -> tuple[float, float] | None:
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    if clip and len(values) >= FEWEST_FOR_OUTLIERS and high > low:
        few = np.sort(values[:: max(1, len(values) // SAMPLED)])
        # One outlier among few values is beyond these too: rounded inwards, not in between.
        first, last = few[int(np.ceil(0.01 * (len(few) - 1)))], few[int(0.99 * (len(few) - 1))]
        if last - first < FLATTENED * (high - low) and last > first:
            margin = 0.1 * (last - first)
            return max(low, float(first - margin)), min(high, float(last + margin))
    return low, high
