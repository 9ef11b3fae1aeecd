"""A calm plot: no frame, faint horizontal lines, the newest value at the end of each line.

Colours are roles of the palette, so that a change of theme only looks them up again. Texts
are plain: nothing here reads markup. However many points a line has, only as many are handed
to the painter as the plot is wide (`series.peaks`): a million points cost little more than a
thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QPainter, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QWidget

from app import theme
from app.widgets import figures
from app.widgets.card import secondary_label
from app.widgets.charts.legend import LIMIT_DASHES, pen
from app.widgets.charts.plot_axes import NumberAxis, make_calm
from app.widgets.charts.plot_window import Window, round_out, value_range
from app.widgets.charts.series import Floats, in_view, peaks

REDRAW_MILLISECONDS = 80
END_LABEL_PIXELS = 60
LABEL_HEIGHT = 15
LABEL_WIDTH = 16  # of one that stands at its line's own end: a number
SMALLEST_LOG = 1e-12  # what is not above zero has no logarithm
_NO_VALUES: Floats = np.empty(0)


@dataclass
class Line:
    """One line of a plot with all its points.

    `may_cut` lets outliers be cut off; a line of a few dots shows them all. What follows
    another line (its smoothed course) does not count for the range along y. `name`, with its
    unit, is what a table of the values calls it.
    """

    item: pg.PlotDataItem
    role: str
    dots: bool
    dashes: tuple[float, ...]
    label: pg.TextItem | None
    may_cut: bool
    follows: bool
    name: str = ""
    end_text: str = ""
    xs: Floats = field(default_factory=lambda: _NO_VALUES)
    ys: Floats = field(default_factory=lambda: _NO_VALUES)


class Plot(pg.PlotWidget):  # type: ignore[misc]
    """Draws what `drawing` sets, at most twelve times a second.

    Args:
        drawing: called when a redraw is due; it calls `set_line` and `fit`.
    """

    redrawn = Signal()

    def __init__(
        self,
        x_axis: NumberAxis,
        y_axis: NumberAxis,
        *,
        empty_text: str,
        drawing: Callable[[], None],
    ) -> None:
        super().__init__(axisItems={"bottom": x_axis, "left": y_axis})
        self._drawing = drawing
        self.lines: list[Line] = []
        self.window_x = Window()
        self.clips = True
        self.ends_at_edges = False  # nothing reaches beyond the axes, not even unseen
        self.labels_at_ends = False  # of each line; else one below the other at the right
        self._fixed_y: tuple[float, float] | None = None
        self._least_y = 1e-9
        self._extent = (0.0, 1.0, 0.0, 1.0)
        self._timer = QTimer(self, singleShot=True, interval=REDRAW_MILLISECONDS)
        self._timer.timeout.connect(self.redraw)
        make_calm(self, x_axis, y_axis)
        self.plotItem.setContentsMargins(0, 8, 0, 0)
        self._limit = pg.InfiniteLine(angle=0, movable=False)
        self._limit.setVisible(False)
        self.addItem(self._limit, ignoreBounds=True)
        self._limit_label = self._text_item()
        self._limit_label.setAnchor(pg.Point(-0.1, 1))
        self._empty = secondary_label(empty_text, wrap=True)
        self._empty.setParent(self)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.cut_note = secondary_label()
        self.cut_note.setParent(self)
        self.cut_note.setFont(theme.font(12))
        self.cut_note.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.cut_note.setVisible(False)
        theme.notifier.changed.connect(self.recolour)
        self.recolour()
        self._show_emptiness()

    # ---------------------------------------------------------------------------- what to draw

    def add_line(
        self,
        role: str,
        *,
        name: str = "",
        dots: bool = False,
        label: bool = True,
        follows: bool = False,
        dashes: tuple[float, ...] = (),
    ) -> Line:
        """A new line above the earlier ones; `label` writes its newest value at its end."""
        item = pg.PlotDataItem(connect="finite", antialias=True)
        self.addItem(item)
        text = self._text_item() if label else None
        if text is not None and self.labels_at_ends:
            text.setAnchor(pg.Point(-0.8, 0.5))  # clear of the last dot
        line = Line(item, role, dots, dashes, text, not dots, follows, name)
        self.lines.append(line)
        self._colour_line(line)
        return line

    def remove_lines(self) -> None:
        for line in self.lines:
            self.removeItem(line.item)
            if line.label is not None:
                self.removeItem(line.label)
        self.lines.clear()

    def schedule(self) -> None:
        """Draw soon; many calls in a row draw once."""
        if not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Draw now."""
        self._timer.stop()
        self._drawing()
        self._draw_lines()
        self._show_emptiness()
        self.redrawn.emit()

    def set_line(self, line: Line, xs: Floats, ys: Floats, end_text: str = "") -> None:
        """All points of a line, ordered by x, and what to write at its end."""
        line.xs, line.ys, line.end_text = xs, ys, end_text

    def set_limit(self, value: float | None, text: str = "") -> None:
        """A dashed line across, with its text above its right end."""
        self._limit.setVisible(value is not None)
        self._limit_label.setVisible(value is not None)
        if value is not None:
            self._limit.setValue(self.y_in_view(value))
            self._limit_label.setText(text)

    def fit(
        self,
        x_low: float,
        x_high: float,
        *,
        y: tuple[float, float] | None = None,
        least_y: float = 1e-9,
    ) -> None:
        """The whole range along x; along y this one, or what the values need.

        Args:
            least_y: the smallest height, so that noise on a level line does not look wild.
        """
        whole = (self.x_in_view(x_low), self.x_in_view(x_high))
        self.window_x.whole = (whole[0], max(whole[1], whole[0] + 1e-9))
        self._fixed_y = y
        self._least_y = least_y

    def set_log_y(self, on: bool) -> None:
        self.getAxis("left").setLogMode(on)
        self.redraw()  # at once: the old range does not fit the new scale

    def set_log_x(self, on: bool) -> None:
        self.getAxis("bottom").setLogMode(on)
        self.window_x.reset()
        self.redraw()

    def set_clip(self, on: bool) -> None:
        """Whether outliers that would flatten all the rest are cut off."""
        self.clips = on
        self.schedule()

    def is_empty(self) -> bool:
        return not any(len(line.xs) for line in self.lines)

    def x_in_view(self, x: float) -> float:
        return _logarithm(x) if self.getAxis("bottom").logMode else x

    def y_in_view(self, y: float) -> float:
        return _logarithm(y) if self.getAxis("left").logMode else y

    def x_of_view(self, x: float) -> float:
        return 10.0**x if self.getAxis("bottom").logMode else x

    def recolour(self) -> None:
        """Look the colours up again."""
        colours = theme.current()
        self.setBackground(colours.panel)
        for name in ("left", "bottom"):
            axis = self.getAxis(name)
            axis.setPen(pg.mkPen(None))
            axis.setTickPen(pg.mkPen(colours.line if name == "left" else None))
            axis.setTextPen(colours.secondary)
        self.cut_note.setStyleSheet(f"background: {colours.panel};")
        self._limit.setPen(pen("bad", LIMIT_DASHES))
        self._limit_label.setColor(colours.bad)
        for line in self.lines:
            self._colour_line(line)

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self.hasFocus():
            painter = QPainter(self.viewport())
            painter.setPen(QPen(theme.current().color("accent"), 2))
            painter.drawRoundedRect(self.viewport().rect().adjusted(1, 1, -1, -1), 6, 6)
            painter.end()

    def sizeHint(self) -> QSize:
        return QSize(self.minimumSize())

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if hasattr(self, "_empty"):  # Qt also resizes while the plot is being built
            self._empty.setGeometry(self.rect().adjusted(24, 0, -24, 0))
            self._apply_extent()
            self.schedule()

    def overlay(self, widget: QWidget, from_right: int) -> None:
        """Place a small widget at the plot's upper right."""
        widget.adjustSize()
        widget.move(self.width() - from_right - widget.width(), 0)

    # ------------------------------------------------------------------------------------ inside

    def _draw_lines(self) -> None:
        """Hand each line's points in view to the painter, and fit the range along y to them."""
        low, high = self.window_x.shown
        parts = []
        for line in self.lines:
            view = in_view(line.xs, self.x_of_view(low), self.x_of_view(high))
            parts.append((line, view, line.ys[view]))
        y_low, y_high, note = self._range_y(
            [(ys, line.may_cut) for line, _, ys in parts if not line.follows]
        )
        self._extent = (low, high, y_low, y_high)
        width = max(int(self.plotItem.vb.width()), 100)
        for line, view, _ in parts:
            xs, ys = peaks(line.xs, line.ys, view, width)
            if self.getAxis("bottom").logMode:
                xs = np.log10(np.maximum(xs, SMALLEST_LOG))
            if self.getAxis("left").logMode:
                ys = np.log10(np.maximum(ys, SMALLEST_LOG))
            # Beyond the edges only as far as slopes need it; an SVG file has no clipping at all.
            beyond = 0.0 if self.ends_at_edges else y_high - y_low
            drawn = ys if line.dots else np.clip(ys, y_low - beyond, y_high + beyond)
            line.item.setData(np.clip(xs, low, high) if self.ends_at_edges else xs, drawn)
            if line.label is not None:
                ends_here = len(xs) > 0 and self.x_in_view(float(line.xs[-1])) <= high + 1e-9
                line.label.setText(line.end_text if ends_here else "")
                if ends_here:
                    end = float(ys[-1]) if np.isfinite(ys[-1]) else y_low
                    at = float(xs[-1]) if self.labels_at_ends else high
                    line.label.setPos(at, min(max(end, y_low), y_high))
        self.cut_note.setText(note)
        self.cut_note.setVisible(bool(note))
        self._apply_extent()

    def _range_y(self, lines: list[tuple[Floats, bool]]) -> tuple[float, float, str]:
        """In view units, and a word about what is cut off."""
        if self._fixed_y is not None:
            return self.y_in_view(self._fixed_y[0]), self.y_in_view(self._fixed_y[1]), ""
        log = self.getAxis("left").logMode
        if log:
            lines = [(np.log10(ys[ys > 0]), may_cut) for ys, may_cut in lines]
        shown = value_range(lines, self.clips)
        if shown is None:
            return 0.0, 1.0, ""
        everything = value_range(lines, False) if self.clips else shown
        assert everything is not None
        if log:
            low, high = shown[0] - 0.03, shown[1] + 0.03
        else:
            low, high = round_out(*shown, self._least_y)
        note = ""
        if everything[0] < low or everything[1] > high:
            outermost = everything[1] if everything[1] > high else everything[0]
            if log:
                outermost = 10.0**outermost
            words = (
                self.tr("spikes up to {value} are cut off")
                if everything[1] > high
                else self.tr("spikes down to {value} are cut off")
            )
            note = words.format(value=figures.short(outermost))
        return low, high, note

    def _text_item(self) -> pg.TextItem:
        item = pg.TextItem("", anchor=(-0.12, 0.5))
        item.textItem.setFont(theme.font(12, QFont.Weight.Medium, tabular=True))
        item.textItem.document().setDocumentMargin(1)
        self.addItem(item, ignoreBounds=True)
        return item

    def _colour_line(self, line: Line) -> None:
        colour = theme.current().color(line.role)
        line.item.setPen(pen(line.role, line.dashes))
        if line.dots:
            line.item.setSymbol("o")
            line.item.setSymbolSize(6)
            line.item.setSymbolPen(pg.mkPen(None))
            line.item.setSymbolBrush(colour)
        if line.label is not None:
            # The pale colour of raw data is too faint for text.
            raw = line.role == "chart_raw"
            line.label.setColor(theme.current().secondary if raw else colour)
            line.label.fill = pg.mkBrush(theme.current().panel)

    def _apply_extent(self) -> None:
        x_low, x_high, y_low, y_high = self._extent
        width = max(self.plotItem.vb.width(), END_LABEL_PIXELS + 100.0)
        labels = any(line.label and line.label.toPlainText() for line in self.lines)
        pixels = END_LABEL_PIXELS if labels or self._limit.isVisible() else 0
        room = (x_high - x_low) * pixels / (width - pixels)
        self.setRange(
            QRectF(QPointF(x_low, y_low), QPointF(x_high + room, y_high)),
            padding=0,
            disableAutoRange=True,
        )
        self._part_labels()
        self.overlay(self.cut_note, END_LABEL_PIXELS + 8)

    def _part_labels(self) -> None:
        """Move labels apart that would stand on one another, and place the limit's."""
        width, height = map(float, self.plotItem.vb.viewPixelSize())
        labels = [line.label for line in self.lines if line.label and line.label.toPlainText()]
        ends = [self.x_in_view(float(line.xs[-1])) for line in self.lines if len(line.xs)]
        lowest = self._extent[2] + LABEL_HEIGHT / 2 * height
        placed: list[tuple[float, float]] = []
        for label in sorted(labels, key=lambda each: float(each.pos().y())):
            x = float(label.pos().x()) if self.labels_at_ends else min(max(ends), self._extent[1])
            below = [y for at, y in placed if abs(at - x) < LABEL_WIDTH * width]
            y = max(float(label.pos().y()), lowest, *(y + LABEL_HEIGHT * height for y in below))
            label.setPos(x, y)
            placed.append((x, y))
        self._limit_label.setPos(self._extent[1], float(self._limit.value()))

    def _show_emptiness(self) -> None:
        empty = self.is_empty()
        self._empty.setVisible(empty)
        self.plotItem.setVisible(not empty)


def _logarithm(value: float) -> float:
    return float(np.log10(max(value, SMALLEST_LOG)))
