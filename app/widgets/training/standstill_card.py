"""A run that is alive and does not move: what is known of it, to wait or to end it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from app.background import Latest
from app.widgets import figures
from app.widgets.card import Card, SecondaryButton, plain_label, secondary_label
from app.widgets.flow import FlowRow
from training_backend.runs import Run
from training_backend.watching import standstill
from training_backend.watching.standstill import Doing, Standstill


class StandstillCard(Card):
    """Shown while a run stands still; it goes away by itself when the run moves on."""

    end_requested = Signal(object)  # for how many seconds it has stood still
    dismissed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("standstillCard")
        self._seconds = 0.0
        self._saved: int | None = None
        self._found = Latest(self)
        self._text = plain_label(wrap=True)
        self.body.addWidget(self._text)
        self._doing = secondary_label(wrap=True)
        self.body.addWidget(self._doing)
        row = FlowRow()
        self._wait = SecondaryButton(self.tr("Wait"))
        self._wait.setObjectName("standstillWait")
        self._wait.clicked.connect(self._dismiss)
        row.add(self._wait)
        self._end = SecondaryButton(self.tr("End it now"))
        self._end.setObjectName("standstillEnd")
        self._end.clicked.connect(self._ask_to_end)
        row.add(self._end)
        self.body.addWidget(row)
        self.hide()

    def show_standstill(self, run: Run, found: Standstill, saved_step: int | None) -> None:
        """Say for how long, and what is usual.

        Args:
            saved_step: of the newest checkpoint, which stays if the run is ended now.
        """
        self._seconds, self._saved = found.seconds, saved_step
        self.set_title(self._title(found))
        self.title.setProperty("role", "careful")
        self.title.style().polish(self.title)
        self._text.setText(self._words(found))
        self._end.setEnabled(True)
        self._end.setText(
            self.tr("End it without anything saved")
            if saved_step is None
            else self.tr("End it and keep step {step}").format(step=figures.count(saved_step))
        )
        self._end.setAccessibleName(self._end.text())
        self.show()
        self._found.ask(lambda: standstill.doing(run), self._show_doing, lambda _: None)

    def _title(self, found: Standstill) -> str:
        time = figures.duration(found.seconds)
        if found.kind == "silent":
            return self.tr("No answer for {time}").format(time=time)
        return self.tr("No progress for {time}").format(time=time)

    def _words(self, found: Standstill) -> str:
        since = self.tr("Nothing has come from the training since it began.")
        if found.step is not None:
            since = self.tr("Nothing has come from the training since step {step}.").format(
                step=figures.count(found.step)
            )
        usual = ""
        if found.usual_seconds is not None:
            usual = self.tr("Until then it never took longer than {time}.").format(
                time=figures.duration(found.usual_seconds)
            )
        then = self.tr("It may go on by itself.")
        return " ".join(part for part in (since, usual, then) if part)

    def _show_doing(self, what: Doing) -> None:
        words: dict[Doing, str] = {
            "halted": self.tr("Its process is halted by a person or another program."),
            "waits_for_disk": self.tr("Its process waits for a disk."),
            "computes": self.tr("Its process still computes."),
            "waits": self.tr(
                "Its process waits, for the card or for a disk, and computes nothing."
            ),
            "unknown": "",
        }
        self._doing.setText(words[what])
        self._doing.setVisible(bool(words[what]))

    def _dismiss(self) -> None:
        self.hide()
        self.dismissed.emit()

    def _ask_to_end(self) -> None:
        self._end.setEnabled(False)
        self._end.setText(self.tr("Ending it"))
        self.end_requested.emit(self._seconds)
