"""A chart as a picture or as a table: PNG, SVG and CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import QBuffer, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from app import theme
from app.widgets.legend import DASHED_SWATCH_WIDTH, SWATCH_WIDTH, pen
from app.widgets.plot import Plot
from app.widgets.series import Floats
from training_backend.errors import UserError

if TYPE_CHECKING:
    from app.widgets.chart_card import ChartCard

PNG_SCALE = 2
PADDING = 16
HEAD_HEIGHT = 32
DOTS_PER_INCH = 96


@dataclass(frozen=True)
class Values:
    """The raw values of a chart: the x of every point, and of each line its own points."""

    x_name: str
    lines: tuple[tuple[str, Floats, Floats], ...]  # name with unit, xs, ys


def values(plot: Plot, x_name: str) -> Values:
    """What the plot's named lines hold now."""
    named = [line for line in plot.lines if line.name and len(line.xs)]
    return Values(x_name, tuple((line.name, line.xs.copy(), line.ys.copy()) for line in named))


def write_csv(path: Path, table: Values) -> None:
    """One row an x; what a line has no point at is empty. For a thread; raises `UserError`."""
    every = np.unique(np.concatenate([xs for _, xs, _ in table.lines]))
    columns = [every.tolist()]
    for _, xs, ys in table.lines:
        column: list[float | str] = [""] * len(every)
        for at, y in zip(np.searchsorted(every, xs).tolist(), ys.tolist(), strict=True):
            column[at] = y
        columns.append(column)
    columns[0] = [int(x) if x.is_integer() else x for x in columns[0]]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([table.x_name, *(name for name, _, _ in table.lines)])
            writer.writerows(zip(*columns, strict=True))
    except OSError as error:
        raise _not_written(path, error) from error


def write_bytes(path: Path, data: bytes) -> None:
    """For a thread; raises `UserError`."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise _not_written(path, error) from error


def png(card: ChartCard) -> bytes:
    """The chart as it is seen, with title and legend, twice as fine as on the screen."""
    size = _size(card.plot)
    image = QImage(size * PNG_SCALE, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(PNG_SCALE)
    image.fill(QColor(theme.current().panel))
    painter = QPainter(image)
    _paint(painter, card)
    painter.end()
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    image.save(buffer, b"PNG")
    return bytes(buffer.data().data())


def svg(card: ChartCard) -> bytes:
    """The same as lines and texts."""
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setResolution(DOTS_PER_INCH)
    generator.setSize(_size(card.plot))
    generator.setViewBox(QRectF(0, 0, _size(card.plot).width(), _size(card.plot).height()))
    generator.setTitle(card.title.text())
    painter = QPainter(generator)
    painter.fillRect(generator.viewBoxF(), QColor(theme.current().panel))
    _paint(painter, card)
    painter.end()
    return bytes(buffer.data().data())


def _size(plot: Plot) -> QSize:
    return QSize(plot.width() + 2 * PADDING, plot.height() + HEAD_HEIGHT + 2 * PADDING)


def _paint(painter: QPainter, card: ChartCard) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    plot, colours = card.plot, theme.current()
    x, middle = float(PADDING), PADDING + HEAD_HEIGHT / 2

    def write(text: str, font: QFont, role: str) -> None:
        nonlocal x
        painter.setFont(font)
        painter.setPen(colours.color(role))
        box = QRectF(x, PADDING, plot.width(), HEAD_HEIGHT)
        painter.drawText(box, int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), text)
        x += QFontMetricsF(font).horizontalAdvance(text) + 20

    write(card.title.text(), theme.font(14, QFont.Weight.DemiBold), "text")
    for entry in card.legend:
        if not entry.isVisibleTo(card):
            continue
        width = DASHED_SWATCH_WIDTH if entry.dashes else SWATCH_WIDTH
        painter.setPen(pen(entry.role, entry.dashes, width=2))
        painter.drawLine(int(x), int(middle), int(x) + width, int(middle))
        x += width + 6
        write(entry.label.text(), theme.font(13), "secondary")
    if plot.cut_note.isVisibleTo(plot):
        write(f"({plot.cut_note.text()})", theme.font(12), "secondary")
    target = QRectF(PADDING, PADDING + HEAD_HEIGHT, plot.width(), plot.height())
    dots = [line.item.scatter for line in plot.lines if line.dots]
    for item in dots:
        item.setExportMode(True, {"antialias": True})  # as shapes, not as stamped pixels
    plot.render(painter, target, plot.viewport().rect())
    for item in dots:
        item.setExportMode(False)


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(
        "chart_not_saved",
        "{path} cannot be written: {reason}.",
        "Choose another folder, or free some space.",
        path=path,
        reason=error.strerror or error,
    )
