"""Keeps the computer awake while runs remain: the live one, and those that follow it."""

from __future__ import annotations

from PySide6.QtCore import QObject, Qt, Signal

from app.background import Latest
from app.desks.queue_controller import QueueController
from app.i18n import explain
from app.run_controller import RunController
from training_backend import preferences
from training_backend.computer.stay_awake import StayAwake
from training_backend.errors import UserError

LEAVE_SECONDS = 1.0


class KeepAwake(QObject):
    """Follows training and queue; what the person prefers is asked at every beginning."""

    told = Signal(str)  # why the computer may fall asleep all the same; "" when it will not

    _cannot = Signal(object)  # from a thread

    def __init__(
        self, training: RunController, queue: QueueController, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._training = training
        self._queue = queue
        self._closed = False
        self._wanted = True
        self._keeping = Latest(self)
        self._awake = StayAwake(self._cannot.emit)
        self._cannot.connect(self._on_cannot, Qt.ConnectionType.QueuedConnection)
        for change in (training.run_opened, training.run_ended, training.refused, queue.changed):
            change.connect(lambda *_: self._update())

    def choose(self, wanted: bool) -> None:
        """Remember what the person wants, and do it."""
        self._wanted = wanted

        def save() -> None:
            preferences.change(lambda: {"keep_awake": self._wanted})

        def obey(_: object) -> None:
            self.told.emit("")
            self._awake.end(patience=0)
            self._update()

        self._keeping.ask(save, obey, lambda error: self.told.emit(explain(error)))

    def shutdown(self) -> None:
        self._closed = True  # the queue may still have something to say
        self._awake.end(LEAVE_SECONDS)

    def _update(self) -> None:
        if not self._closed and (self._training.is_busy() or self._queue.is_going()):
            self._awake.begin()
        else:
            self._awake.end(patience=0)  # the thread ends by itself; the window does not wait

    def _on_cannot(self, error: UserError) -> None:
        self.told.emit(explain(error))
