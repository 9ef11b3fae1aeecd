"""How a run ended, in a card: what happened, what to do about it, and the buttons for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget

from app.background import Latest
from app.widgets import figures
from app.widgets.actions import open_folder, set_primary
from app.widgets.card import Card, SecondaryButton, plain_label, secondary_label
from app.widgets.flow import FlowRow
from app.widgets.training.end_words import end_title, what_else
from app.widgets.training.evidence_view import EvidenceView
from training_backend.lifecycle import evidence, failures
from training_backend.lifecycle.evidence import Evidence
from training_backend.protocol import (
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStopped,
    Terminal,
)
from training_backend.runs import Run

# Ends after which a run can go on elsewhere.
_OF_A_DRIVE = ("disk_full", "disk_error", "file_too_large")


class OutcomeCard(Card):
    """Shown when a run has ended.

    What is to be done about a failure depends on its code: each button knows the codes it is for.
    """

    export_requested = Signal()
    extend_requested = Signal()
    make_fit_requested = Signal()
    report_requested = Signal()
    move_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self._run: Run | None = None
        self._details = ""
        self._found = Latest(self)
        self._text = plain_label(wrap=True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.body.addWidget(self._text)
        self.evidence = EvidenceView()
        self.body.addWidget(self.evidence)
        self._moved = secondary_label(wrap=True)
        self._moved.setObjectName("outcomeMoved")
        self.body.addWidget(self._moved)
        self._buttons = FlowRow()
        self.body.addWidget(self._buttons)
        self._fit = self._button("outcomeMakeFit", self.tr("Make it fit"))
        self._fit.clicked.connect(self.make_fit_requested)
        self._move = self._button("outcomeMove", self.tr("Choose another drive…"))
        self._move.clicked.connect(self.move_requested)
        self._export = self._button("", self.tr("Export the model"))
        set_primary(self._export, True)
        self._export.clicked.connect(self.export_requested)
        self._extend = self._button("extendButton", self.tr("Train longer…"))
        self._extend.clicked.connect(self.extend_requested)
        self._report = self._button("outcomeReport", self.tr("Report…"))
        self._report.clicked.connect(self.report_requested)
        self._log = self._button("outcomeLog", self.tr("Show the log"))
        self._log.clicked.connect(lambda: self._show_log(self.evidence.tail.isHidden()))
        self._copy = self._button("outcomeCopy", self.tr("Copy the details"))
        self._copy.clicked.connect(self._copy_details)
        self._folder = self._button("outcomeFolder", self.tr("Open the run's folder"))
        self._folder.clicked.connect(self._open_folder)

    def show_outcome(
        self,
        run: Run,
        event: Terminal,
        took_seconds: float,
        warning: str = "",
        paused_seconds: float = 0.0,
        *,
        saved: bool = False,
        lacked_room: bool = False,
    ) -> None:
        """Say how it ended.

        Args:
            warning: what the run itself said of its result.
            paused_seconds: how long it stood still, which is not counted as training.
            saved: whether there is a checkpoint.
            lacked_room: whether it was waiting for room on the disk.
        """
        self._run = run
        self._found.forget()  # it was about another end
        title, role, text = self._words(event, took_seconds - paused_seconds)
        if paused_seconds >= 1 and isinstance(event, RunCompleted):
            paused = self.tr("It waited or was paused for {time} besides.")
            text = f"{text} {paused.format(time=figures.duration(paused_seconds))}"
        if warning:
            text = f"{warning} {text}"
            role = "careful" if role == "good" else role
        self.set_title(title)
        self.title.setProperty("role", role)
        self.title.style().polish(self.title)
        self._text.setText(text)
        completed = isinstance(event, RunCompleted)
        stopped = isinstance(event, RunStopped) and event.checkpoint is not None
        self._export.setVisible(completed or stopped or saved)
        set_primary(self._export, completed and not warning)  # else Resume, or another start
        self._extend.setVisible(completed or stopped)
        trouble = isinstance(event, RunFailed | RunInterrupted)
        code = event.code if isinstance(event, RunFailed | RunInterrupted) else ""
        self._fit.setVisible(code in failures.OUT_OF_MEMORY)
        self._report.setVisible(trouble)
        self._copy.setVisible(trouble)
        self._move.setVisible(code in _OF_A_DRIVE or (lacked_room and not completed))
        self._moved.hide()
        self._log.setVisible(False)
        self.evidence.show_evidence(Evidence())
        self._details = "\n".join(part for part in (title, text, code, str(run.folder)) if part)

    def look_for_evidence(self) -> None:
        """Of a run that failed, find out what is known of its end, and show it."""
        run = self._run
        if run is None or not self._copy.isVisibleTo(self):
            return

        def show(found: Evidence) -> None:
            self.evidence.show_evidence(found)
            self._log.setVisible(bool(found.log))
            self._show_log(False)

        self._found.ask(lambda: evidence.gather(run), show, lambda _: None)

    def show_moving(self, target: Path | None) -> None:
        """The run is being put below this folder; None: it could not be."""
        self._move.setEnabled(target is None)
        self._moved.setVisible(target is not None)
        self._moved.setText(self.tr("Moving it to {folder}…").format(folder=target))

    def show_moved(self, place: Path) -> None:
        """The run lies there now."""
        self._move.setEnabled(True)
        self._move.hide()
        text = self.tr("It lies in {folder} now, and goes on there.")
        self._moved.setText(text.format(folder=place))

    def text(self) -> str:
        """What the card says."""
        return self._text.text()

    def _button(self, name: str, text: str) -> SecondaryButton:
        button = SecondaryButton(text)
        button.setObjectName(name)
        self._buttons.add(button)
        return button

    def _words(self, event: Terminal, took: float) -> tuple[str, str, str]:
        """Title, its colour's role, text."""
        match event:
            case RunCompleted():
                saved = (
                    self.tr("The model is saved; export writes it where other programs load it.")
                    if Path(event.folder).name == "model"  # of a run that trained every weight
                    else self.tr(
                        "The adapter is saved; export makes a model of it that other programs load."
                    )
                )
                text = self.tr("The training took {time}. {saved}").format(
                    time=figures.duration(took), saved=saved
                )
                text = " ".join((*self._ended_how(event), text))
                return self.tr("Completed"), "good", text
            case RunStopped(checkpoint=None):
                text = self.tr("It was stopped before anything was saved.")
                return self.tr("Stopped"), "careful", text
            case RunStopped(step=step):
                text = self.tr("Everything up to step {step} is saved. Resume goes on from there.")
                text = text.format(step=figures.count(step or 0))
                if event.reason == "sleep":
                    text = f"{self.tr('The computer went to sleep.')} {text}"
                elif event.reason == "system":
                    text = f"{self.tr('The session or the computer was ended.')} {text}"
                return self.tr("Stopped and saved"), "careful", text
            case RunFailed() | RunInterrupted():
                return end_title(event), "error", what_else(event)

    def _ended_how(self, event: RunCompleted) -> Iterator[str]:
        if event.early_stopped_after is not None:
            yield self.tr(
                "Stopped early at step {step}: the held-out loss had not improved for {count} "
                "tests."
            ).format(
                step=figures.count(event.step or 0), count=figures.count(event.early_stopped_after)
            )
        if event.best_step is not None and event.best_step != event.step:
            yield self.tr(
                "What is kept is the model of step {step}, with the lowest held-out loss ({loss})."
            ).format(step=figures.count(event.best_step), loss=figures.loss(event.best_loss or 0.0))

    def _open_folder(self) -> None:
        if self._run is not None:
            open_folder(self._run.folder)

    def _show_log(self, shown: bool) -> None:
        self.evidence.tail.setVisible(shown)
        self._log.setText(self.tr("Hide the log") if shown else self.tr("Show the log"))
        self._log.setAccessibleName(self._log.text())

    def _copy_details(self) -> None:
        known = self.evidence.text()
        QGuiApplication.clipboard().setText("\n".join(filter(None, (self._details, known))))
        self._copy.setText(self.tr("Copied"))
