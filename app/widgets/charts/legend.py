"""What the lines of a chart stand for."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QWidget

from app import theme
from app.widgets.card import ElidedLabel

LIMIT_DASHES = (4.0, 3.0)
SWATCH_WIDTH = 14
DASHED_SWATCH_WIDTH = 28


def pen(role: str, dashes: tuple[float, ...] = (), width: int = 1) -> QPen:
    """A line's pen: the colour of its role, and its dashes in pixels.

    Width 1 in charts: wider pens are drawn ten times slower.
    """
    made = QPen(theme.current().color(role), width)
    made.setCosmetic(True)
    if dashes:
        made.setCapStyle(Qt.PenCapStyle.FlatCap)
        made.setDashPattern([length / width for length in dashes])
    return made


class LegendEntry(QWidget):
    """A piece of the line and a plain text."""

    def __init__(self, role: str, text: str, *, dashes: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.role = role
        self.dashes = dashes
        self.label = ElidedLabel(text)
        self.label.setProperty("role", "secondary")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(_Swatch(role, dashes))
        row.addWidget(self.label)


class _Swatch(QWidget):
    def __init__(self, role: str, dashes: tuple[float, ...]) -> None:
        super().__init__()
        self._role = role
        self._dashes = dashes
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        theme.notifier.changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(DASHED_SWATCH_WIDTH if self._dashes else SWATCH_WIDTH, 14)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setPen(pen(self._role, self._dashes, width=2))
        painter.drawLine(0, 7, self.width(), 7)
        painter.end()
