"""Sweeps: one job with a few values of one or more settings, each as a run of its own. Light.

A sweep answers "which rank?" or "is 4-bit as good?" by trying. Its runs go into the queue; what
was varied is kept in `sweeps/<id>.json` below home, and which runs belong to it in the runs'
own folders (see queue_file.py), so that a run that is removed or put back needs no mending here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from training_backend import paths
from training_backend.errors import JobError, Problem, UserError
from training_backend.files import write_json_atomic
from training_backend.job import TrainingJob, parse_job
from training_backend.queueing import queue_file, run_queue
from training_backend.runs import Run

MOST_RUNS = 24

# What can be varied, each with the words that a run's name takes for it.
FIELDS = {
    "lora.r": "rank",
    "training.learning_rate": "learning rate",
    "dataset.max_rows": "rows",
    "quantization.load_in_4bit": "4-bit",
    "training.num_train_epochs": "epochs",
    "lora.lora_alpha": "alpha",
    "lora.lora_dropout": "dropout",
    "lora.target_modules": "layers",
    "lora.use_dora": "DoRA",
    "lora.use_rslora": "rsLoRA",
    "training.lr_scheduler_type": "schedule",
    "training.weight_decay": "weight decay",
    "training.neftune_noise_alpha": "noise",
    "training.optim": "optimizer",
    "training.seed": "seed",
}
_NAME_LENGTH = 120
_TOLERANCE = 1.3  # neighbours in the series 1, 2, 5 are at least so many times apart


class Axis(BaseModel):
    """One setting (`section.key`) and the values to try, as JSON has them; None is "all rows"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    values: tuple[Any, ...]


class Sweep(BaseModel):
    """What was varied, in what job."""

    model_config = ConfigDict(frozen=True)

    version: int = 1
    id: str
    name: str
    created: float  # Unix seconds
    axes: tuple[Axis, ...]

    def runs(self) -> list[Run]:
        """Its runs, in the order in which they were made; without those thrown away."""
        return queue_file.queued_by(self.id)


# -------------------------------------------------------------------------- planning one


def expand(job: TrainingJob, axes: Sequence[Axis]) -> list[TrainingJob]:
    """The jobs of a sweep: every combination of the values, the last axis changing fastest.

    With the rank, alpha changes too, unless it is varied itself: alpha / rank stays the same, so
    that the ranks differ in size and not in strength. With rsLoRA alpha stays as it is, since
    its scaling takes care of the rank.

    Raises `JobError` with every value that cannot be, at its setting, and `UserError` for too
    many or too few runs.
    """
    problems = _problems(job, axes)
    if problems:
        raise JobError(problems, "the sweep")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MOST_RUNS:
        raise UserError(
            "too_many_runs",
            "This would be {count} runs; a sweep has at most {most}.",
            "Leave out some values.",
            count=count,
            most=MOST_RUNS,
        )
    if count < 2:
        raise UserError("nothing_varied", "A sweep needs two values or more.", "Add a value.")
    jobs = []
    for values in itertools.product(*(axis.values for axis in axes)):
        chosen = {axis.field: value for axis, value in zip(axes, values, strict=True)}
        try:
            jobs.append(_variant(job, chosen))
        except JobError as error:
            which = ", ".join(label(field, value) for field, value in chosen.items())
            for problem in error.problems:
                field = problem.field if problem.field in chosen else axes[-1].field
                reason = problem.message
                if field != problem.field and problem.field:
                    reason = f"{title(problem.field)}: {reason}"
                problems.append(Problem(field, f"{which}: {reason}"))
    if problems:
        raise JobError(problems, "the sweep")
    return jobs


def notes(job: TrainingJob, axes: Sequence[Axis]) -> list[str]:
    """What a person should know before the runs of a sweep start, in plain sentences."""
    fields = {axis.field for axis in axes}
    found = []
    if "lora.r" in fields and "lora.lora_alpha" not in fields and not job.lora.use_rslora:
        ratio = job.lora.lora_alpha / job.lora.r
        found.append(
            f"Alpha follows the rank (alpha / rank stays {ratio:g}), so that the ranks differ in "
            "size and not in strength."
        )
    if "dataset.max_rows" in fields and job.training.max_steps <= 0:
        found.append("More rows mean more steps, since the epochs stay the same.")
    if not _holds_out(job):
        found.append(
            "No rows are held out, so only training losses can be compared, which say little "
            "about new questions. A held-out share of 0.05 would tell more."
        )
    if "training.seed" not in fields:
        found.append(
            "Each value is tried with one seed, so small differences may be chance. Vary the seed "
            "too to see how much chance there is."
        )
    return found


