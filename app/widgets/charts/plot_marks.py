"""Bands in a chart over the steps that a run's warnings speak of, with a few words each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyqtgraph as pg
from PySide6.QtGui import QFont

from app import theme
from app.models.run_marks import Mark
from app.widgets.charts.legend import LIMIT_DASHES, pen
from app.widgets.charts.plot import LABEL_HEIGHT, Plot

BEHIND = -10  # the lines
OPACITY = 28  # of 255
GAP = 6.0  # pixels between two texts
MOST_ROWS = 4


@dataclass
class _Band:
    mark: Mark
    region: pg.LinearRegionItem
    text: pg.TextItem


class PlotMarks:
    """The bands of one plot, whose x are steps; they follow its zoom and its theme.

    Args:
        texts: whether there is room for words; they are in the readout anyway.
    """

    def __init__(self, plot: Plot, *, texts: bool = True) -> None:
        self._plot = plot
        self._texts = texts
        self._bands: list[_Band] = []
        plot.redrawn.connect(self._place)
        theme.notifier.changed.connect(self._colour)

    def show(self, marks: Sequence[Mark]) -> None:
        """Mark these steps and no others."""
        for band in self._bands:
            self._plot.removeItem(band.region)
            self._plot.removeItem(band.text)
        self._bands = [self._made(mark) for mark in marks]
        self._colour()
        self._plot.schedule()

    def words_at(self, step: float) -> list[str]:
        """What is marked at this step."""
        return [
            band.mark.text
            for band in self._bands
            if band.mark.since <= step <= self._end(band.mark)
        ]

    def _made(self, mark: Mark) -> _Band:
        region = pg.LinearRegionItem(movable=False)
        region.setZValue(BEHIND)
        text = pg.TextItem("")
        text.textItem.setFont(theme.font(12, QFont.Weight.Medium))
        text.textItem.document().setDocumentMargin(1)
        text.setPlainText(mark.text)
        for item in (region, text):
            self._plot.addItem(item, ignoreBounds=True)
        return _Band(mark, region, text)

    def _end(self, mark: Mark) -> float:
        """Its last step; of one that goes on the newest there is."""
        if mark.until is not None:
            return float(mark.until)
        newest = [float(line.xs[-1]) for line in self._plot.lines if len(line.xs)]
        return max([float(mark.since), *newest])

    def _place(self) -> None:
        """Where the plot shows these steps now, each text in the first row with room for it."""
        plot = self._plot
        low, high = plot.window_x.shown
        width, height = map(float, plot.plotItem.vb.viewPixelSize())
        top = float(plot.plotItem.vb.viewRange()[1][1])
        # What else stands at the top of the plot has the first row.
        first = 1 if plot.window_x.is_zoomed or plot.cut_note.isVisibleTo(plot) else 0
        taken = [low - GAP * width] * MOST_ROWS
        for band in sorted(self._bands, key=lambda band: band.mark.since):
            begin, end = plot.x_in_view(band.mark.since), plot.x_in_view(self._end(band.mark))
            seen = begin <= high and end >= low and not plot.is_empty()
            band.region.setVisible(seen)
            band.region.setRegion((max(begin, low), min(max(end, begin), high)))
            long = band.text.boundingRect().width() * width
            left = max(low, min(max(begin, low) + 3 * width, high - long))
            rows = [row for row in range(first, MOST_ROWS) if left >= taken[row] + GAP * width]
            band.text.setVisible(seen and self._texts and bool(rows))
            if band.text.isVisible():
                taken[rows[0]] = left + long
                band.text.setPos(left, top - rows[0] * LABEL_HEIGHT * height)

    def _colour(self) -> None:
        fill = theme.current().color("careful")
        fill.setAlpha(OPACITY)
        for band in self._bands:
            band.region.setBrush(fill)
            begin, end = band.region.lines
            begin.setPen(pen("careful", LIMIT_DASHES))
            end.setPen(pg.mkPen(None) if band.mark.until is None else pen("careful", LIMIT_DASHES))
            band.text.setColor(theme.current().careful)
            band.text.fill = pg.mkBrush(theme.current().panel)
