"""What a model card may tell of an export and its run: only what is public or a number. Light.

Reads a whole journal: for a thread or the helper.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from training_backend import runs
from training_backend.errors import UserError
from training_backend.hub import hub_cache
from training_backend.hub.push_files import CARD, front_matter, read_object
from training_backend.job import ExportJob, TrainingJob, VerifyJob
from training_backend.lifecycle import inputs, journal, run_folders
from training_backend.models import origin
from training_backend.models.licence import Licence
from training_backend.models.origin import Origin
from training_backend.paths import export_runs_dir
from training_backend.protocol import (
    AnswersScored,
    EvaluationLogged,
    MemorySampled,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunStarted,
    Score,
)
from training_backend.runs import Run


@dataclass(frozen=True)
class Base:
    """The base model as it may be told: `id` and `revision` on the Hub, "" for one that is not."""

    id: str = ""
    revision: str = ""
    licence: Licence = field(default_factory=Licence)


@dataclass
class Course:
    """What a run's journal tells that a card repeats."""

    training: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    is_preference: bool = False
    rows: int | None = None
    trained: tuple[int, int] | None = None  # parameters that were trained, and all
    trained_token_share: float | None = None
    total_steps: int | None = None
    scores: tuple[Score, ...] = ()
    scored_rows: int = 0
    device: str = ""
    end: RunCompleted | None = None


def export_job(folder: Path) -> ExportJob | VerifyJob | None:
    """What was asked for when this folder was exported, or checked again, here; None if neither."""
    wanted = folder.expanduser().absolute()
    for kept in sorted(run_folders.listed(export_runs_dir()), reverse=True):
        end = journal.last_event(kept)
        if isinstance(end, RunCompleted) and Path(end.folder) == wanted:
            with contextlib.suppress(UserError):
                job = Run(kept).job()
                if isinstance(job, ExportJob | VerifyJob):
                    return job
    return None


def run_of(folder: Path) -> Run | None:
    """The training whose export a folder is; None where that is not known or no longer here."""
    job = export_job(folder)
    with contextlib.suppress(UserError):
        run = None if job is None else runs.find(job.run)
        if run is not None and isinstance(run.job(), TrainingJob):
            return run
    return None


def base_of_job(job: TrainingJob) -> Base:
    return public(origin.find(job.model.id.strip(), job.model.revision or ""))


def public(found: Origin) -> Base:
    """The name of a folder may be private."""
    return Base(found.id, found.revision, found.licence)


def base_of_folder(folder: Path) -> Base:
    """As far as an adapter's own configuration tells it, or the card that an export has."""
    config = read_object(folder / "adapter_config.json")
    id = str(config.get("base_model_name_or_path") or "")
    if not id:
        with contextlib.suppress(OSError, ValueError):
            matter = front_matter((folder / CARD).read_text(encoding="utf-8")) or ""
            found = re.search(r"^base_model:\s*['\"]?([\w./-]+)", matter, re.MULTILINE)
            id = found[1] if found else ""
    if hub_cache.parse_id(id) != id:
        return Base()
    return public(origin.find(id, str(config.get("revision") or "")))


def read(run: Run) -> Course:
    course = Course()
    for events, _ in journal.pieces(run.folder):
        for event in events:
            match event:
                case RunStarted():
                    course.end = None
                case MetricsLogged():
                    _add(course.training, event.step, event.loss)
                case EvaluationLogged():
                    _add(course.held_out, event.step, event.loss)
                    course.is_preference = event.reward_margin is not None
                case PhaseChanged(phase="training", total_steps=int(steps)):
                    course.total_steps, course.rows = steps, event.rows
                    course.trained_token_share = event.trained_token_share
                    if event.trainable_parameters and event.total_parameters:
                        course.trained = (event.trainable_parameters, event.total_parameters)
                case AnswersScored():
                    course.scores, course.scored_rows = event.scores, event.rows
                case MemorySampled():
                    course.device = "" if event.device == "cpu" else event.device_name
                case RunCompleted():
                    course.end = event
    return course


def _add(points: list[tuple[int, float]], step: int, loss: float) -> None:
    """A point of a later attempt supersedes those at the same or a later step."""
    while points and points[-1][0] >= step:
        points.pop()
    points.append((step, loss))


def data_fingerprint(run: Run) -> str:
    found = read_object(run.folder / inputs.FILE_NAME).get("data")
    return found if isinstance(found, str) and re.fullmatch(r"[0-9a-f]{64}", found) else ""


def hub_datasets(job: TrainingJob) -> list[str]:
    """Datasets that are on the Hub by their names; files and folders are never named."""
    paths = [source.path for source in job.dataset.resolved_sources()]
    return [
        path for path in dict.fromkeys(paths)
        if hub_cache.parse_id(path) == path and not Path(path).expanduser().exists()
    ]  # fmt: skip
