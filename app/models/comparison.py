"""Several runs side by side: their curves, their results, and in which settings they differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel
from PySide6.QtCore import QCoreApplication

from app.models.run_curves import JournalPart, read_parts
from app.widgets import figures, wording
from app.widgets.charts.series import Series
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle.pauses import Pauses
from training_backend.protocol import AnswersScored, EvaluationLogged, RunStarted, ScoreName
from training_backend.runs import Run, RunSummary
from training_backend.summaries.losses import RECENT, perplexity

MOST_RUNS = 8


@dataclass
class ComparedRun:
    """One run with its curves, by steps and by seconds since it was started."""

    name: str
    run: Run
    job: TrainingJob | None
    loss: Series = field(default_factory=Series)
    loss_in_time: Series = field(default_factory=Series)
    held_out: Series = field(default_factory=Series)
    held_out_in_time: Series = field(default_factory=Series)
    speed: Series = field(default_factory=Series)
    scores: dict[ScoreName, float] = field(default_factory=dict)
    peak_bytes: float | None = None
    seconds: float = 0.0  # of all attempts

    @property
    def final_loss(self) -> float | None:
        """The mean of the last reports, as everywhere."""
        newest = self.loss.ys[-RECENT:]
        return float(newest.mean()) if len(newest) else None

    @property
    def final_held_out(self) -> float | None:
        """Of the model that the run keeps: the best one, or the last."""
        if not len(self.held_out):
            return None
        best = self.job is not None and self.job.evaluation.keep_best
        return float(self.held_out.ys.min() if best else self.held_out.ys[-1])

    @property
    def perplexity(self) -> float | None:
        """On the held-out rows; of preferences there is none."""
        if self.final_held_out is None or self.job is None or self.job.training.objective == "dpo":
            return None
        return perplexity(self.final_held_out)

    @property
    def tokens_per_second(self) -> float | None:
        """The median of its steps."""
        return float(np.median(self.speed.ys)) if len(self.speed) else None


def load(summary: RunSummary) -> ComparedRun:
    """Read a run's journal. For a thread."""
    try:
        job = summary.run.training_job()
    except UserError:
        job = None  # damaged: the curves are still worth a look
    compared = ComparedRun(summary.name, summary.run, job)
    before = 0.0  # seconds of earlier attempts
    pauses = Pauses()
    for part in read_parts(summary.run):
        if part.events and isinstance(part.events[0], RunStarted):
            before = compared.seconds
        for event in part.events:
            pauses.take(event)
        pauses.reach(part.elapsed)
        _add(compared, part, before, pauses)
    return compared


def differing_settings(compared: list[ComparedRun]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs: their titles, and each run's value."""
    documents = [_flat(run.job) if run.job is not None else {} for run in compared]
    titles = {key: title for document in documents for key, (title, _) in document.items()}
    found = []
    for key, title in titles.items():
        shown = [_text(document[key][1]) if key in document else "–" for document in documents]
        if len(set(shown)) > 1:
            found.append((title, shown))
    return found


def _add(compared: ComparedRun, part: JournalPart, before: float, pauses: Pauses) -> None:
    if part.metrics is not None:
        seconds = before + pauses.worked(part.metrics.elapsed)
        compared.loss.extend(part.metrics.step, part.metrics.loss)
        compared.loss_in_time.extend(seconds, part.metrics.loss)
        compared.speed.extend(part.metrics.step, part.metrics.tokens_per_second)
    for event in part.events:
        if isinstance(event, RunStarted):
            compared.scores = {}  # they were of a model that trains on
        elif isinstance(event, EvaluationLogged):
            compared.held_out.append(event.step, event.loss)
            compared.held_out_in_time.append(before + pauses.worked(event.elapsed), event.loss)
        elif isinstance(event, AnswersScored):
            compared.scores = {score.name: score.after for score in event.scores}
    if part.memory is not None:
        known = part.memory.process_bytes[np.isfinite(part.memory.process_bytes)]
        if len(known):
            compared.peak_bytes = max(compared.peak_bytes or 0.0, float(known.max()))
    compared.seconds = max(compared.seconds, before + pauses.worked(part.elapsed))


def _flat(job: TrainingJob) -> dict[str, tuple[str, Any]]:
    """Every setting by `section.key`, with its title; what a run is called is none."""
    flat: dict[str, tuple[str, Any]] = {
        "model.id": (_tr("Model"), wording.model_name(job.model.id)),
        "dataset.path": (_tr("Data"), wording.data_names(job)),
    }
    for name in TrainingJob.model_fields:
        section = getattr(job, name)
        if isinstance(section, BaseModel):
            for key, info in type(section).model_fields.items():
                if (name, key) != ("dataset", "sources"):
                    flat.setdefault(f"{name}.{key}", (info.title or key, getattr(section, key)))
    return flat


def _text(value: Any) -> str:
    match value:
        case None | "" | ():
            return "–"
        case bool():
            return _tr("yes") if value else _tr("no")
        case int():
            return figures.count(value)
        case float():
            return figures.scientific(value) if 0 < abs(value) < 0.01 else f"{value:g}"
        case list() | tuple():
            return ", ".join(_text(item) for item in value)
        case BaseModel():
            return value.model_dump_json(exclude_defaults=True)
    return str(value)


def _tr(text: str) -> str:
    return QCoreApplication.translate("comparison", text)
