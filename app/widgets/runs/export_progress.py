"""How far an export is: its stages, a bar for the one under way, and the time left."""

from __future__ import annotations

import time

from PySide6.QtCore import QTimer
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QGridLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from app import theme
from app.models.export_course import ExportCourse
from app.widgets import figures, wording
from app.widgets.card import plain_label, secondary_label
from app.widgets.runs import export_words
from training_backend.export.needs import Stage
from training_backend.protocol import (
    Event,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
)

PARTS = 1_000


class ExportProgress(QWidget):
    """Follows one export through its events."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._course = ExportCourse({})
        self._rows: list[tuple[QLabel, QLabel]] = []
        self._list = QWidget()
        self.title = plain_label()
        self.bar = QProgressBar()
        self.bar.setObjectName("exportProgressBar")
        self.bar.setAccessibleName(self.tr("Progress of the export"))
        self.bar.setTextVisible(False)
        self.detail = secondary_label(wrap=True)
        self.left = secondary_label()
        self.left.setObjectName("exportTimeLeft")
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(8)
        for part in (self._list, self.title, self.bar, self.detail, self.left):
            self._column.addWidget(part)
        self._tick = QTimer(self, interval=1_000)
        self._tick.timeout.connect(self._show_time)
        self.begin()

    def begin(self, stages: dict[Stage, float] | None = None) -> None:
        """A new export; its stages are listed where they are known."""
        self._course = ExportCourse(stages or {})
        self._build_rows()
        self.title.setText(self.tr("Starting"))
        self.detail.setText(self.tr("waking up the exporter, a few seconds"))
        self.left.setText("")
        self.bar.setRange(0, 0)
        for part in (self.bar, self.left):
            part.setVisible(True)

    def apply(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.detail.setText("")
                self._tick.start()
            case PhaseChanged():
                self._show_phase(event)
            case RunCompleted() | RunStopped() | RunFailed() | RunInterrupted():
                self._tick.stop()
                self.bar.setRange(0, PARTS)
                self.bar.setValue(PARTS if isinstance(event, RunCompleted) else 0)
                for part in (self.bar, self.left):
                    part.setVisible(False)
                self.detail.setText("")
                if isinstance(event, RunCompleted):
                    self._show_rows(len(self._rows))

    def is_checking(self) -> bool:
        """Whether the files are written, and only their check is under way."""
        return self._course.is_at("prove")

    def _show_phase(self, event: PhaseChanged) -> None:
        self._course.apply(event.phase, event.fraction, time.monotonic())
        self._show_rows(self._course.current)
        self.title.setText(wording.phase_title(event.phase))
        self.detail.setText(event.detail)
        if event.fraction is None:
            self.bar.setRange(0, 0)
        else:
            self.bar.setRange(0, PARTS)
            self.bar.setValue(round(event.fraction * PARTS))
        self._show_time()

    def _show_time(self) -> None:
        left = self._course.seconds_left(time.monotonic())
        words = self.tr("about {time} left") if left else ""
        self.left.setText(words.format(time=figures.duration(left or 0.0)))

    # --------------------------------------------------------------------------------- the stages

    def _build_rows(self) -> None:
        old, self._list = self._list, QWidget()
        self._rows = []
        grid = QGridLayout(self._list)
        grid.setContentsMargins(0, 0, 0, 8)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(8)
        grid.setColumnStretch(1, 1)
        for row, stage in enumerate(self._course.stages):
            pair = plain_label(), plain_label(export_words.stage(stage))
            self._rows.append(pair)
            for column, label in enumerate(pair):
                grid.addWidget(label, row, column)
        self._list.setVisible(bool(self._rows))
        self._column.replaceWidget(old, self._list)
        old.setParent(None)
        old.deleteLater()
        self._show_rows(-1)

    def _show_rows(self, current: int) -> None:
        for row, (mark, text) in enumerate(self._rows):
            sign, words, role = ("✓", self.tr("done"), "good")
            if row == current:
                sign, words, role = ("●", self.tr("under way"), "accent")
            elif row > current:
                sign, words, role = ("○", self.tr("to come"), "secondary")
            mark.setText(sign)
            mark.setAccessibleName(words)
            bold = QFont.Weight.DemiBold if row == current else QFont.Weight.Normal
            text.setFont(theme.font(13, bold))
            for label, shown in ((mark, role), (text, "secondary" if row > current else "")):
                if label.property("role") != shown:
                    label.setProperty("role", shown)
                    label.style().unpolish(label)
                    label.style().polish(label)
