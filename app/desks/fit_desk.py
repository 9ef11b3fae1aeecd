"""After a run that ran out of memory: what to change, and the run goes on, or a new one begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget

from app.background import Latest
from app.helper_client import HelperClient
from app.run_controller import RunController
from app.widgets import figures
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle import inputs
from training_backend.memory import make_fit, memory_fixes
from training_backend.memory.memory_fixes import Fixes
from training_backend.runs import Run
from training_backend.vram import TraceNeeded


class FitDesk(QObject):
    """Offers the ranked changes for a run's own job, in a dialog over `window`."""

    new_run = Signal(object)  # TrainingJob: the run itself cannot go on with what was chosen
    refused = Signal(object)  # UserError

    def __init__(self, training: RunController, helper: HelperClient, window: QWidget) -> None:
        super().__init__(window)
        self._training = training
        self._helper = helper
        self._window = window
        self._asked = Latest(self)

    def offer(self, run: Run) -> None:
        """Show what would make an ended run fit."""
        self.leave()
        self._look(lambda: memory_fixes.find(run), run, may_trace=True)

    def leave(self) -> None:
        """Show no more what was asked for: the person looks at another run."""
        self._asked.forget()
        self._helper.cancel("trace", self)

    def _look(self, find: Callable[[], Fixes], run: Run, *, may_trace: bool = False) -> None:
        def failed(error: Exception) -> None:
            if isinstance(error, TraceNeeded) and may_trace:
                self._trace(run)
            else:
                known = isinstance(error, UserError)
                plain = error if known else UserError("unexpected", "{reason}", reason=error)
                self.refused.emit(plain)

        self._asked.ask(find, partial(self._show, run), failed)

    def _trace(self, run: Run) -> None:
        """The model was never looked at here, as of a run that another computer made."""

        def without(_: Exception) -> None:
            self._look(lambda: memory_fixes.without_estimate(run), run)

        def ask(job: TrainingJob) -> None:
            document = {"job": job.model_dump(mode="json")}
            self._helper.ask("trace", document, lambda _: look_again(), without, self)

        def look_again() -> None:
            self._look(lambda: memory_fixes.find(run), run)

        self._asked.ask(run.training_job, ask, without)

    def _show(self, run: Run, fixes: Fixes) -> None:
        from app.widgets.settings.fit_dialog import FitDialog

        dialog = FitDialog(
            fixes.estimate,
            fixes.plan,
            list(fixes.suggestions),
            self._window,
            facts=self._facts(fixes),
            resumes=partial(memory_fixes.goes_on, fixes),
        )
        dialog.chosen.connect(partial(self._apply, run, fixes))
        dialog.open()

    def _facts(self, fixes: Fixes) -> str:
        """What was measured, and what is kept."""
        known = fixes.evidence
        said = []
        if known.memory is not None:
            held = self.tr("When memory ran out, {used} of {total} were in use on {device}.")
            on_cpu = known.memory.device == "cpu"
            said.append(
                held.format(
                    used=figures.decimal(known.memory.device_used_bytes / figures.GIGABYTE, 1),
                    total=figures.gigabytes(known.memory.device_total_bytes),
                    device=self.tr("this computer")
                    if on_cpu
                    else known.memory.device_name or self.tr("the card"),
                )
            )
        if asked := memory_fixes.asked_bytes(known.log):
            said.append(self.tr("{size} more were asked for.").format(size=figures.size(asked)))
        if fixes.in_ram:
            said.append(
                self.tr(
                    "It was the computer's memory, not the card's: closing other programs helps "
                    "most, and a smaller batch does not."
                )
            )
        if known.saved_step is not None:
            kept = self.tr("Everything up to step {step} is saved.")
            said.append(kept.format(step=figures.count(known.saved_step)))
        return " ".join(said)

    def _apply(self, run: Run, fixes: Fixes, changes: dict[str, Any]) -> None:
        job = make_fit.changed(fixes.job, changes)
        if not memory_fixes.goes_on(fixes, changes):
            self.new_run.emit(job)
            return
        if "training.max_length" in changes:  # the rows differ, as the person wants them to
            inputs.accept_changes(run)
        self._training.extend(run, job)
