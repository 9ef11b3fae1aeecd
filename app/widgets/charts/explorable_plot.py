"""A plot to look into: a readout under the pointer, and zoom along x.

Drag over a range to zoom to it, double-click to see everything again; Ctrl and the wheel zoom
about the pointer. By keyboard: arrows, Home and End move the readout, plus and minus zoom
about it, Escape shows everything.
"""

from __future__ import annotations

from collections.abc import Callable

import pyqtgraph as pg
from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QFocusEvent, QKeyEvent, QMouseEvent, QResizeEvent, QWheelEvent

from app import theme
from app.widgets.card import PlainLabel, QuietButton
from app.widgets.charts.plot import Plot
from app.widgets.charts.plot_axes import NumberAxis

DRAG_PIXELS = 6
NOTCH_FACTOR = 0.8
KEY_FACTOR = 0.5


class ExplorablePlot(Plot):
    """Args: readout: given an x, that of the nearest point and what to say of it, or None."""

    def __init__(
        self,
        x_axis: NumberAxis,
        y_axis: NumberAxis,
        *,
        empty_text: str,
        drawing: Callable[[], None],
        readout: Callable[[float], tuple[float, str] | None],
    ) -> None:
        super().__init__(x_axis, y_axis, empty_text=empty_text, drawing=drawing)
        self._readout_at = readout
        self.setMouseTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self._cursor = pg.InfiniteLine(angle=90, movable=False)
        self._cursor.setVisible(False)
        self.addItem(self._cursor, ignoreBounds=True)
        self._cursor_x: float | None = None  # in the data's units
        self._dragged_from: float | None = None  # in pixels
        self._range = pg.LinearRegionItem(movable=False)
        self._range.setVisible(False)
        self.addItem(self._range, ignoreBounds=True)
        self._readout = PlainLabel(parent=self)
        self._readout.setProperty("role", "readout")
        self._readout.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._readout.setVisible(False)
        self.reset_button = QuietButton(self.tr("Show all"))
        self.reset_button.setParent(self)
        self.reset_button.setVisible(False)
        self.reset_button.clicked.connect(self.reset_zoom)
        self.redrawn.connect(self._move_cursor)
        self._recolour_pointer()
        theme.notifier.changed.connect(self._recolour_pointer)

    # ------------------------------------------------------------------------------------- zoom

    def zoom_to(self, x_low: float, x_high: float) -> None:
        """Show the points between these."""
        self.window_x.zoom_to(self.x_in_view(x_low), self.x_in_view(x_high))
        self._zoomed()

    def reset_zoom(self) -> None:
        self.window_x.reset()
        self._zoomed()

    def _zoom_about(self, view_x: float, factor: float) -> None:
        self.window_x.zoom_about(view_x, factor)
        self._zoomed()

    def _zoomed(self) -> None:
        zoomed = self.window_x.is_zoomed
        if not zoomed and self.reset_button.hasFocus():
            self.setFocus(Qt.FocusReason.OtherFocusReason)
        self.reset_button.setVisible(zoomed)
        self._place_reset_button()
        self.redraw()

    def _place_reset_button(self) -> None:
        self.reset_button.adjustSize()
        self.reset_button.move(56, 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if hasattr(self, "reset_button"):
            self._place_reset_button()

    # -------------------------------------------------------------------------------- the mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:
        if event.button() == Qt.MouseButton.LeftButton and not self.is_empty():
            self._dragged_from = event.position().x()
        event.accept()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        if self._dragged_from is not None:
            dragged = abs(event.position().x() - self._dragged_from) >= DRAG_PIXELS
            self._range.setVisible(dragged)
            if dragged:
                ends = (self._view_x(self._dragged_from), self._view_x(event.position().x()))
                self._range.setRegion(sorted(ends))
        self._cursor_x = self.x_of_view(self._view_x(event.position().x()))
        self._move_cursor()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        start, self._dragged_from = self._dragged_from, None
        self._range.setVisible(False)
        if start is not None and abs(event.position().x() - start) >= DRAG_PIXELS:
            self.window_x.zoom_to(self._view_x(start), self._view_x(event.position().x()))
            self._zoomed()
        event.accept()

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        self.reset_zoom()
        event.accept()

    def leaveEvent(self, event: QEvent) -> None:
        super().leaveEvent(event)
        self._hide_cursor()

    def wheelEvent(self, event: QWheelEvent) -> None:
        notches = event.angleDelta().y() / 120
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier and not self.is_empty():
            self._zoom_about(self._view_x(event.position().x()), NOTCH_FACTOR**notches)
            event.accept()
        else:
            event.ignore()  # the page scrolls

    def _view_x(self, pixel: float) -> float:
        """Where a pixel is, within what is shown."""
        low, high = self.window_x.shown
        x = float(self.plotItem.vb.mapSceneToView(QPointF(pixel, 0)).x())
        return min(max(x, low), high)

    # ----------------------------------------------------------------------------- the keyboard

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        if event.reason() in (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason):
            self._cursor_x = self.x_of_view(self.window_x.shown[1])
            self._move_cursor()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self._hide_cursor()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        match event.key():
            case Qt.Key.Key_Plus | Qt.Key.Key_Equal:
                self._zoom_about(self._cursor_in_view(), KEY_FACTOR)
            case Qt.Key.Key_Minus:
                self._zoom_about(self._cursor_in_view(), 1 / KEY_FACTOR)
            case Qt.Key.Key_Escape if self.window_x.is_zoomed:
                self.reset_zoom()
            case Qt.Key.Key_Home | Qt.Key.Key_End | Qt.Key.Key_Left | Qt.Key.Key_Right as key:
                self._step(Qt.Key(key))
            case _:
                super().keyPressEvent(event)

    def _step(self, key: Qt.Key) -> None:
        """Move the readout to the next point, or to an end of what is shown."""
        low, high = self.window_x.shown
        pixel = float(self.plotItem.vb.viewPixelSize()[0])
        start = self._cursor_in_view()
        targets = {
            Qt.Key.Key_Home: [low],
            Qt.Key.Key_End: [high],
            Qt.Key.Key_Left: [start - step * pixel for step in range(1, 2000)],
            Qt.Key.Key_Right: [start + step * pixel for step in range(1, 2000)],
        }[key]
        here = self._readout_at(self.x_of_view(start))
        for target in targets:
            found = self._readout_at(self.x_of_view(target))
            if found is not None and (
                here is None or found[0] != here[0] or self._cursor_x is None
            ):
                self._cursor_x = found[0]
                break
        if self.window_x.is_zoomed and self._cursor_x is not None:
            self.window_x.bring_in(self.x_in_view(self._cursor_x))
            self.redraw()
        self._move_cursor()

    def _cursor_in_view(self) -> float:
        if self._cursor_x is None:
            return self.window_x.shown[1]
        return self.x_in_view(self._cursor_x)

    # ------------------------------------------------------------------------------- the readout

    def _move_cursor(self) -> None:
        found = None if self._cursor_x is None else self._readout_at(self._cursor_x)
        self._cursor.setVisible(found is not None)
        self._readout.setVisible(found is not None)
        if found is None:
            return
        x, text = found
        self._cursor.setValue(self.x_in_view(x))
        self._readout.setText(text)
        self._readout.adjustSize()
        at = int(self.plotItem.vb.mapViewToScene(QPointF(self.x_in_view(x), 0)).x())
        left = at + 12
        if left + self._readout.width() > self.width():
            left = max(0, at - 12 - self._readout.width())
        self._readout.move(left, 8)
        self._readout.raise_()

    def _hide_cursor(self) -> None:
        self._cursor_x = None
        self._move_cursor()

    def _recolour_pointer(self) -> None:
        colours = theme.current()
        self._cursor.setPen(pg.mkPen(colours.secondary, width=1))
        soft = colours.color("accent")
        soft.setAlpha(40)
        self._range.setBrush(soft)
        for edge in self._range.lines:
            edge.setPen(pg.mkPen(colours.accent, width=1))
        self._readout.setStyleSheet(
            f"background: {colours.panel}; color: {colours.text};"
            f"border: 1px solid {colours.control_line}; border-radius: 6px; padding: 6px 8px;"
        )
