"""How a run ended, in a card: what happened, what to do about it, and the buttons for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.i18n import explain
from app.widgets import figures
from app.widgets.actions import open_folder, set_primary
from app.widgets.card import Card, SecondaryButton, plain_label
from app.widgets.log_view import LogTail
from training_backend.errors import UserError
from training_backend.protocol import (
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStopped,
    Terminal,
)
from training_backend.runs import Run


class OutcomeCard(Card):
    """Shown when a run has ended."""

    export_requested = Signal()
    extend_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self._run: Run | None = None
        self._details = ""
        self._text = plain_label(wrap=True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.body.addWidget(self._text)
        self._tail = LogTail()
        self.body.addWidget(self._tail)
        self._export = SecondaryButton(self.tr("Export the model"))
        set_primary(self._export, True)
        self._export.clicked.connect(self.export_requested)
        self._extend = SecondaryButton(self.tr("Train longer…"))
        self._extend.setObjectName("extendButton")
        self._extend.clicked.connect(self.extend_requested)
        self._folder = SecondaryButton(self.tr("Open the run's folder"))
        self._folder.clicked.connect(self._open_folder)
        self._copy = SecondaryButton(self.tr("Copy the details"))
        self._copy.clicked.connect(self._copy_details)
        row = QHBoxLayout()
        row.setSpacing(8)
        for button in (self._export, self._extend, self._folder, self._copy):
            row.addWidget(button)
        row.addStretch(1)
        self.body.addLayout(row)

    def show_outcome(
        self,
        run: Run,
        event: Terminal,
        took_seconds: float,
        saved_step: int | None = None,
        warning: str = "",
        paused_seconds: float = 0.0,
    ) -> None:
        """Say how it ended.

        Args:
            saved_step: the step of the newest checkpoint, None when there is none.
            warning: what the run itself said of its result.
            paused_seconds: how long it stood still, which is not counted as training.
        """
        self._run = run
        title, role, text, tail = self._words(event, took_seconds - paused_seconds)
        if paused_seconds >= 1 and isinstance(event, RunCompleted):
            paused = self.tr("It waited or was paused for {time} besides.")
            text = f"{text} {paused.format(time=figures.duration(paused_seconds))}"
        if saved_step is not None and isinstance(event, RunInterrupted):
            text = f"{text} {self._saved(saved_step)}"
        if warning:
            text = f"{warning} {text}"
            role = "careful" if role == "good" else role
        self.set_title(title)
        self.title.setProperty("role", role)
        self.title.style().polish(self.title)
        self._text.setText(text)
        self._tail.show_tail(tail)
        completed = isinstance(event, RunCompleted)
        stopped = isinstance(event, RunStopped) and event.checkpoint is not None
        self._export.setVisible(completed or stopped or saved_step is not None)
        set_primary(self._export, completed and not warning)  # else Resume, or another start
        self._extend.setVisible(completed or stopped)
        trouble = isinstance(event, RunFailed | RunInterrupted)
        self._copy.setVisible(trouble)
        code = event.code if isinstance(event, RunFailed) else ""
        self._details = "\n".join(
            part for part in (title, text, code, str(run.folder), tail) if part
        )

    def text(self) -> str:
        """What the card says."""
        return self._text.text()

    def _words(self, event: Terminal, took: float) -> tuple[str, str, str, str]:
        """Title, its colour's role, text, log tail."""
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
                return self.tr("Completed"), "good", text, ""
            case RunStopped(checkpoint=None):
                text = self.tr("It was stopped before the first step, so there is nothing to keep.")
                return self.tr("Stopped"), "careful", text, ""
            case RunStopped(step=step):
                return self.tr("Stopped and saved"), "careful", self._saved(step or 0), ""
            case RunFailed():
                return self.tr("Failed"), "error", explained(event), ""
            case RunInterrupted():
                return self.tr("Interrupted"), "error", event.detail, event.log_tail.strip()

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

    def _saved(self, step: int) -> str:
        text = self.tr("Everything up to step {step} is saved. Resume goes on from there.")
        return text.format(step=figures.count(step))

    def _open_folder(self) -> None:
        if self._run is not None:
            open_folder(self._run.folder)

    def _copy_details(self) -> None:
        QGuiApplication.clipboard().setText(self._details)
        self._copy.setText(self.tr("Copied"))


def explained(event: RunFailed) -> str:
    """What went wrong and what to do, in the person's language."""
    error = UserError(event.code, "")
    error.params, error.message, error.remedy = event.params, event.message, event.remedy
    return explain(error)
