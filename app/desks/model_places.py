"""What the places mean that a person names on the Model page. For threads: it reads the disk."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.widgets.model.download_card import Room
from training_backend import paths, preferences
from training_backend.errors import UserError
from training_backend.hub import hub_cache
from training_backend.job import DEMO_MODEL_IDS, TrainingJob, parse_job
from training_backend.models import adapters, start_adapter
from training_backend.models.demo_model import demo_model_folder


@dataclass(frozen=True)
class Place:
    """A model by its id; with the adapter to train on from, and the settings that it asks for."""

    id: str
    adapter: Path | None = None
    settings: dict[str, Any] | None = None


def identify(text: str) -> Place:
    """The model, or the base model and adapter, that a folder, owner/name or address stands for.

    Raises:
        UserError: for a folder with an adapter that cannot be trained on.
    """
    folder = os.path.expanduser(text)
    if not os.path.isdir(folder):
        return Place(hub_cache.parse_id(text) or text)
    if not _holds_adapter(Path(folder)):
        return Place(text)
    job = parse_job({"model": {"id": "demo", "adapter": folder}, "dataset": {"path": "demo"}})
    assert isinstance(job, TrainingJob)
    adapter = start_adapter.find(job)
    assert adapter is not None
    settings = {key: value for key, value in start_adapter.settings(adapter).items() if value}
    settings["lora.use_rslora"] = bool(adapter.config.get("use_rslora"))
    return Place(_base(adapter.base), adapter.folder, settings)


def room() -> Room:
    """Where models are downloaded to, and what is free there."""
    folder = hub_cache.folder()
    return Room(folder, paths.free_bytes(folder))


def move_models(folder: Path) -> None:
    """Download models to this folder from now on. Those elsewhere stay where they are.

    Raises:
        UserError: `folder_not_writable`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            "folder_not_writable",
            "Nothing can be written to {folder}: {reason}.",
            "Choose a folder of your own, or another drive.",
            folder=folder,
            reason=error.strerror or error,
        ) from error
    chosen = "" if folder == hub_cache.shared_folder() else str(folder)
    preferences.change(lambda: {"models_folder": chosen})


def _holds_adapter(folder: Path) -> bool:
    if (folder / "config.json").is_file():
        return False
    places = (folder, folder / "adapter")
    return any((place / adapters.CONFIG).is_file() for place in places)


def _base(named: str) -> str:
    """The base as a job names it, not by where it lies on this computer."""
    known = hub_cache.origin(named)
    if known is not None:
        return known[0]
    return DEMO_MODEL_IDS[0] if Path(named) == demo_model_folder() else named
