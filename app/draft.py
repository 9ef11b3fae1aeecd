"""The job while it is being edited: it may be wrong, and every change can be undone."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QCoreApplication, QObject, Signal

from app.widgets import wording
from training_backend.demo import DEMO_JOB
from training_backend.errors import JobError
from training_backend.job import TrainingJob, parse_job

# Changes of one field that follow one another as fast as this are one step of undo.
MERGE_SECONDS = 1.5


@dataclass(frozen=True)
class _Step:
    """What one undo takes back: fields with their values before and after."""

    changes: dict[str, tuple[Any, Any]]
    time: float


class JobDraft(QObject):
    """A training job as nested plain values, whole or not.

    Fields are named as in the job file, `section.key`; `name` stands alone.
    """

    changed = Signal(str)

    def __init__(self, saved: dict[str, Any] | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._values = _filled(saved) or _filled(DEMO_JOB) or {}
        self._done: list[_Step] = []
        self._undone: list[_Step] = []

    def value(self, field: str) -> Any:
        section, _, key = field.partition(".")
        return self._values[section][key] if key else self._values[section]

    def set_value(self, field: str, value: Any) -> None:
        """Change one field; quick changes of the same field are one step of undo."""
        before = self.value(field)
        if _same(before, value):
            return
        now = time.monotonic()
        last = self._done[-1] if self._done else None
        if last is not None and list(last.changes) == [field] and now - last.time < MERGE_SECONDS:
            self._done.pop()
            before = last.changes[field][0]
        self._do(_Step({field: (before, value)}, now))

    def set_values(self, values: dict[str, Any]) -> None:
        """Change several fields in one step of undo."""
        changes = {
            field: (self.value(field), value)
            for field, value in values.items()
            if not _same(self.value(field), value)
        }
        if changes:
            self._do(_Step(changes, 0.0))

    def undo(self) -> str:
        """Take back the last change; returns a field of it, "" when there is none."""
        if not self._done:
            return ""
        step = self._done.pop()
        self._undone.append(step)
        for field, (before, _) in step.changes.items():
            self._put(field, before)
        return next(iter(step.changes))

    def redo(self) -> str:
        """Do again what was undone last; returns as `undo`."""
        if not self._undone:
            return ""
        step = self._undone.pop()
        self._done.append(step)
        for field, (_, after) in step.changes.items():
            self._put(field, after)
        return next(iter(step.changes))

    def can_undo(self) -> bool:
        return bool(self._done)

    def reset(self, fields: list[str]) -> None:
        """Give these fields the defaults of `job.py`."""
        defaults = JobDraft({"model": {"id": "demo"}, "dataset": {"path": "demo"}})
        self.set_values({field: defaults.value(field) for field in fields})

    def job(self) -> TrainingJob:
        """The checked job. Raises `JobError` with all mistakes at once."""
        job = parse_job(self._values)
        if not isinstance(job, TrainingJob):  # a draft has no kind but training
            raise TypeError(type(job).__name__)
        return job

    def document(self) -> dict[str, Any]:
        """The values as they stand, right or wrong, for the settings file."""
        return copy.deepcopy(self._values)

    # ------------------------------------------------------------------- short texts about it

    def model_text(self) -> str:
        return wording.model_name(str(self.value("model.id")))

    def dataset_text(self) -> str:
        return wording.data_name(str(self.value("dataset.path")))

    def settings_text(self) -> str:
        method = "QLoRA" if self.value("quantization.load_in_4bit") else "LoRA"
        return f"{method} r {self.value('lora.r')}"

    def summary(self) -> str:
        """One line: what on what, and how."""
        return QCoreApplication.translate("JobDraft", "{model} on {data}, {settings}").format(
            model=self.model_text(), data=self.dataset_text(), settings=self.settings_text()
        )

    def _do(self, step: _Step) -> None:
        self._done.append(step)
        self._undone.clear()
        for field, (_, after) in step.changes.items():
            self._put(field, after)

    def _put(self, field: str, value: Any) -> None:
        section, _, key = field.partition(".")
        if key:
            self._values[section][key] = value
        else:
            self._values[section] = value
        self.changed.emit(field)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and type(one) is type(other)  # 1 is not True


def _filled(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The document with every default in place; None when it is no job of this version.

    Values that are wrong are kept: the person goes on mending where they left off.
    """
    if document is None:
        return None
    empty = {"model": {"id": "demo"}, "dataset": {"path": "demo"}}
    values: dict[str, Any] = parse_job(empty).model_dump(mode="json")
    if document.get("version", values["version"]) != values["version"]:
        return None
    for section, default in values.items():
        given = document.get(section)
        if isinstance(default, dict) and isinstance(given, dict):
            default.update({key: given[key] for key in given if key in default})
        elif given is not None and not isinstance(default, dict):
            values[section] = given
    values["kind"] = "training"
    return values


def problems_of(draft: JobDraft) -> dict[str, str]:
    """The draft's mistakes by field; empty when it is a job."""
    try:
        draft.job()
    except JobError as error:
        return {problem.field: problem.message for problem in error.problems}
    return {}
