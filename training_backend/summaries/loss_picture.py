"""The curves of a run as a picture for its model card: a PNG, drawn with numpy alone.

No drawing library is among the packages, and the Hub shows no SVG of every kind. The figures on
the axes are strokes too.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from training_backend.summaries.losses import Course

WIDTH, HEIGHT = 1200, 480  # pixels; shown at half the size
_LEFT, _RIGHT, _TOP, _BOTTOM = 108, 40, 24, 56  # around the curves, in pixels
_MOST_POINTS = 500  # of a curve; more would not be told apart
_SMOOTHED = 40  # a point of the smooth curve is the mean of so much of it: one fortieth

_WHITE, _LINE, _TEXT = (255, 255, 255), (227, 230, 235), (102, 112, 133)
_RAW, _SMOOTH, _HELD_OUT = (185, 198, 243), (59, 91, 219), (217, 115, 13)

_Canvas = NDArray[np.float64]  # HEIGHT x WIDTH x 3, 0 to 255
_Colour = tuple[int, int, int]
_Points = Sequence[tuple[float, float]]

# Signs as strokes, in a box of 4 by 6 with y downwards.
_SIGNS: dict[str, tuple[_Points, ...]] = {
    "0": (((1, 0), (3, 0), (4, 1.5), (4, 4.5), (3, 6), (1, 6), (0, 4.5), (0, 1.5), (1, 0)),),
    "1": (((0.8, 1.2), (2.2, 0), (2.2, 6)),),
    "2": (((0, 1.4), (1, 0), (3, 0), (4, 1.4), (3.8, 2.6), (0, 6), (4, 6)),),
    "3": (((0, 0), (4, 0), (1.8, 2.4), (3.2, 2.6), (4, 4), (3, 6), (1, 6), (0, 4.8)),),
    "4": (((3, 6), (3, 0), (0, 4.2), (4, 4.2)),),
    "5": (((3.8, 0), (0.4, 0), (0.2, 2.6), (2.8, 2.3), (4, 3.8), (3, 6), (1, 6), (0, 5)),),
    "6": (((3.4, 0), (1, 2), (0, 4), (1, 6), (3, 6), (4, 4.4), (3, 2.8), (1, 2.8), (0, 4)),),
    "7": (((0, 0), (4, 0), (1.4, 6)),),
    "8": (
        ((1, 0), (3, 0), (3.8, 1.4), (3, 2.8), (1, 2.8), (0.2, 1.4), (1, 0)),
        ((1, 2.8), (0, 4.4), (1, 6), (3, 6), (4, 4.4), (3, 2.8)),
    ),
    "9": (((4, 2), (3, 3.2), (1, 3.2), (0, 1.6), (1, 0), (3, 0), (4, 2), (3, 4), (0.6, 6)),),
    ".": (((0.4, 5.8), (0.4, 6)),),
    "-": (((0.4, 3.2), (3.4, 3.2)),),
}
_NARROW = {".": 1.2}
_SCALE = 3.0  # pixels for one unit of a sign
_GAP = 1.6
_MOST_SIGNS = 5  # beside the axis


def png(training: Course, held_out: Course) -> bytes | None:
    """Losses over steps: the training's raw and smoothed, the held-out ones with dots.

    Args:
        training, held_out: steps with their loss, in the order of their steps.

    Returns None where there are fewer than two reports.
    """
    reports = [(step, loss) for step, loss in training if math.isfinite(loss)]
    tests = [(step, loss) for step, loss in held_out if math.isfinite(loss)]
    if len(reports) < 2:
        return None
    raw = _thinned(reports)
    smooth = _smoothed(raw)
    steps = [step for step, _ in (*raw, *tests)]
    low, high = _bounds([loss for _, loss in (*raw, *smooth, *tests)])
    first, last = min(steps), max(steps)

    def place(step: float, loss: float) -> tuple[float, float]:
        across = (step - first) / (last - first) if last > first else 0.5
        up = (min(loss, high) - low) / (high - low)
        return (
            _LEFT + across * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM),
        )

    canvas: _Canvas = np.full((HEIGHT, WIDTH, 3), _WHITE, dtype=np.float64)
    for loss in _ticks(low, high, 5):
        y = place(first, loss)[1]
        _draw(canvas, [(_LEFT, y), (WIDTH - _RIGHT, y)], _LINE, 1.5)
        figure = _figure(loss, high - low)
        if len(figure) <= _MOST_SIGNS:
            _write(canvas, figure, _LEFT - 14, y, "right")
    for step in _ticks(first, last, 6):
        if step == int(step):
            x = place(step, low)[0]
            _write(canvas, str(int(step)), x, HEIGHT - _BOTTOM / 2 + 2, "middle")
    _draw(canvas, [place(*point) for point in raw], _RAW, 2.0)
    _draw(canvas, [place(*point) for point in smooth], _SMOOTH, 3.5)
    dots = [place(*point) for point in _thinned(tests)]
    _draw(canvas, dots, _HELD_OUT, 3.0)
    for x, y in dots:
        _draw(canvas, [(x, y), (x, y)], _HELD_OUT, 9.0)
    return _encoded(canvas.round().astype(np.uint8))


def _thinned(points: Course) -> list[tuple[float, float]]:
    """At most so many points: means of as many neighbours each."""
    size = -(-len(points) // _MOST_POINTS)
    pieces = [points[at : at + size] for at in range(0, len(points), size or 1)]
    return [
        (sum(step for step, _ in piece) / len(piece), sum(loss for _, loss in piece) / len(piece))
        for piece in pieces
    ]


def _smoothed(points: _Points) -> list[tuple[float, float]]:
    reach = max(1, len(points) // _SMOOTHED)
    smooth = []
    for at, (step, _) in enumerate(points):
        around = [loss for _, loss in points[max(0, at - reach) : at + reach + 1]]
        smooth.append((step, sum(around) / len(around)))
    return smooth


def _bounds(losses: Sequence[float]) -> tuple[float, float]:
    """What the axis shows: all but a few spikes, which are cut off at its upper end."""
    ordered = sorted(losses)
    high = max(ordered[int(0.99 * (len(ordered) - 1))], ordered[-1] if len(ordered) < 50 else 0.0)
    low = ordered[0]
    room = 0.06 * (high - low) or max(abs(low) * 0.1, 0.1)
    return max(0.0, low - room) if low >= 0 else low - room, high + room


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between the two, `about` so many."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / about))
    step = next(unit * by for by in (1, 2, 2.5, 5, 10) if span / (unit * by) <= about)
    count = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [number * step for number in count]


def _figure(loss: float, span: float) -> str:
    digits = min(4, max(0, 1 - math.floor(math.log10(span))))
    return f"{loss:.{digits}f}"


def _write(canvas: _Canvas, text: str, x: float, y: float, side: str) -> None:
    """A number whose middle is at the height y; `side`: what of it is at x."""
    widths = [_NARROW.get(sign, 4.0) + _GAP for sign in text]
    whole = (sum(widths) - _GAP) * _SCALE
    left = x - (whole if side == "right" else whole / 2)
    for sign, width in zip(text, widths, strict=True):
        for stroke in _SIGNS[sign]:
            points = [(left + a * _SCALE, y + (b - 3.0) * _SCALE) for a, b in stroke]
            _draw(canvas, points, _TEXT, 2.2)
        left += width * _SCALE


def _draw(canvas: _Canvas, points: _Points, colour: _Colour, width: float) -> None:
    """A line through the points with round ends, its edges smoothed by their distance."""
    covered = np.zeros((HEIGHT, WIDTH))
    reach = width / 2 + 1
    for (x0, y0), (x1, y1) in pairwise(points):
        left, right = max(0, int(min(x0, x1) - reach)), min(WIDTH, int(max(x0, x1) + reach) + 2)
        top, bottom = max(0, int(min(y0, y1) - reach)), min(HEIGHT, int(max(y0, y1) + reach) + 2)
        if left >= right or top >= bottom:
            continue  # beside the picture
        ys, xs = np.mgrid[top:bottom, left:right]
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        along = ((xs - x0) * (x1 - x0) + (ys - y0) * (y1 - y0)) / (length or 1.0)
        along = along.clip(0, 1)
        distance = np.hypot(xs - x0 - along * (x1 - x0), ys - y0 - along * (y1 - y0))
        part = covered[top:bottom, left:right]
        np.maximum(part, (width / 2 + 0.5 - distance).clip(0, 1), out=part)
    canvas += covered[..., None] * (np.array(colour) - canvas)


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    """PNG (ISO/IEC 15948): true colour, 8 bits, no filter."""
    height, width, _ = pixels.shape
    rows = np.zeros(
        (height, 1 + width * 3), dtype=np.uint8
    )  # a row begins with its filter's number
    rows[:, 1:] = pixels.reshape(height, width * 3)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*part) for part in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
