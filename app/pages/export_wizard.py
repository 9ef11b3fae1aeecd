"""The Export page and its wizard: from a run to a folder that other programs load."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QWidget, QWizard

from app.background import run_in_background
from app.i18n import explain
from app.models.export_sources import ExportSource, list_sources
from app.widgets.actions import open_folder, set_primary
from app.widgets.card import (
    Card,
    ErrorLabel,
    PageHeader,
    PrimaryButton,
    SecondaryButton,
    page_layout,
    secondary_label,
)
from app.widgets.runs.export_progress import ExportProgress
from app.widgets.runs.export_steps import DoneStep, ProgressStep, SourceStep, TargetStep
from app.widgets.runs.runs_table import RunsTable
from app.widgets.training.end_words import explained
from training_backend.errors import UserError
from training_backend.job import ExportJob
from training_backend.protocol import (
    Event,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
)
from training_backend.runs import Run

SOURCE, TARGET, PROGRESS, DONE = range(4)


class ExportWizard(QWizard):
    """Choose a run, choose a folder, wait, done."""

    export_requested = Signal(object)
    cancel_requested = Signal()

    def __init__(self, sources: list[ExportSource], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("exportWizard")
        self.setWindowTitle(self.tr("Export"))
        self.setWizardStyle(QWizard.WizardStyle.ModernStyle)
        self.setTitleFormat(Qt.TextFormat.PlainText)
        self.setSubTitleFormat(Qt.TextFormat.PlainText)
        self.setOption(QWizard.WizardOption.NoBackButtonOnStartPage)
        self.setOption(QWizard.WizardOption.NoBackButtonOnLastPage)
        self.setOption(QWizard.WizardOption.NoCancelButtonOnLastPage)
        self.setMinimumSize(640, 440)
        self.source = SourceStep(sources)
        self.target = TargetStep()
        self.progress = ProgressStep()
        self.done_step = DoneStep()
        for number, step in (
            (SOURCE, self.source),
            (TARGET, self.target),
            (PROGRESS, self.progress),
            (DONE, self.done_step),
        ):
            self.setPage(number, step)
        self._name_buttons()
        self._running = False
        self._cancelled = False
        self.currentIdChanged.connect(self._on_step)

    def choose(self, run: Run) -> None:
        """Preselect a run."""
        self.source.choose(run.id)

    def job(self) -> ExportJob:
        """What the choices so far ask for."""
        return ExportJob(
            name=self.source.source().summary.name,
            run=str(self.source.source().run.folder),
            checkpoint=self.source.checkpoint(),
            format=self.target.format(),
            quantization=self.target.quantization(),
            out=str(self.target.out()),
        )

    def apply(self, event: Event) -> None:
        """An event of the export that this wizard asked for."""
        if not self._running:
            return
        self.progress.progress.apply(event)
        match event:
            case RunCompleted(folder=folder):
                self._running = False
                self.done_step.show_result(Path(folder), self.target.format())
                self.setCurrentId(DONE)
            case RunStopped():
                self._running = False
                super().reject()
            case RunFailed(field="out" | "format"):
                self._mend_target(explained(event))
            case RunFailed() | RunInterrupted():
                self._fail(explained(event))

    def refuse(self, error: UserError) -> None:
        """The export could not begin."""
        self._mend_target(explain(error))

    def reject(self) -> None:
        """Cancel. A running export is asked to stop; the wizard closes when it has."""
        if self._running and not self._cancelled:
            self._cancelled = True
            self.button(QWizard.WizardButton.CancelButton).setEnabled(False)
            self.progress.progress.title.setText(self.tr("Cancelling"))
            self.cancel_requested.emit()
        elif not self._running:
            super().reject()

    def _on_step(self, number: int) -> None:
        if number == TARGET:
            source = self.source.source()
            self.target.propose(source.summary.name)
            self.target.offer_adapter(not source.every_weight)
            self.target.show_sizes(source.parameters)
        elif number == PROGRESS and not self._running:
            self._running, self._cancelled = True, False
            self.progress.show_problem("")
            self.progress.progress.begin()
            self.export_requested.emit(self.job())

    def _mend_target(self, message: str) -> None:
        """Back to form and place, with what is wrong with them."""
        self._running = False
        self.setCurrentId(TARGET)
        self.target.show_problem(message)

    def _fail(self, message: str) -> None:
        self._running = False
        self.progress.progress.title.setText(self.tr("The export failed"))
        self.progress.show_problem(message)
        self.button(QWizard.WizardButton.CancelButton).setEnabled(True)
        self.setButtonText(QWizard.WizardButton.CancelButton, self.tr("Close"))

    def _name_buttons(self) -> None:
        kinds = QWizard.WizardButton
        texts = {
            kinds.NextButton: self.tr("Continue"),
            kinds.BackButton: self.tr("Back"),
            kinds.CommitButton: self.tr("Export"),
            kinds.FinishButton: self.tr("Done"),
            kinds.CancelButton: self.tr("Cancel"),
        }
        for kind, text in texts.items():
            self.setButtonText(kind, text)
            self.button(kind).setAccessibleName(text)
            set_primary(self.button(kind), kind not in (kinds.BackButton, kinds.CancelButton))
        self.button(kinds.CommitButton).setObjectName("exportStartButton")


class ExportPage(QWidget):
    """What can be exported, and how the export that is under way gets on."""

    export_requested = Signal(object)
    cancel_requested = Signal()
    train_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sources: list[ExportSource] = []
        self._wanted: Run | None = None
        self._wizard: ExportWizard | None = None
        self._result = Path()
        self._build()
        self._show_sources([])

    def set_run(self, run: Run) -> None:
        """Open the wizard with this run chosen."""
        self._wanted = run
        self.refresh()

    def refresh(self) -> None:
        """Look for runs that can be exported."""
        run_in_background(
            list_sources,
            self._show_sources,
            lambda error: self._errors.show_error(str(error)),
            self,
        )

    def apply(self, event: Event) -> None:
        """One event of the export that is under way."""
        if isinstance(event, RunStarted):
            self._status.setVisible(True)
            self._progress.begin()
            self._show_folder.setVisible(False)
            self._errors.show_error("")
            self._cancel.setVisible(True)
        self._progress.apply(event)
        if isinstance(event, RunCompleted | RunStopped | RunFailed | RunInterrupted):
            self._end(event)
        if self._wizard is not None:
            self._wizard.apply(event)

    def refuse(self, error: UserError) -> None:
        """The export could not begin."""
        if self._wizard is not None:
            self._wizard.refuse(error)
        else:
            self._errors.show_error(explain(error))

    def open_wizard(self) -> None:
        """Open the wizard with the run that is selected in the list."""
        if self._wizard is not None:
            self._wizard.raise_()
            return
        if not self._sources:
            return
        wizard = ExportWizard(self._sources, self)
        wizard.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for selected in self.table.selected():
            wizard.choose(selected.run)
        wizard.export_requested.connect(self.export_requested)
        wizard.cancel_requested.connect(self.cancel_requested)
        wizard.finished.connect(self._on_wizard_closed)
        self._wizard = wizard
        wizard.open()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()

    def _end(self, event: RunCompleted | RunStopped | RunFailed | RunInterrupted) -> None:
        self._cancel.setVisible(False)
        match event:
            case RunCompleted(folder=folder):
                self._result = Path(folder)
                self._progress.title.setText(self.tr("Exported"))
                self._progress.detail.setText(folder)
                self._show_folder.setVisible(True)
            case RunStopped():
                self._progress.title.setText(self.tr("Cancelled; nothing was written"))
            case RunFailed():
                self._progress.title.setText(self.tr("The export failed"))
                self._errors.show_error(explained(event))
            case RunInterrupted():
                self._progress.title.setText(self.tr("The export was interrupted"))
                self._errors.show_error(explained(event))

    def _on_wizard_closed(self) -> None:
        self._wizard = None

    def _show_sources(self, sources: list[ExportSource]) -> None:
        self._sources = sources
        self.table.show_runs([source.summary for source in sources])
        self._card.setVisible(bool(sources))
        self.export_button.setVisible(bool(sources))
        self._empty.setVisible(not sources)
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            ids = [source.run.id for source in sources]
            if wanted.id in ids:
                self.table.select(wanted.id)
                self.open_wizard()

    # --------------------------------------------------------------------------------- the widgets

    def _build(self) -> None:
        layout = page_layout(self)
        header = PageHeader(
            self.tr("Export"), self.tr("Makes a folder of a run that other programs load.")
        )
        self.export_button = PrimaryButton(self.tr("Export"))
        self.export_button.setObjectName("openExportWizardButton")
        self.export_button.clicked.connect(self.open_wizard)
        header.add_button(self.export_button)
        layout.addWidget(header)
        self._errors = ErrorLabel("exportPageProblem")
        layout.addWidget(self._errors)
        self._status = self._status_card()
        layout.addWidget(self._status)
        self._card = Card(self.tr("Runs that can be exported"))
        self.table = RunsTable()
        self.table.setObjectName("exportSourcesTable")
        self.table.setAccessibleName(self.tr("Runs that can be exported"))
        self.table.activated.connect(lambda: self.open_wizard())
        self._card.body.addWidget(self.table)
        layout.addWidget(self._card, 1)
        self._empty = self._empty_state()
        layout.addWidget(self._empty, 0, Qt.AlignmentFlag.AlignTop)

    def _status_card(self) -> Card:
        card = Card()
        card.setVisible(False)
        self._progress = ExportProgress()
        self._cancel = SecondaryButton(self.tr("Cancel"))
        self._cancel.clicked.connect(self.cancel_requested)
        self._show_folder = SecondaryButton(self.tr("Open the folder"))
        self._show_folder.clicked.connect(lambda: open_folder(self._result))
        card.body.addWidget(self._progress)
        row = QHBoxLayout()
        row.addWidget(self._cancel)
        row.addWidget(self._show_folder)
        row.addStretch(1)
        card.body.addLayout(row)
        return card

    def _empty_state(self) -> Card:
        card = Card(self.tr("Nothing to export yet"))
        card.body.addWidget(
            secondary_label(
                self.tr("Train a model first: what it learned can then be exported from here."),
                wrap=True,
            )
        )
        go = SecondaryButton(self.tr("Go to Train"))
        set_primary(go, True)
        go.clicked.connect(self.train_requested)
        row = QHBoxLayout()
        row.addWidget(go)
        row.addStretch(1)
        card.body.addLayout(row)
        return card
