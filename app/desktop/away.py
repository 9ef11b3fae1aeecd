"""What became of the queue while nobody looked at the window, told once at the return.

Runs of the queue that ended after the last time somebody was here are new: the window was
closed, in the background, or a terminal worked through the queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QApplication

from app.background import run_in_background
from app.desks.queue_controller import QueueController
from app.desktop.notifier import Notifier
from app.settings import Settings
from training_backend.queueing import queue_summary
from training_backend.summaries.run_facts import RunFacts


class Away(QObject):
    """Emits `found` with what is new, at the window's start or when the queue has ended."""

    found = Signal(list)  # of RunFacts, oldest first, never empty

    def __init__(
        self,
        queue: QueueController,
        notifier: Notifier,
        settings: Settings,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._queue = queue
        self._notifier = notifier
        self._settings = settings
        queue.drained.connect(self._on_drained)

    def look(self) -> None:
        """At the window's start: what ended since it was closed."""
        if self._settings.told_until() is None:  # the first start
            self.dismiss()
        self._read(self._show)

    def dismiss(self) -> None:
        """The person knows of all that has ended up to now."""
        self._settings.set_told_until(time.time())

    def _on_drained(self) -> None:
        if QApplication.activeWindow() is not None:
            self.dismiss()  # it ended before their eyes
            return

        def tell(facts: list[RunFacts]) -> None:
            waiting = len(self._queue.state.entries)
            self._notifier.tell(
                self.tr("The queue has ended"), queue_summary.sentence(facts, waiting)
            )
            self._show(facts)

        self._read(tell)

    def _read(self, then: Callable[[list[RunFacts]], None]) -> None:
        since = self._settings.told_until() or time.time()
        run_in_background(lambda: queue_summary.ended_since(since), then, lambda _: None, self)

    def _show(self, facts: list[RunFacts]) -> None:
        if facts:
            self.found.emit(facts)
