"""Job files that pass between people: what one says and would change, what not to share. Light.

A file speaks of three parts of a job: its model, its data, and the settings. A recipe may leave
out model and data, which then stay as they are, and so do name and questions to try; other settings
that it leaves out have their defaults, as in any job file. A preset is a file with settings alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training_backend.data.reader import source_path
from training_backend.errors import UserError
from training_backend.files import write_json_atomic
from training_backend.hub import hub_cache
from training_backend.job import (
    DEMO_MODEL_IDS,
    ModelSection,
    TrainingJob,
    anchored,
    is_on_network,
    parse_job,
    read_document,
)
from training_backend.job_data import DatasetSection, ReadingSection
from training_backend.starting_points.presets import parse_preset

Part = Literal["model", "data", "settings"]
PARTS: tuple[Part, ...] = ("model", "data", "settings")

MOST_BYTES = 32 * 2**20  # fixes may name a hundred thousand rows each
_SECTIONS = tuple(name for name in TrainingJob.model_fields if name not in ("kind", "version"))


@dataclass(frozen=True)
class Recipe:
    """What a file says.

    `values` are fields of a job (`section.key`, and `name`) as a draft holds them; `missing` the
    files and folders named by a part that are not on this computer.
    """

    title: str
    values: dict[str, Any]
    missing: dict[Part, tuple[str, ...]]

    def names(self, part: Part) -> bool:
        """Whether it says which model, which data, or anything about settings."""
        if part == "data":
            return self.values.keys() >= {"dataset.path", "dataset.sources"}
        return any(part_of(field) == part for field in self.values)


@dataclass(frozen=True)
class Change:
    """A field that a recipe would change."""

    part: Part
    field: str
    now: Any
    then: Any


def part_of(field: str) -> Part:
    """The part of a job that a field belongs to."""
    section = field.partition(".")[0]
    return "model" if section == "model" else "data" if section == "dataset" else "settings"


def read(path: Path) -> Recipe:
    """What a job file, a recipe or a preset says. It may have come from anywhere.

    Raises:
        UserError: it is none of them, of a newer version, or cannot be read.
        JobError: every mistake in it, with its place.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError("job_unreadable", "{path} cannot be read: {reason}.", path=path,
                        reason="it is no file")  # fmt: skip
    document = read_document(path, MOST_BYTES)
    _refuse_others(document, path)
    if "values" in document:
        preset = parse_preset(document, path.name)
        return Recipe(preset.title, dict(preset.values), {})
    job, unsaid = _filled(document)
    parsed = parse_job(job, path.name)
    assert isinstance(parsed, TrainingJob)  # `_refuse_others` let no other kind pass
    return _recipe(path.name, anchored(parsed, path.resolve().parent), unsaid)


def of_job(title: str, job: TrainingJob) -> Recipe:
    """What a job says, all of it."""
    return _recipe(title, job, ())


def changes(recipe: Recipe, value_of: Callable[[str], Any]) -> list[Change]:
    """What it would change, in the order of a job.

    Args:
        value_of: what a field holds now, as JSON has it.
    """
    return [
        Change(part_of(field), field, value_of(field), then)
        for field, then in recipe.values.items()
        if value_of(field) != then
    ]


def save(path: Path, document: Mapping[str, Any]) -> None:
    """Write a job file. Raises `UserError`."""
    try:
        write_json_atomic(path, document)
    except OSError as error:
        raise UserError(
            "job_not_written",
            "{path} cannot be written: {reason}.",
            "Choose another folder.",
            path=path,
            reason=error.strerror or error,
        ) from error


