"""The last steps of the export wizard: the export itself, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtWidgets import QVBoxLayout, QWidget, QWizardPage

from app.widgets.card import ErrorLabel
from app.widgets.runs.export_progress import ExportProgress
from app.widgets.runs.export_result import ExportResult
from training_backend.export.needs import Stage
from training_backend.job import ExportFormat
from training_backend.protocol import Event, ExportProved


class ProgressStep(QWizardPage):
    """The export itself; goes on by itself when it is done."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("Exporting"))
        self.progress = ExportProgress()
        self._error = ErrorLabel("exportProblem")
        layout = QVBoxLayout(self)
        layout.addWidget(self.progress)
        layout.addWidget(self._error)
        layout.addStretch(1)

    def begin(self, stages: dict[Stage, float] | None) -> None:
        """A new export, with its stages where they are known."""
        self.setSubTitle(self.tr("You can cancel at any time; then nothing is left behind."))
        self.show_problem("")
        self.progress.begin(stages)

    def apply(self, event: Event) -> None:
        self.progress.apply(event)
        if self.progress.is_checking():
            self.setSubTitle(self.tr("The files are whole by now; they stay without a check, too."))

    def show_problem(self, message: str) -> None:
        self._error.show_error(message)

    def isComplete(self) -> bool:
        return False


class DoneStep(QWizardPage):
    """What came of it."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("Exported"))
        self.result = ExportResult()
        layout = QVBoxLayout(self)
        layout.addWidget(self.result)

    def show_result(
        self,
        folder: Path,
        form: ExportFormat,
        proof: ExportProved | None,
        notes: Sequence[str],
    ) -> None:
        said = self.tr("The folder is whole; it can be moved and shared.")
        if proof is not None and proof.verdict == "different":
            said = self.tr("The folder is whole, but do not use it before you know why it differs.")
        self.setSubTitle(said)
        self.result.show_result(folder, form, proof, notes)
