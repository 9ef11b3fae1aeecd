"""Settings to begin with: for common cases (`resources/presets/`), and people's own. Light.

Own presets are files of the same form in `presets/` below home, so that one can be copied to
somebody else. A preset says how to train, never what: neither model nor data.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training_backend import paths
from training_backend.errors import JobError, UserError
from training_backend.files import write_json_atomic
from training_backend.job import TrainingJob, parse_job, read_document

MOST_BYTES = 1_000_000
LONGEST_TITLE = 60
# They are about somebody's data, so they stay when a preset is chosen.
_LEFT_OUT = ("evaluation.prompts",)

logger = logging.getLogger(__name__)


class Preset(BaseModel):
    """`values` are fields of a job (`section.key`); the rest of the job stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=LONGEST_TITLE)
    description: str
    values: dict[str, Any]

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Whether these settings are what the preset gives."""
        return all(values[field] == value for field, value in self.values.items())


@cache
def presets() -> tuple[Preset, ...]:
    """Those that come with the program, in the order to show them."""
    files = (resources.files("resources") / "presets").iterdir()
    texts = {file.name: file.read_text("utf-8") for file in files if file.name.endswith(".json")}
    return tuple(Preset.model_validate(json.loads(texts[name])) for name in sorted(texts))


@cache
def fields() -> tuple[str, ...]:
    """What a preset of one's own holds: every setting of the form but those about the data."""
    return tuple(
        f"{section}.{key}"
        for section, info in TrainingJob.model_fields.items()
        for key, field in getattr(info.annotation, "model_fields", {}).items()
        if field.json_schema_extra["form"] and f"{section}.{key}" not in _LEFT_OUT
    )


def parse_preset(document: Any, source: str = "preset") -> Preset:
    """Check a preset.

    Raises:
        JobError: its settings are none of this version, or cannot be.
        UserError: `not_a_preset`: it has another form.
    """
    try:
        preset = Preset.model_validate(document, strict=True)
    except ValidationError:
        raise UserError("not_a_preset", "{source} is not a preset.", source=source) from None
    job: dict[str, Any] = {"model": {"id": "demo"}, "dataset": {"path": "demo"}}
    for name, value in preset.values.items():
        section, _, key = name.partition(".")
        if section in ("model", "dataset") or not key:
            raise UserError(
                "not_a_preset",
                "{source} is not a preset: it sets {name}.",
                source=source,
                name=name,
            )
        job.setdefault(section, {})[key] = value
    parse_job(job, source)
    return preset


def own_presets() -> tuple[Preset, ...]:
    """Those that people saved, by title. What cannot be read is passed over, and logged."""
    return tuple(sorted(_files().values(), key=lambda preset: preset.title.casefold()))


def save_own(title: str, values: Mapping[str, Any]) -> Preset:
    """Keep settings under a title; one's own preset of that title is replaced.

    Raises:
        JobError: these settings cannot be.
        UserError: the title is empty, too long or that of a preset of the program; the folder
            cannot be written.
    """
    title = checked_title(title)
    document = {"title": title, "description": "", "values": dict(values)}
    preset = parse_preset(document, title)
    path = next((path for path, known in _files().items() if _same(known.title, title)), None)
    _write(path or _free_path(title), preset)
    return preset


def rename_own(title: str, new: str) -> None:
    """Give one's own preset another title. Raises `UserError`, also when that is taken."""
    new = checked_title(new)
    path, preset = _find(title)
    if any(_same(known.title, new) for at, known in _files().items() if at != path):
        raise UserError(
            "preset_title_taken",
            "There is a preset “{title}” already.",
            "Choose another name.",
            title=new,
        )
    _write(path, preset.model_copy(update={"title": new}))


def delete_own(title: str) -> None:
    """Remove one's own preset. Raises `UserError` when there is none of that title."""
    path, _ = _find(title)
    try:
        path.unlink()
    except OSError as error:
        raise _not_written(path, error) from error


def checked_title(title: str) -> str:
    """The title as it is kept. Raises `UserError` when a preset of one's own cannot have it."""
    title = " ".join(title.split())
    if not 0 < len(title) <= LONGEST_TITLE:
        raise UserError(
            "preset_title_length",
            "A preset's name has 1 to {most} characters.",
            "Choose another name.",
            most=LONGEST_TITLE,
        )
    if any(_same(known.title, title) for known in presets()):
        raise UserError(
            "preset_title_taken_by_program",
            "“{title}” is a preset of the program.",
            "Choose another name.",
            title=title,
        )
    return title


def _folder() -> Path:
    return paths.home() / "presets"


def _files() -> dict[Path, Preset]:
    found = {}
    for path in sorted(_folder().glob("*.json")):
        try:
            found[path] = parse_preset(read_document(path, MOST_BYTES), path.name)
        except (UserError, JobError) as error:
            logger.warning("passed over a preset: %s", error)
    return found


def _find(title: str) -> tuple[Path, Preset]:
    for path, preset in _files().items():
        if _same(preset.title, title):
            return path, preset
    raise UserError("preset_missing", "There is no preset “{title}”.", title=title)


def _free_path(title: str) -> Path:
    stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "preset"
    stem = paths.not_reserved(stem)
    count = 1
    while (path := _folder() / f"{stem}{f'-{count}' if count > 1 else ''}.json").exists():
        count += 1
    return path


def _write(path: Path, preset: Preset) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        write_json_atomic(path, preset.model_dump(mode="json"))
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> UserError:
    return UserError(
        "preset_not_written",
        "The preset cannot be written to {folder}: {reason}.",
        folder=path.parent,
        reason=error.strerror or error,
    )


def _same(title: str, other: str) -> bool:
    return title.casefold() == other.casefold()
