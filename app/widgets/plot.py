"""A calm plot: no frame, faint horizontal lines, the newest value at the end of each line.

Colours are roles of the palette, so that a change of theme only looks them up again. Texts
are plain: nothing here reads markup.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, QTimer, Signal
from PySide6.QtGui import (
    QColor,
    QFocusEvent,
    QFont,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QWidget

from app import theme
from app.widgets.card import ElidedLabel, secondary_label
from app.widgets.plot_axes import NumberAxis, make_calm
from app.widgets.series import Floats

REDRAW_MILLISECONDS = 80
END_LABEL_PIXELS = 60
LABEL_HEIGHT = 15
ANTIALIAS_BELOW = 5_000  # points; smooth edges cost half as much again


@dataclass
class Line:
    """One line of a plot, its colour's role and the label at its end."""

    item: pg.PlotDataItem
    role: str
    dots: bool
    label: pg.TextItem | None


class Plot(pg.PlotWidget):  # type: ignore[misc]
    """Draws what `drawing` sets, at most twelve times a second.

    Args:
        drawing: called when a redraw is due; it calls `set_line` and `fit`.
        readout: given an x, the x of the nearest point and what to say about it, or None.
    """

    redrawn = Signal()

    def __init__(
        self,
        x_axis: NumberAxis,
        y_axis: NumberAxis,
        *,
        empty_text: str,
        drawing: Callable[[], None],
        readout: Callable[[float], tuple[float, str] | None],
    ) -> None:
        super().__init__(axisItems={"bottom": x_axis, "left": y_axis})
        self._drawing = drawing
        self._readout_at = readout
        self._lines: list[Line] = []
        self._extent = (0.0, 1.0, 0.0, 1.0)
        self._timer = QTimer(self, singleShot=True, interval=REDRAW_MILLISECONDS)
        self._timer.timeout.connect(self.redraw)
        make_calm(self, x_axis, y_axis)
        self.plotItem.setContentsMargins(0, 8, 0, 0)
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._cursor = pg.InfiniteLine(angle=90, movable=False)
        self._cursor.setVisible(False)
        self.addItem(self._cursor, ignoreBounds=True)
        self._cursor_x: float | None = None
        self._limit = pg.InfiniteLine(angle=0, movable=False)
        self._limit.setVisible(False)
        self.addItem(self._limit, ignoreBounds=True)
        self._limit_label = self._text_item()
        self._limit_label.setAnchor(pg.Point(-0.1, 1))
        self._empty = secondary_label(empty_text, wrap=True)
        self._empty.setParent(self)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._readout = QLabel(self)
        self._readout.setTextFormat(Qt.TextFormat.PlainText)
        self._readout.setProperty("role", "readout")
        self._readout.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._readout.setVisible(False)
        theme.notifier.changed.connect(self.recolour)
        self.recolour()
        self._show_emptiness()

    # ---------------------------------------------------------------------------- what to draw

    def add_line(self, role: str, *, dots: bool = False, label: bool = True) -> Line:
        """A new line above the earlier ones; `label` writes its newest value at its end."""
        item = pg.PlotDataItem(connect="finite")
        item.setDownsampling(auto=True, method="peak")
        item.setClipToView(True)
        self.addItem(item)
        line = Line(item, role, dots, self._text_item() if label else None)
        self._lines.append(line)
        self._colour_line(line)
        return line

    def schedule(self) -> None:
        """Draw soon; many calls in a row draw once."""
        if not self._timer.isActive():
            self._timer.start()

    def redraw(self) -> None:
        """Draw now."""
        self._timer.stop()
        self._drawing()
        self._show_emptiness()
        self._move_cursor()
        self.redrawn.emit()

    def set_line(self, line: Line, xs: Floats, ys: Floats, end_text: str = "") -> None:
        line.item.setData(xs, ys, antialias=len(xs) < ANTIALIAS_BELOW)
        if line.label is not None:
            line.label.setText(end_text if len(xs) else "")
            if len(xs):
                line.label.setPos(self._extent[1], self._mapped(float(ys[-1])))

    def set_limit(self, value: float | None, text: str = "") -> None:
        """A dashed line across, with its text above its right end."""
        self._limit.setVisible(value is not None)
        self._limit_label.setVisible(value is not None)
        if value is not None:
            self._limit.setValue(self._mapped(value))
            self._limit_label.setText(text)

    def set_log(self, on: bool) -> None:
        self.plotItem.setLogMode(False, on)
        self.schedule()

    def fit(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        """Show this part; in pixels there is room at the right for the labels."""
        self._extent = (x_low, x_high, self._mapped(y_low), self._mapped(y_high))
        self._apply_extent()

    def is_empty(self) -> bool:
        return all(line.item.xData is None or not len(line.item.xData) for line in self._lines)

    def recolour(self) -> None:
        """Look the colours up again."""
        colours = theme.current()
        self.setBackground(colours.panel)
        for name in ("left", "bottom"):
            axis = self.getAxis(name)
            axis.setPen(pg.mkPen(None))
            axis.setTickPen(pg.mkPen(colours.line if name == "left" else None))
            axis.setTextPen(colours.secondary)
        self._cursor.setPen(pg.mkPen(colours.secondary, width=1))
        self._limit.setPen(pg.mkPen(colours.bad, width=1, style=Qt.PenStyle.DashLine))
        self._limit_label.setColor(colours.bad)
        self._readout.setStyleSheet(
            f"background: {colours.panel}; color: {colours.text};"
            f"border: 1px solid {colours.control_line}; border-radius: 6px; padding: 6px 8px;"
        )
        for line in self._lines:
            self._colour_line(line)

    # ----------------------------------------------------------------------------- the readout

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        super().mouseMoveEvent(event)
        self._cursor_x = float(self.plotItem.vb.mapSceneToView(event.position()).x())
        self._move_cursor()

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._hide_cursor()

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        if event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason):
            self._cursor_x = self._extent[1]
            self._move_cursor()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._hide_cursor()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Left and right move the readout from point to point, home and end to the ends."""
        low, high, *_ = self._extent
        pixel = float(self.plotItem.vb.viewPixelSize()[0])
        start = high if self._cursor_x is None else self._cursor_x
        targets = {
            Qt.Key.Key_Home: [low],
            Qt.Key.Key_End: [high],
            Qt.Key.Key_Left: [start - step * pixel for step in range(1, 2000)],
            Qt.Key.Key_Right: [start + step * pixel for step in range(1, 2000)],
        }.get(Qt.Key(event.key()))
        if targets is None:
            super().keyPressEvent(event)
            return
        here = self._readout_at(start)
        for target in targets:
            found = self._readout_at(target)
            if found is not None and (
                here is None or found[0] != here[0] or self._cursor_x is None
            ):
                self._cursor_x = found[0]
                break
        self._move_cursor()

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self.hasFocus():
            painter = QPainter(self.viewport())
            painter.setPen(QPen(theme.current().color("accent"), 2))
            painter.drawRoundedRect(self.viewport().rect().adjusted(1, 1, -1, -1), 6, 6)
            painter.end()

    def sizeHint(self) -> QSize:
        return QSize(self.minimumSize())

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()  # the page scrolls

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if hasattr(self, "_empty"):  # Qt also resizes while the plot is being built
            self._empty.setGeometry(self.rect().adjusted(24, 0, -24, 0))
            self._apply_extent()
            self.schedule()

    # ------------------------------------------------------------------------------------ inside

    def _mapped(self, y: float) -> float:
        if not self.getAxis("left").logMode:
            return y
        return float(np.log10(max(y, 1e-12)))

    def _text_item(self) -> pg.TextItem:
        item = pg.TextItem("", anchor=(-0.12, 0.5))
        item.textItem.setFont(theme.font(12, QFont.Weight.Medium, tabular=True))
        item.textItem.document().setDocumentMargin(1)
        self.addItem(item, ignoreBounds=True)
        return item

    def _colour_line(self, line: Line) -> None:
        colour = theme.current().color(line.role)
        # Width 1 always: wider pens are drawn ten times slower.
        line.item.setPen(pg.mkPen(colour, width=1))
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
        room = (x_high - x_low) * END_LABEL_PIXELS / (width - END_LABEL_PIXELS)
        self.setRange(
            QRectF(QPointF(x_low, y_low), QPointF(x_high + room, y_high)),
            padding=0,
            disableAutoRange=True,
        )
        self._part_labels()

    def _part_labels(self) -> None:
        """Move labels apart that would stand on one another, and place the limit's."""
        pixel = float(self.plotItem.vb.viewPixelSize()[1])
        labels = [line.label for line in self._lines if line.label and line.label.toPlainText()]
        floor = -np.inf
        for label in sorted(labels, key=lambda each: float(each.pos().y())):
            y = max(float(label.pos().y()), floor)
            label.setPos(float(label.pos().x()), y)
            floor = y + LABEL_HEIGHT * pixel
        ends = [
            line.item.xData[-1]
            for line in self._lines
            if line.item.xData is not None and len(line.item.xData)
        ]
        for label in labels:
            label.setPos(float(max(ends)), float(label.pos().y()))
        self._limit_label.setPos(self._extent[1], float(self._limit.value()))

    def _show_emptiness(self) -> None:
        empty = self.is_empty()
        self._empty.setVisible(empty)
        self.plotItem.setVisible(not empty)

    def _move_cursor(self) -> None:
        found = None if self._cursor_x is None else self._readout_at(self._cursor_x)
        self._cursor.setVisible(found is not None)
        self._readout.setVisible(found is not None)
        if found is None:
            return
        x, text = found
        self._cursor.setValue(x)
        self._readout.setText(text)
        self._readout.adjustSize()
        at = int(self.plotItem.vb.mapViewToScene(QPointF(x, 0)).x())
        left = at + 12
        if left + self._readout.width() > self.width():
            left = max(0, at - 12 - self._readout.width())
        self._readout.move(left, 8)

    def _hide_cursor(self) -> None:
        self._cursor_x = None
        self._move_cursor()


class LegendEntry(QWidget):
    """What a colour stands for: a dash and a plain text."""

    def __init__(self, role: str, text: str, *, dashed: bool = False) -> None:
        super().__init__()
        self._dash = _Dash(role, dashed)
        self.label = ElidedLabel(text)
        self.label.setProperty("role", "secondary")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(self._dash)
        row.addWidget(self.label)


class _Dash(QWidget):
    def __init__(self, role: str, dashed: bool) -> None:
        super().__init__()
        self._role = role
        self._dashed = dashed
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme.notifier.changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(14, 14)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        pen = QPen(QColor(theme.current().color(self._role)), 2)
        if self._dashed:
            pen.setDashPattern([2, 1.5])
        painter.setPen(pen)
        painter.drawLine(0, 7, 14, 7)
        painter.end()
