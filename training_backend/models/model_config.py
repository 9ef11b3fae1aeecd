"""The `config.json` of a job's model, wherever it is to be had without a network. Light."""

from __future__ import annotations

import functools
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from training_backend import paths
from training_backend.catalog import DEMO_MODEL_IDS, resolve_model
from training_backend.files import write_json_atomic
from training_backend.hub import hub_cache
from training_backend.job import TrainingJob
from training_backend.models import curated
from training_backend.models.model_folder import read_model_config

Config = dict[str, Any]


def config_of(job: TrainingJob) -> Config | None:
    """The model's config; None for a model on the Hub that nothing is known of here.

    A folder needs to hold no more than its `config.json`.

    Raises:
        UserError: about field `model.id`.
    """
    name, revision = job.model.id.strip(), job.model.revision
    if name in DEMO_MODEL_IDS:
        return demo_config()
    folder = Path(os.path.expanduser(name)).absolute()
    if name and os.path.isdir(folder):
        return read_model_config(folder, alone=True)
    resolve_model(name)  # raises unless it is an id on the Hub
    snapshot = hub_cache.find_snapshot(name, revision)
    curated_config = curated.config(name)
    if snapshot is not None and (snapshot / "config.json").is_file():
        found = read_model_config(snapshot, alone=True)
        # The catalogue's says the same in fewer words, and its trace comes with the program.
        return curated_config if _agrees(curated_config, found) else found
    return _stored(name, revision) or curated_config


def remember_config(name: str, revision: str | None, config: Config) -> None:
    """Keep the config of a model on the Hub, once it was fetched."""
    path = _store(name, revision)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, config)


@functools.cache
def demo_config() -> Config:
    """The demo model's, also before it is prepared."""
    text = (resources.files("resources") / "demo" / "model_config.json").read_text("utf-8")
    return dict(json.loads(text))


def _agrees(short: Config | None, full: Config) -> bool:
    """Whether a catalogue's config says nothing else than the model's own."""
    return short is not None and all(
        full.get(key, value) == value for key, value in short.items() if "position" not in key
    )


def _stored(name: str, revision: str | None) -> Config | None:
    try:
        found = json.loads(_store(name, revision).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _store(name: str, revision: str | None) -> Path:
    file = f"{name}@{revision or 'main'}".replace("/", "--")
    return paths.home() / "memory" / "configs" / f"{file}.json"
