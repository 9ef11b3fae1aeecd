"""The job while it is being edited: it may be wrong, and every change can be undone."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QCoreApplication, QObject, Signal

from app.widgets import wording
from training_backend.errors import JobError
from training_backend.job import TrainingJob, parse_job
from training_backend.job_data import ReadingSection
from training_backend.starting_points.demo import DEMO_JOB

# Changes of one field that follow one another as fast as this are one step of undo.
MERGE_SECONDS = 1.5

# How a source is read, each with what it is for a file that was just chosen.
READING: dict[str, Any] = {name: info.default for name, info in ReadingSection.model_fields.items()}


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
        self.set_values({field: value}, merge=True)

    def set_values(self, values: dict[str, Any], *, merge: bool = False) -> None:
        """Change several fields in one step of undo.

        Args:
            merge: quick changes of the same fields are one step, as while a text is typed.
        """
        changes = {
            field: (self.value(field), value)
            for field, value in values.items()
            if not _same(self.value(field), value)
        }
        if not changes:
            return
        now = time.monotonic() if merge else 0.0
        last = self._done[-1] if self._done else None
        if (
            merge
            and last is not None
            and last.changes.keys() == changes.keys()
            and now - last.time < MERGE_SECONDS
        ):
            self._done.pop()
            changes = {field: (last.changes[field][0], new) for field, (_, new) in changes.items()}
        self._do(_Step(changes, now))

    def undo(self) -> str:
        """Take back the last change; returns a field of it, "" when there is none."""
        if not self._done:
            return ""
        step = self._done.pop()
        self._undone.append(step)
        self._put({field: before for field, (before, _) in step.changes.items()})
        return next(iter(step.changes))

    def redo(self) -> str:
        """Do again what was undone last; returns as `undo`."""
        if not self._undone:
            return ""
        step = self._undone.pop()
        self._done.append(step)
        self._put({field: after for field, (_, after) in step.changes.items()})
        return next(iter(step.changes))

    def next_undo(self) -> dict[str, tuple[Any, Any]]:
        """What `undo` would take back: fields with their values before and after."""
        return dict(self._done[-1].changes) if self._done else {}

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

    # ---------------------------------------------------------------------------- the model

    def choose_model(self, id: str) -> None:
        """Train this one. Neither version nor adapter of the one before belongs to it."""
        if id != self.value("model.id"):
            changes = {"model.id": id, "model.revision": None, "model.adapter": None}
            self.set_values(changes, merge=True)

    def train_on_from(self, adapter: str, base: str, settings: dict[str, Any] | None) -> None:
        """Train an adapter's base model on from that adapter.

        Args:
            settings: the fields that say the same as the adapter, such as `lora.r`.
        """
        model = {"model.id": base, "model.revision": None, "model.adapter": adapter}
        self.set_values({**model, **(settings or {})})

    # -------------------------------------------------------------------- the sources of data

    def sources(self) -> list[dict[str, Any]]:
        """What is learned from, with every field of `SourceSection`; mostly there is one."""
        several = self.value("dataset.sources")
        if several:
            return [{"weight": None, **READING, **source} for source in several]
        short = {name: self.value(f"dataset.{name}") for name in ("path", *READING)}
        return [{**short, "weight": None}]

    def set_source(self, index: int, changes: dict[str, Any], *, merge: bool = False) -> None:
        """Change how one source is read, or its path or weight, in one step of undo."""
        if not self.value("dataset.sources"):
            self.set_values({f"dataset.{key}": changes[key] for key in changes}, merge=merge)
            return
        sources = self.sources()
        sources[index] |= changes
        self.set_values({"dataset.sources": sources}, merge=merge)

    def choose_data(self, path: str) -> None:
        """Learn from this alone. How the data before was read and mended does not fit it."""
        self._set_sources([{"path": path, "weight": None, **READING}], keep_fixes=False)

    def replace_source(self, index: int, path: str) -> None:
        """As `choose_data`, for one source of a mixture; the others and its weight stay."""
        sources = self.sources()
        sources[index] = {**sources[index], **READING, "path": path}
        self._set_sources(sources, keep_fixes=False)

    def add_source(self, path: str) -> None:
        """Learn from this too."""
        new = {"path": path, "weight": None, **READING}
        self._set_sources([*self.sources(), new], keep_fixes=True)

    def remove_source(self, index: int) -> None:
        """Learn from the others only; the last one stays."""
        sources = self.sources()
        if len(sources) > 1:
            self._set_sources(sources[:index] + sources[index + 1 :], keep_fixes=False)

    def _set_sources(self, sources: list[dict[str, Any]], *, keep_fixes: bool) -> None:
        """One source is written in the short form. Fixes may name rows by their number."""
        first = sources[0] if len(sources) == 1 else {"path": None, **READING}
        short = {f"dataset.{name}": first[name] for name in ("path", *READING)}
        several = sources if len(sources) > 1 else []
        fixes = self.value("dataset.fixes") if keep_fixes else []
        self.set_values({**short, "dataset.sources": several, "dataset.fixes": fixes})

    # ------------------------------------------------------------------- short texts about it

    def model_text(self) -> str:
        name = wording.model_name(str(self.value("model.id")))
        adapter = self.value("model.adapter")
        return f"{name} + {wording.model_name(str(adapter))}" if adapter else name

    def dataset_text(self) -> str:
        return " + ".join(wording.data_name(str(source["path"])) for source in self.sources())

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
        self._put({field: after for field, (_, after) in step.changes.items()})

    def _put(self, values: dict[str, Any]) -> None:
        for field, value in values.items():
            section, _, key = field.partition(".")
            if key:
                self._values[section][key] = value
            else:
                self._values[section] = value
        for field in values:  # only now: whoever listens finds all of them changed
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
            if section == "dataset" and given.get("sources") and "path" not in given:
                default["path"] = None
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
