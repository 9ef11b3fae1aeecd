"""A chart as a picture or as a table: PNG, SVG and CSV."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import QBuffer, QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QImage, QPainter
from PySide6.QtSvg import QSvgGenerator

from app import theme
from app.widgets.charts.legend import DASHED_SWATCH_WIDTH, SWATCH_WIDTH, LegendEntry, pen
from app.widgets.charts.plot import Plot
from app.widgets.charts.series import Floats
from training_backend.errors import UserError

if TYPE_CHECKING:
    from app.widgets.charts.chart_card import ChartCard

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
    size = _size(card)
    image = QImage(size * PNG_SCALE, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(PNG_SCALE)
    image.fill(QColor(theme.current().panel))
    painter = QPainter(image)
    _paint(painter, card)
    painter.end()
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    # The types say bytes, the function takes text alone.
    image.save(buffer, "PNG")  # type: ignore[call-overload]
    return bytes(buffer.data().data())


def svg(card: ChartCard) -> bytes:
    """The same as lines and texts."""
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    generator = QSvgGenerator()
    generator.setOutputDevice(buffer)
    generator.setResolution(DOTS_PER_INCH)
    generator.setSize(_size(card))
    generator.setViewBox(QRectF(QPointF(0, 0), _size(card).toSizeF()))
    generator.setTitle(card.title.text())
    painter = QPainter(generator)
    painter.fillRect(generator.viewBoxF(), QColor(theme.current().panel))
    card.plot.ends_at_edges = True
    card.plot.redraw()
    _paint(painter, card)
    painter.end()
    card.plot.ends_at_edges = False
    card.plot.redraw()
    return bytes(buffer.data().data())


def _size(card: ChartCard) -> QSize:
    head = HEAD_HEIGHT * _paint_head(None, card)
    return QSize(card.plot.width() + 2 * PADDING, card.plot.height() + head + 2 * PADDING)


def _paint(painter: QPainter, card: ChartCard) -> None:
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    plot = card.plot
    head = HEAD_HEIGHT * _paint_head(painter, card)
    dots = [line.item.scatter for line in plot.lines if line.dots]
    for item in dots:
        item.setExportMode(True, {"antialias": True})  # as shapes, not as stamped pixels
    target = QRectF(PADDING, PADDING + head, plot.width(), plot.height())
    plot.render(painter, target, plot.viewport().rect())
    for item in dots:
        item.setExportMode(False)


def _paint_head(painter: QPainter | None, card: ChartCard) -> int:
    """Title and legend, on as many lines as they need; returns how many (None only counts)."""
    x, row = float(PADDING), 0
    right = PADDING + card.plot.width()

    def write(text: str, font: QFont, role: str, entry: LegendEntry | None = None) -> None:
        nonlocal x, row
        swatch = 0
        if entry is not None:
            swatch = (DASHED_SWATCH_WIDTH if entry.dashes else SWATCH_WIDTH) + 6
        width = swatch + QFontMetricsF(font).horizontalAdvance(text)
        if x > PADDING and x + width > right:
            x, row = float(PADDING), row + 1
        top = PADDING + row * HEAD_HEIGHT
        if painter is not None:
            if entry is not None:
                middle = top + HEAD_HEIGHT // 2
                painter.setPen(pen(entry.role, entry.dashes, width=2))
                painter.drawLine(int(x), middle, int(x) + swatch - 6, middle)
            painter.setFont(font)
            painter.setPen(theme.current().color(role))
            box = QRectF(x + swatch, top, width, HEAD_HEIGHT)
            flags = Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextDontClip
            painter.drawText(box, int(flags), text)
        x += width + 20

    write(card.title.text(), theme.font(14, QFont.Weight.DemiBold), "text")
    for entry in card.legend:
        if not entry.isHidden() or entry.parent() is None:
            write(entry.label.text(), theme.font(13), "secondary", entry)
    if not card.plot.cut_note.isHidden():
        write(card.plot.cut_note.text(), theme.font(12), "secondary")
    return row + 1


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(
        "chart_not_saved",
        "{path} cannot be written: {reason}.",
        "Choose another folder, or free some space.",
        path=path,
        reason=error.strerror or error,
    )
