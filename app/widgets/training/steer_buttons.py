"""What can be asked of a training under way: its model, a checkpoint, a pause."""

from __future__ import annotations

from PySide6.QtCore import Signal, SignalInstance
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.models.shown_run import ShownRun
from app.widgets.actions import set_primary
from app.widgets.card import SecondaryButton
from app.widgets.menu_button import MenuButton
from app.widgets.training.ask_dialog import AskDialog
from training_backend.lifecycle.run_requests import Kind
from training_backend.protocol import SampleGenerated


class SteerButtons(QWidget):
    """A menu, and a button that pauses the run and lets it go on.

    All of it is done at the end of a step; until then it stands in `ShownRun.asked`, so that it
    shows at once that it was asked for (`changed`).
    """

    checkpoint_requested = Signal()
    pause_requested = Signal()
    go_on_requested = Signal()
    question_asked = Signal(object)  # str, or None for the job's own questions
    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown = ShownRun()
        self._dialog: AskDialog | None = None
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(16)
        self.more = MenuButton(self.tr("More"))
        self.more.setObjectName("steerButton")
        self.more.setAccessibleName(self.tr("What else the run can do now"))
        self.question = self.more.add(
            "askModelAction", self.tr("Ask the model now…"), self._open_dialog
        )
        self.checkpoint = self.more.add(
            "saveCheckpointAction",
            self.tr("Save a checkpoint now"),
            lambda: self._ask("checkpoint", self.checkpoint_requested),
        )
        self.pause = SecondaryButton(self.tr("Pause"))
        self.pause.setObjectName("pauseButton")
        self.pause.clicked.connect(self._press_pause)
        row.addWidget(self.more)
        row.addWidget(self.pause)

    # ------------------------------------------------------------------ what the page tells it

    def show_run(self, shown: ShownRun, *, stopping: bool) -> None:
        """Offer what the run can do at this moment; what it cannot do says why in its tool tip."""
        if shown is not self._shown and self._dialog is not None:
            self._dialog.close()  # it is about another run
        self._shown = shown
        self.setVisible(shown.is_running())
        why_nothing = ""
        if stopping:
            why_nothing = self.tr("The run has been asked to stop.")
        elif shown.phase is not None and shown.phase.phase == "saving":
            why_nothing = self.tr("The training is over; its result is being saved.")
        self._enable(self.question, why_nothing)
        why_no_checkpoint = why_nothing
        if not why_nothing and "checkpoint" in shown.asked:
            why_no_checkpoint = self.tr("It is saved after this step.")
        elif not why_nothing and shown.is_paused():
            why_no_checkpoint = self.tr("One was saved when the run paused.")
        self._enable(self.checkpoint, why_no_checkpoint)
        self._show_pause(why_nothing)

    def show_answer(self, event: SampleGenerated) -> None:
        """What the model says, for the dialog in which it was asked."""
        if self._dialog is not None:
            self._dialog.show_answer(event)

    def end(self) -> None:
        """The run has ended."""
        if self._dialog is not None:
            self._dialog.end()

    # -------------------------------------------------------------------------------- its parts

    def _show_pause(self, why_not: str) -> None:
        paused, asked = self._shown.is_paused(), "pause" in self._shown.asked
        texts = {
            (False, False): self.tr("Pause"),
            (False, True): self.tr("Pausing"),
            (True, True): self.tr("Go on"),
            (True, False): self.tr("Going on"),
        }
        tip = self.tr(
            "Saves a checkpoint after this step and waits. The model stays in memory; Stop and "
            "save frees it."
        )
        self.pause.setText(texts[paused, asked])
        self.pause.setAccessibleName(texts[paused, asked])
        self.pause.setEnabled(not why_not and paused == asked)
        self.pause.setToolTip(why_not or ("" if paused else tip))
        set_primary(self.pause, paused)

    def _press_pause(self) -> None:
        if self._shown.is_paused():
            self._shown.asked.discard("pause")
            self.changed.emit()
            self.go_on_requested.emit()
        else:
            self._ask("pause", self.pause_requested)

    def _ask(self, what: Kind, request: SignalInstance) -> None:
        self._shown.asked.add(what)
        self.changed.emit()
        request.emit()

    @staticmethod
    def _enable(action: QAction, why_not: str) -> None:
        action.setEnabled(not why_not)
        action.setToolTip(why_not)

    # ------------------------------------------------------------------------------ the questions

    def _open_dialog(self) -> None:
        """There is one at a time; it stays open beside the training."""
        if self._dialog is None:
            job = self._shown.job
            self._dialog = AskDialog(len(job.evaluation.prompts) if job else 0, self.window())
            self._dialog.asked.connect(self._ask_model)
            self._dialog.closed.connect(self._forget_dialog)
        self._dialog.show()
        self._dialog.raise_()
        self._dialog.activateWindow()

    def _ask_model(self, prompt: str | None) -> None:
        job = self._shown.job
        own = job.evaluation.prompts if job is not None else ()
        self._shown.ask(*(own if prompt is None else (prompt,)))
        self.changed.emit()
        self.question_asked.emit(prompt)

    def _forget_dialog(self) -> None:
        self._dialog = None
