"""The program's sign: a loss that falls. Drawn, so that it is sharp in every size."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap

from app import theme

SIZES = (16, 22, 32, 64, 128)


def sign() -> QIcon:
    """For the window and the tray. The same on light and dark: it brings its own ground."""
    icon = QIcon()
    for size in SIZES:
        icon.addPixmap(_drawn(size))
    return icon


def _drawn(size: int) -> QPixmap:
    image = QPixmap(size, size)
    image.fill(Qt.GlobalColor.transparent)
    curve = QPainterPath()
    curve.moveTo(0.22 * size, 0.24 * size)
    curve.cubicTo(0.3 * size, 0.74 * size, 0.46 * size, 0.72 * size, 0.8 * size, 0.74 * size)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(theme.LIGHT.accent))
    painter.drawRoundedRect(QRectF(0, 0, size, size), 0.22 * size, 0.22 * size)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    pen = QPen(QColor(theme.LIGHT.on_accent), 0.1 * size)
    pen.setCapStyle(Qt.PenCapStyle.RoundCap)
    painter.setPen(pen)
    painter.drawPath(curve)
    painter.end()
    return image
