"""The first step of the export wizard: which run, and from which of its checkpoints."""

from __future__ import annotations

from PySide6.QtWidgets import QVBoxLayout, QWidget, QWizardPage

from app.models.export_sources import ExportSource
from app.widgets import figures, wording
from app.widgets.card import ErrorLabel, plain_label, secondary_label
from app.widgets.inputs import SteadyComboBox


class SourceStep(QWizardPage):
    """Which run, and from which of its checkpoints."""

    def __init__(self, sources: list[ExportSource], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setTitle(self.tr("What to export"))
        self.setSubTitle(self.tr("A run, as it was at its end or at one of its checkpoints."))
        self._sources = sources
        self.runs = SteadyComboBox()
        self.runs.setObjectName("exportRunCombo")
        self.runs.setAccessibleName(self.tr("Run"))
        for source in sources:
            summary = source.summary
            self.runs.addItem(
                f"{wording.one_line(summary.name)}  ({figures.clock(summary.created)})"
            )
        self.checkpoints = SteadyComboBox()
        self.checkpoints.setObjectName("exportCheckpointCombo")
        self.checkpoints.setAccessibleName(self.tr("State of the run"))
        self._about = secondary_label(wrap=True)
        self._error = ErrorLabel("error_export_run")
        layout = QVBoxLayout(self)
        layout.setSpacing(4)
        for name, box in ((self.tr("Run"), self.runs), (self.tr("State"), self.checkpoints)):
            layout.addWidget(plain_label(name))
            layout.addWidget(box)
            layout.addSpacing(8)
        layout.addWidget(self._error)
        layout.addWidget(self._about)
        layout.addStretch(1)
        self.runs.currentIndexChanged.connect(self._show_run)
        self.checkpoints.currentIndexChanged.connect(lambda _: self.show_problem(""))
        self._show_run(self.runs.currentIndex())

    def choose(self, run_id: str) -> None:
        for index, source in enumerate(self._sources):
            if source.run.id == run_id:
                self.runs.setCurrentIndex(index)

    def source(self) -> ExportSource:
        return self._sources[self.runs.currentIndex()]

    def checkpoint(self) -> str | None:
        """The name of a checkpoint's folder; None for the end of the run."""
        chosen = self.checkpoints.currentData()
        return str(chosen) if chosen else None

    def show_problem(self, message: str) -> None:
        """What is wrong with the choice; gone when another one is made."""
        self._error.show_error(message)

    def _show_run(self, index: int) -> None:
        if index < 0:
            return
        source = self._sources[index]
        self.checkpoints.clear()
        if source.finished:
            end = self.tr("the end of the training")
            if source.kept_step is not None:
                end = self.tr("what was kept: step {step}, the best")
            self.checkpoints.addItem(end.format(step=figures.count(source.kept_step or 0)), "")
        for name in source.checkpoints:
            words = (
                self.tr("step {step}, the best") if name == source.best else self.tr("step {step}")
            )
            step = figures.count(int(name.rpartition("-")[2]))
            self.checkpoints.addItem(words.format(step=step), name)
        if source.best is not None and not source.best_is_the_end:
            self.checkpoints.setCurrentIndex(self.checkpoints.findData(source.best))
        about = self.tr("{model}, trained on {data}.").format(
            model=wording.model_name(source.summary.model),
            data=wording.data_name(source.summary.dataset),
        )
        kept = wording.kept_checkpoints(source.job)[1] if source.job else ""
        self._about.setText(f"{about} {kept}")
