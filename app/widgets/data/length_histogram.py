"""How long the rows are in tokens, with the line of `max_length` to drag."""

from __future__ import annotations

from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QSignalBlocker, QSize, Qt, Signal
from PySide6.QtGui import QKeyEvent, QWheelEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.i18n import integer, number
from app.widgets.card import secondary_label
from app.widgets.charts.plot_axes import NumberAxis, make_calm, write_number

STEP = 8  # a dragged line stands at multiples of this
KEY_STEPS = {
    Qt.Key.Key_Left: -STEP,
    Qt.Key.Key_Right: STEP,
    Qt.Key.Key_PageDown: -16 * STEP,
    Qt.Key.Key_PageUp: 16 * STEP,
}


class LengthHistogram(QWidget):
    """Bars from the numbers of `lint`, and in words what the line cuts.

    `max_length_chosen` comes when the line was dropped, or moved by a key.
    """

    max_length_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._numbers: dict[str, Any] | None = None
        self._plot = _Plot()
        self._plot.moved.connect(self._on_moved)
        self._plot.dropped.connect(self._on_dropped)
        self._share = secondary_label(wrap=True)
        self._share.setFont(theme.font(13, tabular=True))
        self._share.setMinimumHeight(2 * self._share.fontMetrics().lineSpacing())
        self._share.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self._plot, 1)
        layout.addWidget(self._share)
        self.show_numbers(None)

    def show_numbers(self, numbers: dict[str, Any] | None) -> None:
        """Show the numbers of a report; None while there are none."""
        self._numbers = numbers
        self._plot.setVisible(numbers is not None)  # axes without bars would say nothing
        self._plot.show_bars(numbers["histogram"] if numbers else [])
        self._say(self._plot.length())

    def set_max_length(self, length: int) -> None:
        """Put the line there without reporting it."""
        self._plot.set_length(length)
        self._say(length)

    def lengths(self) -> list[tuple[float, int]]:
        """Tokens with the number of rows that have so many; empty while there are no numbers."""
        if self._numbers is None:
            return []
        return self._numbers["lengths"] or [
            ((low + high) / 2, count) for low, high, count in self._numbers["histogram"]
        ]

    def cut_share(self, length: int) -> tuple[float, float]:
        """The shares of rows and of tokens that `length` would cut."""
        lengths = self.lengths()
        rows = sum(count for _, count in lengths)
        tokens = sum(at * count for at, count in lengths)
        over = [(at, count) for at, count in lengths if at > length]
        cut = sum((at - length) * count for at, count in over)
        return sum(count for _, count in over) / max(1, rows), cut / max(1, tokens)

    def _on_moved(self, length: int) -> None:
        self._say(length)

    def _on_dropped(self, length: int) -> None:
        self._say(length)
        self.max_length_chosen.emit(length)

    def _say(self, length: int) -> None:
        if self._numbers is None:
            self._share.setText(self.tr("How long the rows are will stand here."))
            return
        rows, tokens = self.cut_share(length)
        if rows:
            text = self.tr(
                "The line is the longest row allowed, {length} tokens: {rows}\u00a0% of the rows "
                "are cut, {tokens}\u00a0% of all tokens lost."
            )
        else:
            text = self.tr(
                "The line is the longest row allowed, {length} tokens: no row is cut. Drag it."
            )
        self._share.setText(
            text.format(length=integer(length), rows=_percent(rows), tokens=_percent(tokens))
        )


class _Plot(pg.PlotWidget):  # type: ignore[misc]
    """The bars and the line."""

    moved = Signal(int)
    dropped = Signal(int)

    def __init__(self) -> None:
        y_axis = NumberAxis("left", pixels_apart=32, write=write_number, whole=True)
        x_axis = NumberAxis("bottom", pixels_apart=70, write=write_number, whole=True)
        super().__init__(axisItems={"bottom": x_axis, "left": y_axis})
        self._longest = 0
        self.setAccessibleName(
            self.tr("Length in tokens, with the line of the longest row allowed")
        )
        make_calm(self, x_axis, y_axis)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.plotItem.setContentsMargins(0, 6, 12, 0)
        self.setMinimumHeight(84)
        self._bars = pg.BarGraphItem(x0=[], x1=[], height=[])
        self.addItem(self._bars)
        self._line = pg.InfiniteLine(pos=1024, angle=90, movable=True)
        self._line.setCursor(Qt.CursorShape.SizeHorCursor)
        self._line.sigDragged.connect(lambda _: self.moved.emit(self.length()))
        self._line.sigPositionChangeFinished.connect(lambda _: self._drop(self.length()))
        self.addItem(self._line, ignoreBounds=True)
        theme.notifier.changed.connect(self._recolour)
        self._recolour()
        self._fit()

    def sizeHint(self) -> QSize:
        return QSize(200, 120)

    def length(self) -> int:
        """Where the line stands, at a multiple of `STEP` if it was moved."""
        value = float(self._line.value())
        return max(STEP, round(value) if value == round(value) else round(value / STEP) * STEP)

    def set_length(self, length: int) -> None:
        with QSignalBlocker(self._line):
            self._line.setValue(length)
        self._fit()

    def show_bars(self, bins: list[tuple[int, int, int]]) -> None:
        self._longest = bins[-1][1] if bins else 0
        self._bars.setOpts(
            x0=[low - 1 for low, _, _ in bins],
            x1=[high for _, high, _ in bins],
            height=[count for _, _, count in bins],
        )
        self._highest = max((count for _, _, count in bins), default=1)
        self._line.setVisible(bool(bins))
        self._fit()

    def _fit(self) -> None:
        right = max(self._longest, self.length(), 16) * 1.12
        highest = getattr(self, "_highest", 1)
        self.plotItem.vb.setRange(xRange=(0, right), yRange=(0, highest * 1.05), padding=0)
        self._line.setBounds((STEP, right))

    def _drop(self, length: int) -> None:
        self.set_length(length)
        self.dropped.emit(length)

    def _recolour(self) -> None:
        colours = theme.current()
        self.setBackground(colours.panel)
        for name in ("left", "bottom"):
            axis = self.getAxis(name)
            axis.setPen(pg.mkPen(None))
            axis.setTickPen(pg.mkPen(colours.line if name == "left" else None))
            axis.setTextPen(colours.secondary)
        self._bars.setOpts(brush=colours.chart_raw, pen=pg.mkPen(colours.panel, width=1))
        self._line.setPen(pg.mkPen(colours.careful, width=1))
        self._line.setHoverPen(pg.mkPen(colours.accent, width=1))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = KEY_STEPS.get(Qt.Key(event.key()))
        if step is None:
            super().keyPressEvent(event)
            return
        self._drop(max(STEP, (self.length() + step) // STEP * STEP))

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()  # it belongs to the page that scrolls


def _percent(share: float) -> str:
    """Two figures that mean something; never 0 for what is not nothing."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return f"<{number(0.1)}"
    return number(percent) if percent < 10 else number(percent, 0)