def suggest_values(job: TrainingJob, field: str, rows: int | None = None) -> tuple[Any, ...]:
    """A few sensible values of a setting, around the job's own where that makes sense.

    Args:
        field: one of `FIELDS`.
        rows: how many rows the data has, where that is known.
    """
    match field:
        case "lora.r" | "lora.lora_alpha":
            now = value_of(job, field)
            values: list[Any] = [now // 2, now, now * 2]
        case "training.learning_rate":
            values = list(_neighbours(job.training.learning_rate))
        case "dataset.max_rows":
            values = [250, 1000, None] if rows is None else [rows // 4, rows // 2, None]
        case "quantization.load_in_4bit":
            values = [True, False]
        case "training.num_train_epochs":
            now = job.training.num_train_epochs
            values = [now, 2 * now, 4 * now] if now <= 1 else [1.0, now, 2 * now]
        case "training.seed":
            values = [job.training.seed + n for n in range(3)]
        case _:
            values = _USUAL[field]
    return tuple(value for value in dict.fromkeys(values) if _is_possible(job, field, value))


_USUAL: dict[str, list[Any]] = {
    "lora.lora_dropout": [0.0, 0.05, 0.1],
    "lora.target_modules": ["attention", "all-linear"],
    "lora.use_dora": [False, True],
    "lora.use_rslora": [False, True],
    "training.lr_scheduler_type": ["cosine", "linear", "constant_with_warmup"],
    "training.weight_decay": [0.0, 0.01, 0.1],
    "training.neftune_noise_alpha": [0.0, 5.0],
    "training.optim": ["adamw_torch", "adamw_8bit", "adafactor"],
}


def find_field(name: str) -> str:
    """The setting that a person means: `lora.r`, `r` or `rank`. Raises `JobError` for others."""
    known: dict[str, str] = {}
    for field, word in FIELDS.items():
        known |= dict.fromkeys((field, field.partition(".")[2], word.lower()), field)
        known |= dict.fromkeys(_info(field).json_schema_extra["aliases"], field)
    wanted = name.strip().lower()
    if wanted not in known:
        possible = ", ".join(FIELDS)
        raise JobError([Problem(name, f"cannot be varied; what can be: {possible}")], "the sweep")
    return known[wanted]


def title(field: str) -> str:
    """What the settings page calls a setting."""
    return str(_info(field).title)


def label(field: str, value: Any) -> str:
    """A value in the words of a run's name: "rank 8", "16-bit", "all rows"."""
    word = FIELDS.get(field, field)
    match field, value:
        case "quantization.load_in_4bit", bool():
            return "4-bit" if value else "16-bit"
        case "dataset.max_rows", None:
            return "all rows"
        case "dataset.max_rows" | "training.num_train_epochs", _:
            return f"{value_text(value)} {word}"
        case _, bool():
            return word if value else f"no {word}"
    return f"{word} {value_text(value)}"


def value_text(value: Any) -> str:
    """A value alone, as a table shows it."""
    match value:
        case None:
            return "all"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return "+".join(map(str, value))
    return str(value)


def value_of(job: TrainingJob, field: str) -> Any:
    """What a job has for a setting."""
    section, _, key = field.partition(".")
    return getattr(getattr(job, section), key)


# ------------------------------------------------------------------------- starting, listing


def start(job: TrainingJob, axes: Sequence[Axis]) -> Sweep:
    """Put all runs of a sweep at the queue's end. Raises as `expand`."""
    jobs = expand(job, axes)
    sweep = Sweep(
        id=f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:6]}",
        name=job.name,
        created=time.time(),
        axes=tuple(axes),
    )
    file = _folder() / f"{sweep.id}.json"
    write_json_atomic(file, sweep.model_dump(mode="json"))
    try:
        run_queue.add(jobs, sweep.id)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    return sweep


