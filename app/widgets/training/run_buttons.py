"""The buttons in the head of the Train page: what can be done with the run that is shown."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.models.shown_run import ShownRun
from app.widgets import figures
from app.widgets.actions import set_primary
from app.widgets.card import SecondaryButton, plain_tool_tip
from app.widgets.training.steer_buttons import SteerButtons
from training_backend.protocol import RunCompleted

STOP_IS_SLOW_MILLISECONDS = 30_000


@dataclass(frozen=True)
class Draft:
    """What Start would run, in words, and if it cannot, why not.

    `hint` is why one real step should be tried first; it keeps nobody from pressing Start.
    """

    title: str = ""
    subtitle: str = ""
    ready: bool = True
    why_not: str = ""
    hint: str = ""


class RunButtons(QWidget):
    """Start, Stop and save, Resume and what else there is, as the run allows."""

    start_requested = Signal()
    queue_requested = Signal()
    measure_requested = Signal()
    stop_requested = Signal()
    end_requested = Signal()
    resume_requested = Signal()
    back_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.stopping = False
        self.waiting = 0  # runs in the queue
        self.paused = False  # the queue
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(16)
        self.back = self._button("backToCurrentButton", self.tr("Back to the current run"))
        self.back.clicked.connect(self.back_requested)
        self.measure = self._button("measureFirstButton", self.tr("Measure first"))
        self.measure.clicked.connect(self.measure_requested)
        self.start = self._button("startButton", self.tr("Start"))
        self.start.clicked.connect(self.start_requested)
        self.queue = self._button("queueButton", self.tr("Add to queue"))
        self.queue.clicked.connect(self.queue_requested)
        self.resume = self._button("resumeButton", self.tr("Resume"))
        set_primary(self.resume, True)
        self.resume.clicked.connect(self.resume_requested)
        self.steer = SteerButtons()
        self._row.addWidget(self.steer)
        self.stop = self._button("stopButton", self.tr("Stop and save"))
        self.stop.clicked.connect(self._stop)
        self._patience = QTimer(self, singleShot=True, interval=STOP_IS_SLOW_MILLISECONDS)
        self._patience.timeout.connect(self.offer_to_end)

    def show_run(self, shown: ShownRun, draft: Draft, *, checking: bool, elsewhere: bool) -> None:
        """Offer what is possible.

        Args:
            checking: a run is being prepared.
            elsewhere: another run than the one shown is live.
        """
        running = shown.is_running()
        elsewhere = elsewhere and not running
        resumable = not elsewhere and shown.can_resume()
        self.start.setVisible(not running and not elsewhere)
        self.start.setText(
            self.tr("Start a new run") if shown.run is not None else self.tr("Start")
        )
        self.start.setEnabled(draft.ready and not checking)
        self.start.setToolTip(plain_tool_tip(draft.why_not))
        set_primary(self.start, not resumable and not isinstance(shown.terminal, RunCompleted))
        self._show_queue(draft, live=running or elsewhere)
        self.stop.setVisible(running)
        self.steer.show_run(shown, stopping=self.stopping)
        if not self.stopping:
            self.stop.setText(self.tr("Stop and save"))
            self.stop.setEnabled(True)
        self.resume.setVisible(resumable)
        self.resume.setEnabled(not checking)
        self.back.setVisible(elsewhere)
        idle = shown.run is None and draft.ready and not checking
        self.measure.setVisible(idle and bool(draft.hint))

    def _show_queue(self, draft: Draft, *, live: bool) -> None:
        """What would be started waits instead while a run is live, or behind others that wait."""
        count = figures.count(self.waiting)
        text = (
            self.tr("Add to queue ({count} waiting, paused)")
            if self.paused
            else self.tr("Add to queue ({count} waiting)")
        )
        text = text.format(count=count) if self.waiting else self.tr("Add to queue")
        self.queue.setText(text)
        self.queue.setAccessibleName(self.queue.text())
        self.queue.setVisible(live or self.waiting > 0)
        self.queue.setEnabled(draft.ready)
        adds = self.tr("Adds “{name}”: {summary}")
        adds = adds.format(name=draft.title, summary=draft.subtitle)
        self.queue.setToolTip(plain_tool_tip(adds if draft.ready else draft.why_not))

    def show_stopping(self) -> None:
        """The live run has been asked to save and stop."""
        self.stopping = True
        self.stop.setText(self.tr("Saving"))
        self.stop.setEnabled(False)
        self._patience.start()

    def forget_stopping(self) -> None:
        """The run that was asked to stop has ended, or another one is shown."""
        self.stopping = False
        self._patience.stop()

    def offer_to_end(self) -> None:
        """Stopping takes long: asking a second time ends the run as it is."""
        self.stop.setText(self.tr("End without saving"))
        self.stop.setEnabled(True)

    def _stop(self) -> None:
        end = self.stopping  # it has been asked to stop, and takes long
        self.show_stopping()
        if end:
            self.end_requested.emit()
        else:
            self.stop_requested.emit()

    def _button(self, name: str, text: str) -> SecondaryButton:
        button = SecondaryButton(text)
        button.setObjectName(name)
        self._row.addWidget(button)
        return button
