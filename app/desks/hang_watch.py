"""Notices when the run that the window follows does not move."""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, QTimer, Signal

from app.run_controller import RunController
from training_backend.protocol import Event
from training_backend.watching.standstill import Notices, Standstill, Watch

TICK_MILLISECONDS = 5_000


class HangWatch(QObject):
    """Emits what is known of a standstill, when it begins and as it lasts, and when it is over."""

    stands = Signal(object)  # Standstill
    moves = Signal()  # also when the run has ended

    def __init__(self, training: RunController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._watch, self._notices = Watch(), Notices()
        self.current: Standstill | None = None
        self._looked = 0.0
        self._timer = QTimer(self, interval=TICK_MILLISECONDS)
        self._timer.timeout.connect(self._tick)
        training.run_opened.connect(self._begin)
        training.event_arrived.connect(self._take)
        training.run_ended.connect(self._end)

    def shutdown(self) -> None:
        self._timer.stop()

    def _begin(self) -> None:
        self._watch = Watch()
        self._looked = time.monotonic()
        self._timer.start()

    def _take(self, event: Event) -> None:
        self._watch.take(event)

    def _tick(self) -> None:
        now = time.monotonic()
        self.current = self._watch.passed(now - self._looked)
        self._looked = now
        match self._notices.of(self.current):
            case Standstill() as new:
                self.stands.emit(new)
            case "moves":
                self.moves.emit()

    def _end(self) -> None:
        self._timer.stop()
        self.current = None
        if self._notices.of(None) is not None:
            self.moves.emit()
