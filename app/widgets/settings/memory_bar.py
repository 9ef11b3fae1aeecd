"""What a job needs of a device's memory, as one bar."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication, QEvent, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QHelpEvent, QPainter, QPainterPath, QPaintEvent, QPen
from PySide6.QtWidgets import QToolTip, QWidget

from app import theme
from app.widgets import figures
from app.widgets.card import plain_tool_tip
from training_backend.memory.memory_parts import PartName
from training_backend.vram import Estimate

HEIGHT = 20
BAR_HEIGHT = 12
CORNER = 4
NARROWEST = 2  # what is there at all is seen


@dataclass(frozen=True)
class Segment:
    """A stretch of the bar. `parts` are those of the estimate that it stands for."""

    name: str
    role: str
    bytes: int
    parts: tuple[PartName, ...] = ()
    hatched: bool = False


def segments(estimate: Estimate) -> list[Segment]:
    """The parts as people think of them, then what others use and what is left."""
    size = {part.name: part.bytes for part in estimate.parts}
    groups: tuple[tuple[str, str, tuple[PartName, ...]], ...] = (
        (_tr("Model"), "accent", ("weights",)),
        (_tr("Adapter and optimizer"), "good", ("adapter", "gradients", "optimizer")),
        (_tr("Activations"), "chart_held_out", ("activations",)),
        (_tr("Overhead"), "secondary", ("overhead",)),
    )
    made = [
        Segment(name, role, sum(size[part] for part in parts), parts)
        for name, role, parts in groups
    ]
    others = estimate.device.used_by_others_bytes
    made.append(Segment(_tr("Other programs"), "disabled", others, hatched=True))
    free = max(0, estimate.device.available_bytes - estimate.total_bytes)
    made.append(Segment(_tr("Free"), "track", free))
    return made


def fill(painter: QPainter, place: QRectF, segment: Segment) -> None:
    """Paint a stretch; what is not ours is hatched, so that no colour says it alone."""
    colours = theme.current()
    colour = colours.color(segment.role)
    if segment.hatched:
        painter.fillRect(place, colours.color("track"))
        painter.fillRect(place, QBrush(colour, Qt.BrushStyle.BDiagPattern))
    else:
        painter.fillRect(place, colour)


def _tr(text: str) -> str:
    return QCoreApplication.translate("MemoryBar", text)


class MemoryBar(QWidget):
    """The stretches side by side; beyond the device's size a line stands at its limit."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("memoryBar")
        self.setFixedHeight(HEIGHT)
        self.setAccessibleName(self.tr("Memory needed"))
        self._segments: list[Segment] = []
        self._limit = 0
        self._faded = False
        theme.notifier.changed.connect(self.update)

    def show_estimate(self, estimate: Estimate) -> None:
        self._segments = [segment for segment in segments(estimate) if segment.bytes]
        self._limit = estimate.device.total_bytes
        self._faded = False
        self.setAccessibleDescription(
            ", ".join(f"{one.name} {figures.gigabytes(one.bytes)}" for one in self._segments)
        )
        self.update()

    def fade(self) -> None:
        """What is shown is of other settings."""
        self._faded = True
        self.update()

    def _places(self) -> list[tuple[Segment, QRectF]]:
        whole = max(self._limit, sum(segment.bytes for segment in self._segments), 1)
        top = (HEIGHT - BAR_HEIGHT) / 2
        left, places = 0.0, []
        for segment in self._segments:
            width = max(NARROWEST, self.width() * segment.bytes / whole)
            places.append((segment, QRectF(left, top, width, BAR_HEIGHT)))
            left += width
        return places

    def paintEvent(self, event: QPaintEvent) -> None:
        colours = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(0, (HEIGHT - BAR_HEIGHT) / 2, self.width(), BAR_HEIGHT)
        outline = QPainterPath()
        outline.addRoundedRect(area, CORNER, CORNER)
        painter.setClipPath(outline)
        painter.fillRect(area, colours.color("track"))
        painter.setOpacity(0.35 if self._faded else 1.0)
        for segment, place in self._places():
            fill(painter, place, segment)
            painter.fillRect(
                QRectF(place.right() - 1, place.top(), 1, BAR_HEIGHT), colours.color("panel")
            )
        painter.setClipping(False)
        needed = sum(segment.bytes for segment in self._segments)
        if needed > self._limit > 0:
            at = self.width() * self._limit / needed
            painter.setPen(QPen(QColor(colours.bad), 2, Qt.PenStyle.DashLine))
            painter.drawLine(int(at), 0, int(at), HEIGHT)

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QHelpEvent):
            for segment, place in self._places():
                if place.left() <= event.pos().x() <= place.right():
                    text = f"{segment.name}: {figures.gigabytes(segment.bytes)}"
                    QToolTip.showText(event.globalPos(), plain_tool_tip(text), self)
            return True
        return super().event(event)
