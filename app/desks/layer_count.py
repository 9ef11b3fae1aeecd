"""How many layers the draft adapts, and how many numbers that trains, as its settings change.

The helper names a model's layers once, in some seconds; counting is done here, at once.
"""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QLabel

from app.draft import JobDraft
from app.helper_client import HelperClient
from app.i18n import explain, integer
from training_backend.errors import JobError, UserError
from training_backend.models import targets
from training_backend.models.targets import Layer

_DEPENDS_ON = ("model.id", "model.revision", "lora.", "training.method", "quantization.")


class LayerCount(QObject):
    """Writes into a label, and tells which setting names what the model does not have."""

    problem = Signal(str, str)  # the field, and what is wrong
    counted = Signal()  # nothing is wrong

    def __init__(self, draft: JobDraft, helper: HelperClient, label: QLabel) -> None:
        super().__init__(label)
        self._draft = draft
        self._helper = helper
        self._label = label
        self._model: tuple[Any, Any] | None = None  # of which the layers are known or asked for
        self._layers: list[Layer] = []
        self._wanted = False
        draft.changed.connect(self._on_changed)

    def watch(self, seen: bool) -> None:
        """Whether somebody looks; until then nothing is asked."""
        self._wanted = seen
        if seen:
            self._refresh()

    def _on_changed(self, field: str) -> None:
        if self._wanted and field.startswith(_DEPENDS_ON):
            self._refresh()

    def _refresh(self) -> None:
        try:
            job = self._draft.job()
        except JobError:
            self._label.setText("–")
            return
        model = (job.model.id, job.model.revision)
        if model != self._model:
            self._model, self._layers = model, []
            self._label.setText(self.tr("looking at the model"))
            self._helper.ask(
                "layers",
                {"job": job.model_dump(mode="json")},
                lambda answer: self._on_layers(model, answer),
                lambda error: self._on_failed(model, error),
                self,
            )
            return
        if not self._layers:
            return
        if job.training.method == "full":
            self._label.setText(self.tr("every weight"))
            return
        try:
            chosen = targets.adapted(self._layers, job.lora)
        except UserError as error:
            self._label.setText("–")
            self.problem.emit(error.field or "", explain(error))
            return
        self.counted.emit()
        self._label.setText(
            self.tr("{layers} of {all} layers, {numbers} trained numbers").format(
                layers=integer(len(chosen)),
                all=integer(len(self._layers)),
                numbers=integer(targets.trained(chosen, job.lora)),
            )
        )

    def _on_layers(self, model: tuple[Any, Any], answer: dict[str, Any]) -> None:
        if model == self._model:
            self._layers = [Layer(**layer) for layer in answer["layers"]]
            self._refresh()

    def _on_failed(self, model: tuple[Any, Any], error: Exception) -> None:
        if model == self._model:
            self._model = None  # asked again at the next change
            self._label.setText(explain(error))
