"""The `config.json` of a job's model, wherever it is to be had without a network. Light."""

from __future__ import annotations

import functools
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from training_backend import paths
from training_backend.catalog import DEMO_MODEL_IDS, cached_snapshot, resolve_model
from training_backend.errors import UserError
from training_backend.files import write_json_atomic
from training_backend.job import TrainingJob
from training_backend.model_folder import read_model_config

Config = dict[str, Any]


def config_of(job: TrainingJob) -> Config | None:
    """The model's config; None for a model on the Hub that nothing is known of here.

    A folder needs to hold no more than its `config.json`.

    Raises:
        UserError: about field `model.id`.
    """
    name = job.model.id.strip()
    if name in DEMO_MODEL_IDS:
        return _demo_config()
    folder = Path(os.path.expanduser(name)).absolute()
    if name and os.path.isdir(folder):
        return read_model_config(folder)
    resolve_model(name)  # raises unless it is an id on the Hub
    snapshot = cached_snapshot(name) if job.model.revision is None else None
    if snapshot is not None and (snapshot / "config.json").is_file():
        return read_model_config(snapshot)
    return _stored(name, job.model.revision) or _in_catalogue(name)


def remember_config(name: str, revision: str | None, config: Config) -> None:
    """Keep the config of a model on the Hub, once it was fetched."""
    path = _store(name, revision)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, config)


def catalogue_configs() -> dict[str, Config]:
    """The configs of the catalogue's models, by id."""
    return {entry["id"]: entry["config"] for entry in _catalogue() if entry.get("config")}


@functools.cache
def _demo_config() -> Config:
    text = (resources.files("resources") / "demo" / "model_config.json").read_text("utf-8")
    return dict(json.loads(text))


def _in_catalogue(name: str) -> Config | None:
    return next((e.get("config") for e in _catalogue() if e["id"].lower() == name.lower()), None)


@functools.cache
def _catalogue() -> list[Config]:
    try:
        text = (resources.files("resources") / "models.json").read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError):
        return []
    return list(found["models"] if isinstance(found, dict) else found)


def _stored(name: str, revision: str | None) -> Config | None:
    try:
        found = json.loads(_store(name, revision).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _store(name: str, revision: str | None) -> Path:
    file = f"{name}@{revision or 'main'}".replace("/", "--")
    return paths.home() / "memory" / "configs" / f"{file}.json"


__all__ = ["Config", "UserError", "catalogue_configs", "config_of", "remember_config"]
