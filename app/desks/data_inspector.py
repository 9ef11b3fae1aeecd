"""Asks the helper about the draft's data, again whenever something changes what it would say."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from app.draft import JobDraft
from app.helper_client import HelperClient
from training_backend.errors import UserError

ROW_PAUSE_MS = 30  # while somebody runs through the rows
CHANGE_PAUSE_MS = 700

# What of the other sections decides what the model sees, and how many steps that takes.
_TRAINING = ("max_length", "packing", "per_device_train_batch_size", "gradient_accumulation_steps")

_NEXT_STEPS = {"demo_model_not_ready": "prepare_demo", "model_not_here": "fetch_tokenizer"}


class DataInspector(QObject):
    """What the Data page wants to know, kept up to date while the page is on screen."""

    row_arrived = Signal(object)  # the helper's preview
    row_failed = Signal(object, int, str)  # the error, the row, the next step or ""
    lengths_arrived = Signal(object)
    counted = Signal(int, object)  # rows so far; of every source at the end, else None
    lint_progress = Signal(int)
    lint_arrived = Signal(object)
    lint_failed = Signal(object)
    became_stale = Signal()  # lengths told before are no longer right
    preparing = Signal(object)  # progress of the next step

    def __init__(self, draft: JobDraft, helper: HelperClient, parent: QObject) -> None:
        super().__init__(parent)
        self._draft = draft
        self._helper = helper
        self._row = 0
        self._visible = False
        self._has_data = False
        self._lint_due = False
        self._row_pause = QTimer(self, singleShot=True, interval=ROW_PAUSE_MS)
        self._row_pause.timeout.connect(self._preview)
        self._change_pause = QTimer(self, singleShot=True, interval=CHANGE_PAUSE_MS)
        self._change_pause.timeout.connect(self._after_change)
        draft.changed.connect(self._on_draft_changed)

    # ---------------------------------------------------------------------- what the page asks

    def set_visible(self, visible: bool) -> None:
        """The page is on screen: from now on it is worth the work."""
        self._visible = visible
        if visible and self._lint_due:
            self._after_change()

    def refresh(self, problem: UserError | None) -> None:
        """There is new data, with what keeps its rows from being used, if anything does."""
        self._has_data = problem is None
        self._lint_due = self._has_data
        if problem is not None:
            self._stop()
            self.row_failed.emit(problem, self._row, "")
            self.lint_failed.emit(problem)
        elif self._visible:
            self._after_change()

    def forget(self) -> None:
        """There is no data, or not yet."""
        self._has_data = self._lint_due = False
        self._helper.cancel("count", self)
        self._stop()

    def look_at(self, row: int) -> None:
        """Show this row, counted from 0."""
        self._row = row
        if self._has_data and self._visible:
            self._row_pause.start()

    def measure(self, start: int, rows: int) -> None:
        """Say how many tokens these rows have."""
        if self._has_data and self._visible:
            self._ask(
                "lengths",
                {"start": start, "rows": rows},
                lambda answer: self.lengths_arrived.emit(answer["lengths"]),
                lambda _: None,  # the row on show says what is wrong
            )

    def count(self) -> None:
        """Count the rows."""
        self._ask(
            "count",
            {},
            lambda answer: self.counted.emit(sum(answer["counts"]), answer["counts"]),
            lambda error: self.lint_failed.emit(error),
            lambda answer: self.counted.emit(answer["rows"], None),
        )

    def lint(self, near_duplicates: bool = False) -> None:
        """Go through all rows."""
        self._lint_due = False
        self.lint_progress.emit(0)
        self._ask(
            "lint",
            {"near_duplicates": near_duplicates},
            self.lint_arrived.emit,
            self.lint_failed.emit,
            lambda answer: self.lint_progress.emit(answer["rows"]),
        )

    def cancel_lint(self) -> None:
        self._helper.cancel("lint", self)

    def take_next_step(self, step: str) -> None:
        """Prepare the demo model, or download a tokenizer; then show everything."""
        self.preparing.emit({})
        self._ask(
            step,
            {},
            lambda _: self._after_change(),
            lambda error: self.row_failed.emit(error, self._row, step),
            self.preparing.emit,
        )

    def cancel_next_step(self) -> None:
        """Leave it; what it lacks is told and offered again."""
        self._leave_next_step()
        self._preview()

    def is_settled(self) -> bool:
        """Whether nothing is under way."""
        pauses = self._row_pause.isActive() or self._change_pause.isActive()
        return not pauses and not any(
            map(self._helper.is_asked, ("preview", "lengths", "lint", "count"))
        )

    # ------------------------------------------------------------------------- under the hood

    def _on_draft_changed(self, field: str) -> None:
        section, _, key = field.partition(".")
        if section in ("dataset", "model") or (section == "training" and key in _TRAINING):
            self._lint_due = True
            self._stop()  # what is under way is of the settings as they were
            if section == "model":
                self._leave_next_step()
            self._change_pause.start()

    def _after_change(self) -> None:
        if not (self._visible and self._has_data):
            return
        self._change_pause.stop()
        self.became_stale.emit()
        self._preview()
        self.lint()

    def _preview(self) -> None:
        self._row_pause.stop()
        row = self._row
        self._ask(
            "preview",
            {"start": row},
            self.row_arrived.emit,
            lambda error: self._on_row_failed(error, row),
        )

    def _on_row_failed(self, error: Exception, row: int) -> None:
        step = _NEXT_STEPS.get(error.code, "") if isinstance(error, UserError) else ""
        if step:
            self.cancel_lint()
        self.row_failed.emit(error, row, step)

    def _leave_next_step(self) -> None:
        for step in _NEXT_STEPS.values():
            self._helper.cancel(step, self)

    def _stop(self) -> None:
        self._row_pause.stop()
        self._change_pause.stop()
        for kind in ("preview", "lengths", "lint"):
            self._helper.cancel(kind, self)

    def _ask(
        self, kind: str, document: dict[str, Any], done: Any, failed: Any, progress: Any = None
    ) -> None:
        document = {"job": self._job(), **document}
        self._helper.ask(kind, document, done, failed, self, progress)

    def _job(self) -> dict[str, Any]:
        """The part of the draft that matters, so that a mistake elsewhere does not."""
        whole = self._draft.document()
        return {
            "version": whole["version"],
            "name": "data",
            "model": whole["model"],
            "dataset": whole["dataset"],
            "training": {key: whole["training"][key] for key in _TRAINING},
            "evaluation": {"held_out_fraction": whole["evaluation"]["held_out_fraction"]},
        }
