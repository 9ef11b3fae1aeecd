"""Follows the draft and says how much memory it needs, as settings change.

An estimate takes milliseconds in a thread. A model that was never looked at is traced by the
helper first, which takes seconds; until then the last estimate stands, said to be old.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from app.background import Latest
from app.draft import JobDraft
from app.helper_client import HelperClient
from app.i18n import explain
from training_backend import catalog, vram
from training_backend.computer.devices import Device, this_device
from training_backend.errors import JobError, UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.memory.make_fit import Lengths
from training_backend.vram import Estimate, TraceNeeded

PAUSE_MS = 60  # after the last change
REFRESH_MS = 4_000  # other programs come and go
DEVICE_SECONDS = 3.0
_SECTIONS = {"model", "quantization", "lora", "training"}


@dataclass(frozen=True)
class Estimated:
    """An estimate with the job that it is of."""

    job: TrainingJob
    estimate: Estimate


def _check_files(job: TrainingJob) -> None:
    """A damaged model fits nowhere. Raises `UserError`; a folder without weights is fine."""
    try:
        catalog.describe_model(job.model.id)
    except UserError as error:
        if error.code != "model_weights_missing":
            raise


class MemoryEstimator(QObject):
    """Emits one of its signals after every change that matters."""

    estimated = Signal(object)  # Estimated
    tracing = Signal()  # the model is being looked at
    unknown = Signal(str)  # why there is no estimate
    traced = Signal()  # a model's memory is known from now on

    def __init__(self, draft: JobDraft, helper: HelperClient, parent: QObject | None = None):
        super().__init__(parent)
        self._draft = draft
        self.helper = helper
        self._device: tuple[float, Device] | None = None
        self._found = Latest(self, same=True)  # again and again of the same settings
        self._traced: dict[str, Any] | None = None  # what the helper was asked to trace last
        self._why_untraced = ""  # what came of that, if nothing did
        self._held = False
        self._sound = ""  # the model whose files were looked at and can be trained
        self.current: Estimated | None = None
        self.lengths: Lengths | None = None
        self._pause = QTimer(self, singleShot=True, interval=PAUSE_MS)
        self._pause.timeout.connect(self.refresh)
        self._again = QTimer(self, interval=REFRESH_MS)
        self._again.timeout.connect(self.refresh)
        draft.changed.connect(self._on_changed)

    def watch(self, seen: bool) -> None:
        """Look again now and then while somebody looks; other programs come and go."""
        if seen:
            self.refresh()
            self._again.start()
        else:
            self._again.stop()

    def set_lengths(self, lengths: Lengths | None) -> None:
        """How many rows have so many tokens, as far as the data was gone through."""
        self.lengths = lengths

    def forget_device(self) -> None:
        """Look at the device anew, as after another card was chosen."""
        self._device = None
        self._found.forget()

    def hold(self, held: bool) -> None:
        """While a run or a trial of ours holds memory, go by what was free before it."""
        was_held, self._held = self._held, held
        if was_held and not held:
            self.forget_device()
            self.refresh()

    def is_of_now(self, shown: Estimated) -> bool:
        """Whether the settings are still those that this is of."""
        try:
            return self._job() == shown.job
        except JobError:
            return False

    def refresh(self) -> None:
        """Estimate anew."""
        self._pause.stop()
        try:
            job = self._job()
        except JobError:
            self._found.forget()
            self.current = None
            self.unknown.emit(self.tr("Some settings need a look first."))
            return
        known, held, sound = self._device, self._held, self._sound

        def work() -> tuple[float, Device, Estimate | None]:
            now = time.monotonic()
            at, device = known or (0.0, None)
            if device is None or (now - at > DEVICE_SECONDS and not held):
                at, device = now, this_device()
            if job.model.id != sound:  # reads the heads of all its files
                _check_files(job)
            try:
                return at, device, vram.estimate_job(job, device)
            except TraceNeeded:
                return at, device, None

        self._found.ask(work, lambda found: self._on_found(job, *found), self._on_error)

    # --------------------------------------------------------------------------- what comes back

    def _on_found(
        self, job: TrainingJob, at: float, device: Device, found: Estimate | None
    ) -> None:
        self._device = (at, device)
        self._sound = job.model.id
        if found is not None:
            self._traced = None
            self.current = Estimated(job, found)
            self.estimated.emit(self.current)
            return
        self._trace(job.model_dump(mode="json"))

    def _trace(self, document: dict[str, Any]) -> None:
        """Have the model looked at, once for these settings, however often that is asked."""
        if document == self._traced:
            if self._why_untraced:
                self.unknown.emit(self._why_untraced)
            return
        self._traced = document
        self._why_untraced = ""
        self.current = None
        self.tracing.emit()

        def done(_: dict[str, Any]) -> None:
            self._why_untraced = self.tr("This model's memory on this device is not known.")
            self.refresh()  # which has an estimate now, else says that
            self.traced.emit()

        def fail(error: Exception) -> None:
            if document == self._traced:
                self._why_untraced = explain(error)
                self.unknown.emit(self._why_untraced)

        self.helper.ask("trace", {"job": document}, done, fail, self)

    def _on_error(self, error: Exception) -> None:
        self.current = None
        self.unknown.emit(explain(error))

    def _on_changed(self, field: str) -> None:
        if field.partition(".")[0] in _SECTIONS:
            self._found.forget()
            self._traced = None
            if field.startswith("model."):  # said anew when its files have changed, too
                self._sound = ""
            self._pause.start()

    def _job(self) -> TrainingJob:
        """What of the draft memory depends on, so that a mistake elsewhere does not matter."""
        document = self._draft.document()
        kept = {name: document[name] for name in _SECTIONS}
        job = parse_job({"version": 1, "name": "estimate", "dataset": {"path": "demo"}, **kept})
        assert isinstance(job, TrainingJob)
        return job
