"""Decides what the Train page shows: the live run, or another one from its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from app.background import run_in_background
from app.run_controller import RunController
from training_backend.protocol import Event
from training_backend.runs import Run

if TYPE_CHECKING:
    from app.pages.train import TrainPage


class RunViewer(QObject):
    """Feeds the page from a live run or a journal; the page cannot tell the difference.

    While a journal is being read, events of a live run wait, and follow without a gap.
    """

    def __init__(
        self,
        controller: RunController,
        page: Callable[[], TrainPage],
        on_error: Callable[[Exception], None],
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self._controller = controller
        self._page = page
        self._on_error = on_error
        self._shown: Run | None = None
        self._waiting: list[Event] | None = None  # live events, while the journal is read
        controller.run_opened.connect(self._on_opened)
        controller.event_arrived.connect(self._on_event)

    def show(self, run: Run) -> None:
        """Show a run from its file, and go on live if it is the one being followed."""
        current = self._controller.active()
        live = current is not None and current.folder == run.folder
        self._shown = run
        self._waiting = []
        self._page().open_run(run, live)
        run_in_background(
            run.events, lambda events: self._replay(run, events), self._on_error, self
        )

    def show_current(self) -> None:
        """Leave history and show the run that is being followed."""
        current = self._controller.active()
        if current is not None:
            self.show(current)

    def _replay(self, run: Run, events: list[Event]) -> None:
        if self._shown is not run or self._waiting is None:
            return  # the person has moved on
        last = events[-1].seq if events else -1
        newer = [event for event in self._waiting if event.seq > last]
        self._waiting = None
        self._page().replay([*events, *newer])

    def _on_opened(self, run: Run) -> None:
        # The controller tells a followed run from its first event on: nothing to replay.
        self._shown = run
        self._waiting = None
        self._page().open_run(run, True)

    def _on_event(self, event: Event) -> None:
        current = self._controller.active()
        if current is None or self._shown is None or self._shown.folder != current.folder:
            return
        if self._waiting is not None:
            self._waiting.append(event)
        else:
            self._page().apply(event)
