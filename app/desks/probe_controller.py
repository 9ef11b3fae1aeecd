"""Tries one real step of the draft's job for the window, and keeps what it measured."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from app.background import run_in_background
from app.i18n import explain
from app.run_controller import RunController
from training_backend import runs
from training_backend.errors import UserError
from training_backend.job import ProbeJob, TrainingJob
from training_backend.memory import memory_records
from training_backend.protocol import (
    Event,
    MemoryMeasured,
    PhaseChanged,
    RunFailed,
    RunInterrupted,
    Terminal,
)
from training_backend.runs import Run


@dataclass(frozen=True)
class Measurement:
    """What was measured of a job."""

    job: TrainingJob
    result: MemoryMeasured

    def is_of(self, job: TrainingJob) -> bool:
        """Whether this job would take the same: its data and all that memory depends on."""
        return job.dataset == self.job.dataset and memory_records.same_memory(job, self.job)


class ProbeController(QObject):
    """One probe at a time, in the worker that was warmed for the next training."""

    began = Signal()
    progressed = Signal(object)  # PhaseChanged
    measured = Signal(object)  # Measurement
    failed = Signal(str)  # a sentence
    ended = Signal()  # after any of the above, and after a cancel

    def __init__(self, training: RunController, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._training = training
        self._runs = RunController(self, lender=training)
        self._runs.event_arrived.connect(self._on_event)
        self._runs.run_opened.connect(self._on_opened)
        self._runs.run_ended.connect(self._on_ended)
        self._runs.refused.connect(self._on_refused)
        self._job: TrainingJob | None = None
        self._cancelled = False
        self.newest: Measurement | None = None

    def start(self, job: TrainingJob) -> None:
        """Begin; ends in `measured` or `failed`, and always in `ended`."""
        if self.is_busy():
            return
        if self._training.is_busy():
            self.failed.emit(
                self.tr("A training is under way and holds the memory. Measure when it has ended.")
            )
            self.ended.emit()
            return
        self._job = job
        self._cancelled = False
        self._runs.start(ProbeJob(job=job))
        self.began.emit()

    def cancel(self) -> None:
        """End the probe; it takes a second at most once its worker is there."""
        self._cancelled = True
        self._runs.stop()

    def is_busy(self) -> bool:
        return self._runs.is_busy()

    def shutdown(self) -> None:
        """Unlike a training, a probe does not outlive the window."""
        run = self._runs.active()
        if run is not None:
            run.request("stop")
        self._runs.shutdown()

    def _on_opened(self, run: Run) -> None:
        if self._cancelled:  # asked before there was a run to stop
            self._runs.stop()

    def _on_event(self, event: Event) -> None:
        match event:
            case PhaseChanged():
                self.progressed.emit(event)
            case MemoryMeasured() if self._job is not None:
                self.newest = Measurement(self._job, event)
                self.measured.emit(self.newest)

    def _on_ended(self, run: Run | None, terminal: Terminal | None) -> None:
        if isinstance(terminal, RunFailed | RunInterrupted):
            self.failed.emit(terminal.words)
        self._finish()

    def _on_refused(self, error: UserError) -> None:
        self.failed.emit(explain(error))
        self._finish()

    def _finish(self) -> None:
        run_in_background(runs.clear_probes, lambda _: None, lambda _: None, self)
        self.ended.emit()
