"""The Export page: what can be exported, how an export gets on, and what was exported before."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.background import Latest
from app.dialogs.export_dialog import ExportDialog
from app.dialogs.export_wizard import ExportWizard
from app.i18n import explain
from app.models.export_sources import ExportSource, list_sources
from app.models.made_exports import MadeExport, list_exports
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
from app.widgets.runs import export_words
from app.widgets.runs.export_list import ExportList
from app.widgets.runs.export_progress import ExportProgress
from app.widgets.runs.runs_table import RunsTable
from app.widgets.training.end_words import explained
from training_backend.errors import UserError
from training_backend.protocol import (
    Event,
    ExportProved,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
    Terminal,
)
from training_backend.runs import Run


class ExportPage(QWidget):
    """Runs above, exports below; between them the export that is under way."""

    export_requested = Signal(object)  # ExportJob
    cancel_requested = Signal()
    train_requested = Signal()
    hand_off_requested = Signal(object)  # Path, an export's folder
    push_requested = Signal(object)  # Path
    check_requested = Signal(object)  # MadeExport

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._sources: list[ExportSource] = []
        self._wanted: Run | None = None
        self._wizard: ExportWizard | None = None
        self._proof: ExportProved | None = None
        self._checking = False
        self._under_way = False
        self._result = Path()
        self._runs, self._made = Latest(self), Latest(self)
        self._build()
        self._show_sources([])

    def set_run(self, run: Run) -> None:
        """Open the wizard with this run chosen."""
        self._wanted = run
        self.refresh()

    def refresh(self) -> None:
        """Look for runs that can be exported, and for exports."""

        def fail(error: Exception) -> None:
            self._errors.show_error(explain(error))

        self._runs.ask(list_sources, self._show_sources, fail)
        self._made.ask(list_exports, self._show_exports, fail)

    def apply(self, event: Event) -> None:
        """One event of the export, or of the check, that is under way."""
        match event:
            case RunStarted():
                self._begin()
            case ExportProved():
                self._proof = event
        self._progress.apply(event)
        if isinstance(event, RunCompleted | RunStopped | RunFailed | RunInterrupted):
            self._end(event)
        if self._wizard is not None:
            self._wizard.apply(event)

    def finish(self, terminal: Terminal | None) -> None:
        """It is followed no more; mostly its last event said so already."""
        if terminal is None:  # what it wrote cannot be read
            unread = self.tr("Nothing more is known of it: what it wrote cannot be read.")
            terminal = RunInterrupted(cause="vanished", detail=unread)
        if self._under_way:
            self.apply(terminal)
        elif self._wizard is not None:
            self._wizard.apply(terminal)  # which it heeds while it waits for one

    def refuse(self, error: UserError) -> None:
        """The export could not begin."""
        self._checking = False
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
        result = wizard.done_step.result
        result.hand_off_requested.connect(self.hand_off_requested)
        result.push_requested.connect(self.push_requested)
        wizard.finished.connect(self._on_wizard_closed)
        self._wizard = wizard
        wizard.open()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.refresh()

    def _begin(self) -> None:
        self._under_way = True
        self._proof = None
        self._status.setVisible(True)
        self._progress.begin()
        self._show_folder.setVisible(False)
        self._errors.show_error("")
        self._cancel.setVisible(True)
        self.export_button.setEnabled(False)
        self.made.set_busy(True)

    def _end(self, event: RunCompleted | RunStopped | RunFailed | RunInterrupted) -> None:
        self._under_way = False
        self._show_end(event)
        self._checking = False
        self._cancel.setVisible(False)
        self.export_button.setEnabled(True)
        self.made.set_busy(False)
        if self.isVisible():
            self.refresh()

    def _show_end(self, event: RunCompleted | RunStopped | RunFailed | RunInterrupted) -> None:
        match event:
            case RunCompleted(folder=folder):
                self._result = Path(folder)
                proof, detail = self._proof, folder
                said = self.tr("Checked") if self._checking else self.tr("Exported")
                if proof is not None:
                    if proof.kept is not None:
                        said, detail = self.tr("Not checked again; it stays"), proof.message
                    sign, words, _ = export_words.verdict(proof.kept or proof.verdict)
                    said = f"{said}  {sign} {words}"
                self._progress.title.setText(said)
                self._progress.detail.setText(detail)
                self._show_folder.setVisible(True)
            case RunStopped():
                self._progress.title.setText(self.tr("Cancelled; nothing was written"))
            case RunFailed():
                failed = self.tr("The check failed") if self._checking else ""
                self._progress.title.setText(failed or self.tr("The export failed"))
                self._errors.show_error(explained(event))
            case RunInterrupted():
                self._progress.title.setText(self.tr("The export was interrupted"))
                self._errors.show_error(explained(event))

    def _check(self, made: MadeExport) -> None:
        self._checking = True
        self.check_requested.emit(made)

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

    def _show_exports(self, made: list[MadeExport]) -> None:
        self.made.show_exports(made)
        self.made.setVisible(bool(made))
        if self._result != Path():
            self.made.choose(self._result)

    def _show_export(self, made: MadeExport) -> None:
        dialog = ExportDialog(made, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.result_view.hand_off_requested.connect(self.hand_off_requested)
        dialog.result_view.push_requested.connect(self.push_requested)
        dialog.open()

    # --------------------------------------------------------------------------------- the widgets

    def _build(self) -> None:
        layout = page_layout(self)
        header = PageHeader(
            self.tr("Export"),
            self.tr("Makes a folder of a run that other programs load, and checks its answers."),
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
        self.made = ExportList()
        self.made.show_requested.connect(self._show_export)
        self.made.check_requested.connect(self._check)
        self.made.hand_off_requested.connect(self.hand_off_requested)
        self.made.push_requested.connect(self.push_requested)
        self.made.setVisible(False)
        layout.addWidget(self.made, 1)
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