def shareable(job: TrainingJob) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The job as a document without anything of this computer, and what that leaves out.

    Ids on the Hub stay; a model in the Hub's cache is named by its id. With a file of data go the
    ways it is read and mended, which belong to it.

    Returns:
        The document, and the fields left out with what they hold.
    """
    document = job.model_dump(mode="json")
    left_out = [*_without_own_model(job, document), *_without_own_data(job, document)]
    return document, left_out


# ------------------------------------------------------------------------------------ reading


def _refuse_others(document: Any, path: Path) -> None:
    ours = isinstance(document, Mapping) and (
        document.get("kind") in ("export", "probe")
        or any(isinstance(document.get(key), Mapping) for key in (*_SECTIONS, "values"))
    )
    # A tokenizer's file has a "model" too, and its version in quotes.
    if not ours or isinstance(document.get("version"), str):
        raise UserError(
            "not_a_job_file",
            "{path} is JSON, but no job file.",
            "A job file has sections such as model, dataset, lora and training.",
            path=path,
        )
    kind, version = document.get("kind", "training"), document.get("version", 1)
    if isinstance(version, int) and version > 1:
        raise UserError(
            "job_of_newer_version",
            "{path} was written by a newer version of Lorasmith.",
            "Update Lorasmith to open it.",
            path=path,
        )
    if kind in ("export", "probe"):
        what = {"export": "an export", "probe": "a trial of one step"}[kind]
        raise UserError(
            "job_of_other_kind",
            "{path} is the job of {what}, not of a training.",
            "Choose the file of a training, such as job.json in a run's folder.",
            path=path,
            what=what,
        )


def _filled(document: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The document as a whole job, and the fields of it that the document does not speak of."""
    whole, unsaid = dict(document), set[str]()
    if "name" not in whole:
        unsaid.add("name")
    if "model" not in whole:
        whole["model"] = {"id": "demo"}
        unsaid |= {f"model.{key}" for key in ModelSection.model_fields}
    data = whole.get("dataset", {})
    if isinstance(data, Mapping) and not data.get("path") and not data.get("sources"):
        whole["dataset"] = {**data, "path": "demo"}
        said = data.keys() - {"path", "sources"}
        unsaid |= {f"dataset.{key}" for key in DatasetSection.model_fields.keys() - said}
    tests = whole.get("evaluation", {})
    if isinstance(tests, Mapping) and "prompts" not in tests:
        unsaid.add("evaluation.prompts")
    return whole, unsaid


def _recipe(title: str, job: TrainingJob, unsaid: Container[str]) -> Recipe:
    values: dict[str, Any] = {"name": job.name}
    for section, content in job.model_dump(mode="json").items():
        if isinstance(content, dict):
            values |= {f"{section}.{key}": value for key, value in content.items()}
    values = {field: value for field, value in values.items() if field not in unsaid}
    missing: dict[Part, tuple[str, ...]] = {}
    if "model.id" in values:
        missing["model"] = _absent(_own_model_paths(job))
    if "dataset.path" in values:
        missing["data"] = _absent(path for path in _data_paths(job) if _is_local(path))
    return Recipe(title, values, {part: found for part, found in missing.items() if found})


def _absent(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        path
        for path in paths
        if is_on_network(path) or not os.path.exists(os.path.expanduser(path))
    )


# ------------------------------------------------------------------------------------ sharing


def _without_own_model(job: TrainingJob, document: dict[str, Any]) -> list[tuple[str, str]]:
    own = _own_model_paths(job)
    model, document["model"] = job.model, {**document["model"], "adapter": None}
    left_out = [("model.adapter", path) for path in own if path == model.adapter]
    if model.id not in own:
        return left_out
    known = hub_cache.origin(model.id)
    if known is not None:
        document["model"] |= {"id": known[0], "revision": known[1]}
        return left_out
    del document["model"]
    return [("model.id", model.id), *left_out]


def _without_own_data(job: TrainingJob, document: dict[str, Any]) -> list[tuple[str, str]]:
    data = document["dataset"]
    sources = job.dataset.resolved_sources()
    local = [source.path for source in sources if _is_local(source.path)]
    left_out = [("dataset.path", path) for path in local]
    held_out = job.dataset.held_out_path
    if held_out is not None and _is_local(held_out):
        data["held_out_path"] = None
        left_out.append(("dataset.held_out_path", held_out))
    if not local:
        return left_out
    if job.dataset.fixes:  # rows are counted over all sources
        left_out.append(
            ("dataset.fixes", ", ".join(fix.code.replace("_", " ") for fix in job.dataset.fixes))
        )
    data["fixes"] = []
    data["sources"] = [each for each in data["sources"] if each["path"] not in local]
    if not data["sources"]:
        for key in ("path", "sources", "fixes", *ReadingSection.model_fields):
            del data[key]
        if data["held_out_path"] is None:
            del data["held_out_path"]
    return left_out


def _own_model_paths(job: TrainingJob) -> list[str]:
    """The folders of this computer that a job names for its model."""
    id, adapter = job.model.id, job.model.adapter
    on_hub = hub_cache.parse_id(id) is not None and not os.path.exists(os.path.expanduser(id))
    own = [] if id in DEMO_MODEL_IDS or on_hub else [id]
    return [*own, adapter] if adapter is not None else own


def _data_paths(job: TrainingJob) -> list[str]:
    held_out = job.dataset.held_out_path
    paths = [source.path for source in job.dataset.resolved_sources()]
    return paths if held_out is None else [*paths, held_out]


def _is_local(path: str) -> bool:
    """Whether a source's path is neither the demo data nor an id on the Hub."""
    if path == "demo":
        return False
    if is_on_network(path):
        return True
    try:
        return isinstance(source_path(path), Path)
    except UserError:  # there is no such file
        return True
