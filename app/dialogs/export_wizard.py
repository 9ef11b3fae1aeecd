"""The export wizard: from a run to a folder that other programs load."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QWidget, QWizard

from app.background import Latest
from app.dialogs.question import Role, ask
from app.i18n import explain
from app.models.export_sources import ExportSource
from app.widgets.actions import set_primary
from app.widgets.runs.export_format import FormatStep
from app.widgets.runs.export_last_steps import DoneStep, ProgressStep
from app.widgets.runs.export_place import PlaceStep
from app.widgets.runs.export_source import SourceStep
from app.widgets.training.end_words import explained
from training_backend.errors import JobError, UserError
from training_backend.export.needs import Material, Needs, material, needs
from training_backend.job import ExportJob
from training_backend.protocol import (
    Event,
    ExportProved,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStopped,
    WarningRaised,
)
from training_backend.runs import Run

SOURCE, FORMAT, PLACE, PROGRESS, DONE = range(5)
# Where a field of the job is chosen.
_STEPS = {
    **dict.fromkeys(("run", "checkpoint"), SOURCE),
    **dict.fromkeys(("format", "quantization", "dtype", "base", "max_shard_gb"), FORMAT),
    **dict.fromkeys(("out", "prompts"), PLACE),
}
WIDTH, HEIGHT = 760, 620


class ExportWizard(QWizard):
    """Choose a run, a form, a folder; wait; see what came of it."""

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
        room = self.screen().availableSize()
        self.setMinimumSize(min(640, room.width()), min(440, room.height()))
        self.resize(min(WIDTH, room.width()), min(HEIGHT, room.height() - 40))
        self.source = SourceStep(sources)
        self.target = FormatStep()
        self.place = PlaceStep()
        self.progress = ProgressStep()
        self.done_step = DoneStep()
        for number, step in (
            (SOURCE, self.source),
            (FORMAT, self.target),
            (PLACE, self.place),
            (PROGRESS, self.progress),
            (DONE, self.done_step),
        ):
            self.setPage(number, step)
        self._name_buttons()
        self._material: Material | None = None
        self._found = Latest(self)
        self._proof: ExportProved | None = None
        self._notes: list[str] = []
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
            **self.target.fields(),
            **self.place.fields(),
        )

    def apply(self, event: Event) -> None:
        """An event of the export that this wizard asked for."""
        if not self._running:
            return
        self.progress.apply(event)
        match event:
            case ExportProved():
                self._proof = event
            case WarningRaised(message=note):
                self._notes.append(note)
            case RunCompleted(folder=folder):
                self._running = False
                self.done_step.show_result(
                    Path(folder), self.target.format(), self._proof, self._notes
                )
                self.setCurrentId(DONE)
            case RunStopped():
                self._running = False
                super().reject()
            case RunFailed(field=field) if field in _STEPS:
                self._mend(explained(event), _STEPS[field])
            case RunFailed() | RunInterrupted():
                self._fail(explained(event))

    def refuse(self, error: UserError) -> None:
        """The export could not begin."""
        mistakes = error.problems if isinstance(error, JobError) else ()
        words = " ".join(mistake.message for mistake in mistakes) or explain(error)
        self._mend(words, _STEPS.get(error.field or "", PLACE))

    def reject(self) -> None:
        """Cancel, Escape or the window's cross; of a running export it is asked what to do."""
        if not self._running:
            super().reject()
        elif not self._cancelled:
            self._ask()

    def _ask(self) -> None:
        head, cancel = self.tr("The export is under way"), self.tr("Cancel the export")
        what = self.tr("Cancelled, it leaves nothing behind.")
        if self.progress.progress.is_checking():
            head, cancel = self.tr("The export is being checked"), self.tr("Leave out the check")
            what = self.tr(
                "Its files are whole and stay. Without the check nobody knows whether it answers "
                "alike."
            )
        there = self.tr("In the background it goes on, and the Export page shows how far it is.")
        ask(
            self,
            "leaveExportDialog",
            head,
            f"{what} {there}",
            [
                (self.tr("Go on in the background"), Role.AcceptRole, self._leave),
                (cancel, Role.DestructiveRole, self._cancel),
            ],
            self.tr("Stay here"),
        )

    def _leave(self) -> None:
        super().reject()

    def _cancel(self) -> None:
        """Ask it to stop; the wizard closes when it has."""
        if not self._running:  # it ended while the question stood
            return
        self._cancelled = True
        self.button(QWizard.WizardButton.CancelButton).setEnabled(False)
        self.progress.progress.title.setText(self.tr("Cancelling"))
        self.cancel_requested.emit()

    def _on_step(self, number: int) -> None:
        if number == FORMAT:
            self.target.show_source(self.source.source())
            self._look_up()
        elif number == PLACE:
            self.place.propose(self.source.source().summary.name)
            self._show_needs()
        elif number == PROGRESS and not self._running:
            self._begin()
        self._lay_out_buttons(number)

    def _look_up(self) -> None:
        """Sizes, of the run and checkpoint that are chosen now."""
        chosen = str(self.source.source().run.folder), self.source.checkpoint()
        self._show_material(None)
        self._found.ask(
            partial(material, *chosen), self._show_material, lambda _: self._show_material(None)
        )

    def _show_material(self, found: Material | None) -> None:
        self._material = found
        self.target.show_material(found)
        if self.currentId() == PLACE:
            self._show_needs()

    def _show_needs(self) -> None:
        alone, checked = self._needs(verify=False), self._needs(verify=True)
        self.place.show_needs(alone, checked, in_parts=self.target.format() == "safetensors")

    def _needs(self, *, verify: bool) -> Needs | None:
        if self._material is None:
            return None
        return needs(self._material, self.job().model_copy(update={"verify": verify}))

    def _begin(self) -> None:
        self._running, self._cancelled, self._proof, self._notes = True, False, None, []
        job = self.job()
        known = self._needs(verify=job.verify)
        self.progress.begin(known.stages if known else None)
        self.export_requested.emit(job)

    def _mend(self, message: str, step: int) -> None:
        """Back to where it can be put right, with what is wrong."""
        self._running = False
        while self.currentId() > step:  # page by page, else it would not go on from there again
            self.back()
        for number, one in ((SOURCE, self.source), (FORMAT, self.target), (PLACE, self.place)):
            one.show_problem(message if number == step else "")

    def _fail(self, message: str) -> None:
        self._running = False
        self.progress.progress.title.setText(self.tr("The export failed"))
        self.progress.show_problem(message)
        kinds = QWizard.WizardButton
        self.setButtonLayout([kinds.Stretch, kinds.CustomButton1, kinds.CancelButton])
        self.button(kinds.CancelButton).setEnabled(True)
        self.setButtonText(kinds.CancelButton, self.tr("Close"))

    def _lay_out_buttons(self, number: int) -> None:
        """While it runs there is nothing to go back or on to."""
        kinds = QWizard.WizardButton
        shown = [kinds.Stretch, kinds.BackButton, kinds.NextButton, kinds.CommitButton]
        shown += [kinds.FinishButton, kinds.CancelButton]
        self.setButtonLayout([kinds.Stretch, kinds.CancelButton] if number == PROGRESS else shown)
        self.setButtonText(kinds.CancelButton, self.tr("Cancel"))

    def _name_buttons(self) -> None:
        kinds = QWizard.WizardButton
        texts = {
            kinds.NextButton: self.tr("Continue"),
            kinds.BackButton: self.tr("Back"),
            kinds.CommitButton: self.tr("Export"),
            kinds.FinishButton: self.tr("Done"),
            kinds.CancelButton: self.tr("Cancel"),
            kinds.CustomButton1: self.tr("Back"),
        }
        quiet = (kinds.BackButton, kinds.CancelButton, kinds.CustomButton1)
        for kind, text in texts.items():
            self.setButtonText(kind, text)
            self.button(kind).setAccessibleName(text)
            set_primary(self.button(kind), kind not in quiet)
        self.button(kinds.CommitButton).setObjectName("exportStartButton")
        self.customButtonClicked.connect(lambda _: self.setCurrentId(PLACE))
