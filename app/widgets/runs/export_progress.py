"""How far an export is, in a title, a bar and the time left."""

from __future__ import annotations

import time

from PySide6.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from app.widgets import figures, wording
from app.widgets.card import plain_label, secondary_label
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
LEAST_SECONDS = 2.0  # before a guess of the time left means anything


class ExportProgress(QWidget):
    """Follows one export through its events."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = plain_label()
        self.bar = QProgressBar()
        self.bar.setObjectName("exportProgressBar")
        self.bar.setAccessibleName(self.tr("Progress of the export"))
        self.bar.setTextVisible(False)
        self.detail = secondary_label()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        for part in (self.title, self.bar, self.detail):
            layout.addWidget(part)
        self._phase = ""
        self._began = 0.0
        self.begin()

    def begin(self) -> None:
        self.title.setText(self.tr("Starting"))
        self.detail.setText(self.tr("waking up the exporter, a few seconds"))
        self.bar.setRange(0, 0)

    def apply(self, event: Event) -> None:
        match event:
            case RunStarted():
                self.detail.setText("")
            case PhaseChanged():
                self._show_phase(event)
            case RunCompleted() | RunStopped() | RunFailed() | RunInterrupted():
                self.bar.setRange(0, PARTS)
                self.bar.setValue(PARTS if isinstance(event, RunCompleted) else 0)
                self.detail.setText("")

    def _show_phase(self, event: PhaseChanged) -> None:
        if event.phase != self._phase:
            self._phase, self._began = event.phase, time.monotonic()
        self.title.setText(wording.phase_title(event.phase))
        if event.fraction is None:
            self.bar.setRange(0, 0)
            self.detail.setText(event.detail)
            return
        self.bar.setRange(0, PARTS)
        self.bar.setValue(round(event.fraction * PARTS))
        self.detail.setText(self._time_left(event.fraction) or event.detail)

    def _time_left(self, fraction: float) -> str:
        spent = time.monotonic() - self._began
        if fraction <= 0 or fraction >= 1 or spent < LEAST_SECONDS:
            return ""
        left = figures.duration(spent / fraction * (1 - fraction))
        return self.tr("about {time} left").format(time=left)