def find(sweep_id: str) -> Sweep:
    """Raises `UserError` when there is none, or its file is damaged."""
    for sweep in list_sweeps():
        if sweep.id == sweep_id:
            return sweep
    raise UserError("sweep_missing", "There is no sweep {sweep}.", sweep=sweep_id)


def list_sweeps() -> list[Sweep]:
    """All readable sweeps, newest first."""
    found = []
    for path in _folder().glob("*.json"):
        with contextlib.suppress(OSError, ValidationError):
            found.append(Sweep.model_validate_json(path.read_bytes()))
    return sorted(found, key=lambda sweep: sweep.created, reverse=True)


def _folder() -> Path:
    folder = paths.home() / "sweeps"
    folder.mkdir(exist_ok=True)
    return folder


# ----------------------------------------------------------------------------- one job


def _variant(job: TrainingJob, chosen: dict[str, Any]) -> TrainingJob:
    """The job with some values changed, and named after them. Raises `JobError`."""
    document = job.model_dump(mode="json")
    for field, value in chosen.items():
        section, _, key = field.partition(".")
        document[section][key] = value
    lora = document["lora"]
    follows = "lora.r" in chosen and "lora.lora_alpha" not in chosen and not lora["use_rslora"]
    if follows and isinstance(lora["r"], int):  # else it is refused below
        lora["lora_alpha"] = max(1, round(job.lora.lora_alpha * lora["r"] / job.lora.r))
    words = "".join(f", {label(field, value)}" for field, value in chosen.items())
    room = max(1, _NAME_LENGTH - len(words))
    document["name"] = (job.name[:room] + words)[:_NAME_LENGTH]
    made = parse_job(document, document["name"])
    assert isinstance(made, TrainingJob)
    return made


def _problems(job: TrainingJob, axes: Sequence[Axis]) -> list[Problem]:
    """What is wrong with each setting and each of its values, by itself."""
    found = []
    for number, axis in enumerate(axes):
        if axis.field not in FIELDS:
            found.append(Problem(axis.field, "cannot be varied"))
            continue
        if axis.field in [other.field for other in axes[:number]]:
            found.append(Problem(axis.field, "is given twice"))
        if not axis.values:
            found.append(Problem(axis.field, "no values are given"))
        if reason := _without_effect(job, axis.field):
            found.append(Problem(axis.field, reason))
        seen = []
        for value in axis.values:
            text = json.dumps(value)
            if text in seen:
                found.append(Problem(axis.field, f"{value_text(value)} is given twice"))
            seen.append(text)
            found += [
                Problem(axis.field, f"{value_text(value)}: {problem.message}")
                for problem in _field_problems(job, axis.field, value)
            ]
    return found


def _field_problems(job: TrainingJob, field: str, value: Any) -> list[Problem]:
    """What the field itself says of a value; not what else in the job forbids it."""
    try:
        _variant(job, {field: value})
    except JobError as error:
        return [problem for problem in error.problems if problem.field == field]
    return []


def _without_effect(job: TrainingJob, field: str) -> str:
    if job.training.method == "full" and field.startswith("lora."):
        return "means nothing where every weight is trained; choose lora"
    if field == "training.num_train_epochs" and job.training.max_steps > 0:
        return "means nothing while training.max_steps ends the run; set that to -1"
    return ""


def _is_possible(job: TrainingJob, field: str, value: Any) -> bool:
    try:
        _variant(job, {field: value})
    except JobError:
        return False
    return True


def _info(field: str) -> Any:
    """What the job's model says of a field: its title, help and bounds."""
    section, _, key = field.partition(".")
    annotation: Any = TrainingJob.model_fields[section].annotation
    return annotation.model_fields[key]


def _holds_out(job: TrainingJob) -> bool:
    return bool(job.evaluation.held_out_fraction) or job.dataset.held_out_path is not None


def _neighbours(value: float) -> tuple[float, float, float]:
    """A number and those before and after it in the series 1, 2, 5, 10, 20, ..."""
    decade = math.floor(math.log10(value))
    series = [float(f"{n}e{d}") for d in range(decade - 1, decade + 3) for n in (1, 2, 5)]
    below = max(one for one in series if one * _TOLERANCE < value)
    above = min(one for one in series if one > value * _TOLERANCE)
    return below, value, above
