"""Axes of the charts: round numbers, few of them, no ticks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyqtgraph as pg
from PySide6.QtCore import QRectF

from app import theme
from app.widgets import figures

TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
Ticks = list[tuple[float, list[float]]]


class NumberAxis(pg.AxisItem):  # type: ignore[misc]
    """Round numbers a readable distance apart; also on a log scale."""

    def __init__(
        self,
        orientation: str,
        *,
        pixels_apart: int,
        write: Callable[[float, float], str],
        whole: bool = False,
    ) -> None:
        super().__init__(orientation)
        self._pixels_apart = pixels_apart
        self._write = write
        self._smallest = 1.0 if whole else 0.0

    def boundingRect(self) -> QRectF:
        # Room for the numbers at both ends, which stand half outside.
        return QRectF(super().boundingRect()).adjusted(-20, -8, 20, 8)

    def tickValues(self, low: float, high: float, size: float) -> Ticks:
        wanted = max(size / self._pixels_apart, 1.0)
        if self.logMode:
            return self._log_ticks(low, high, wanted)
        return _evenly(low, high, max(self.spacing((high - low) / wanted), self._smallest))

    def spacing(self, at_least: float) -> float:
        """The round distance that is at least this."""
        return round_up(at_least)

    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        if self.logMode:
            return [self._write(10**value, 0.0) for value in values]
        return [self._write(value, spacing) for value in values]

    def _log_ticks(self, low: float, high: float, wanted: float) -> Ticks:
        if high - low < 1.0:  # less than tenfold: round numbers read better than powers of ten
            first, last = 10**low, 10**high
            ((_, values),) = _evenly(first, last, round_up((last - first) / wanted))
            return [(0.0, [math.log10(value) for value in values if value > 0])]
        decades = range(math.floor(low), math.ceil(high) + 1)
        factors = (1, 2, 5) if 3 * (high - low) <= 2 * wanted else (1,)
        marks = [decade + math.log10(factor) for decade in decades for factor in factors]
        return [(0.0, [mark for mark in marks if low <= mark <= high])]


class TimeAxis(NumberAxis):
    """Time since the run began, in the unit that fits."""

    def __init__(self, orientation: str) -> None:
        super().__init__(orientation, pixels_apart=110, write=_time)

    def spacing(self, at_least: float) -> float:
        return next((step for step in TIME_STEPS if step >= at_least), TIME_STEPS[-1] * 7)


def make_calm(plot: pg.PlotWidget, x_axis: NumberAxis, y_axis: NumberAxis) -> None:
    """Numbers and faint level lines only; wheel and drag belong to the page that scrolls."""
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.setMouseEnabled(False, False)
    y_axis.setWidth(48)
    x_axis.setHeight(24)
    for axis in (x_axis, y_axis):
        axis.setStyle(
            tickLength=0,
            maxTickLevel=0,
            tickTextOffset=8,
            tickFont=theme.font(12),
            hideOverlappingLabels=False,
        )
    y_axis.setGrid(255)
    y_axis.setZValue(-200)  # its lines run behind everything


def write_number(value: float, spacing: float) -> str:
    """As many decimals as the distance between the marks needs."""
    if spacing:
        digits = max(0, -math.floor(math.log10(spacing) + 1e-9))
        return figures.decimal(value, digits)
    digits = max(0, 1 - math.floor(math.log10(value))) if value < 10 else 0
    text = figures.decimal(value, min(digits, 6))
    return text.rstrip("0").rstrip(".,") if digits else text


def _time(value: float, spacing: float) -> str:
    seconds = round(value)
    if seconds == 0:
        return "0"
    if spacing < 60:
        return f"{seconds // 60}:{seconds % 60:02}"
    if spacing < 3600 and seconds < 3600:
        return figures.duration(seconds)
    return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"


def _evenly(low: float, high: float, spacing: float) -> Ticks:
    first, last = math.ceil(low / spacing - 1e-9), math.floor(high / spacing + 1e-9)
    return [(spacing, [index * spacing for index in range(first, last + 1)])]


def round_up(value: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999)
