"""What holds for the whole program and for all its processes: `preferences.json` below home.

Light. Secrets are not here: a token lives in the system keyring.
"""

from __future__ import annotations

import json
import os

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training_backend import paths
from training_backend.files import write_json_atomic


class Preferences(BaseModel):
    """`models_folder` is where models are downloaded to ("": where other programs keep theirs);
    `gpu` the UUID of the card to train on ("": the first one)."""

    model_config = ConfigDict(frozen=True)

    work_offline: bool = Field(default=False)
    models_folder: str = Field(default="")
    gpu: str = Field(default="")


def load() -> Preferences:
    """The preferences; a damaged or missing file reads as the defaults."""
    try:
        text = (paths.home() / "preferences.json").read_text(encoding="utf-8")
        return Preferences.model_validate_json(text)
    except (OSError, ValidationError, ValueError):
        return Preferences()


def save(preferences: Preferences) -> None:
    write_json_atomic(paths.home() / "preferences.json", json.loads(preferences.model_dump_json()))


def apply_to_environment() -> None:
    """Tell the Hugging Face libraries; before any of them is imported, in every process."""
    wanted = load()
    if wanted.work_offline:
        for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
            os.environ[variable] = "1"
    if wanted.models_folder:
        os.environ["HF_HUB_CACHE"] = wanted.models_folder
