"""What holds for the whole program and for all its processes: `preferences.json` below home.

Light. Secrets are not here: a token lives in the system keyring.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training_backend import paths
from training_backend.files import write_json_atomic

_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_OURS = "LORASMITH_SET_OFFLINE"  # tells child processes who set them
_changing = threading.Lock()


class Preferences(BaseModel):
    """`models_folder` is where models are downloaded to ("": where other programs keep theirs);
    `gpu` the UUID of the card to train on ("": the first one); `keep_awake` whether the computer
    stays awake while runs remain."""

    model_config = ConfigDict(frozen=True)

    work_offline: bool = Field(default=False)
    models_folder: str = Field(default="")
    gpu: str = Field(default="")
    keep_awake: bool = Field(default=True)


def load() -> Preferences:
    """The preferences; a damaged or missing file reads as the defaults."""
    try:
        text = (paths.home() / "preferences.json").read_text(encoding="utf-8")
        return Preferences.model_validate_json(text)
    except (OSError, ValidationError, ValueError):
        return Preferences()


def save(preferences: Preferences) -> None:
    """Keep them; this process obeys at once, the others before their next piece of work."""
    write_json_atomic(paths.home() / "preferences.json", json.loads(preferences.model_dump_json()))
    apply_to_environment()


def change(wanted: Callable[[], dict[str, Any]]) -> None:
    """Keep other values of some, the rest as it is. For threads.

    Args:
        wanted: gives the values by name. It is asked when it is this change's turn: of two that
            overtook one another both then keep what was chosen last.
    """
    with _changing:
        save(load().model_copy(update=wanted()))


def is_offline() -> bool:
    """Whether no connection may be opened: the switch is on, or HF_HUB_OFFLINE says so."""
    return load().work_offline or (_environment_says_offline() and _OURS not in os.environ)


def apply_to_environment() -> None:
    """Tell the Hugging Face libraries how they may use the network.

    For the start of every process, before any of them is imported, so that child processes
    know too; and for a running process before a piece of work, since the switch may have been
    flipped: what is imported already is told as well. Someone who set HF_HUB_OFFLINE before
    the program started stays offline, whatever the switch says.
    """
    if load().work_offline:
        if not _environment_says_offline():
            os.environ[_OURS] = "1"
        os.environ.update(dict.fromkeys(_OFFLINE_VARIABLES, "1"))
    elif os.environ.pop(_OURS, None):
        for variable in _OFFLINE_VARIABLES:
            os.environ.pop(variable, None)
    # Without a word it would ask the Hub which programs there are that may call it, and tell.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Xet has a process-wide cache and threads of its own; everything is had without it.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    hub, datasets = _environment_says_offline(), _says_yes("HF_DATASETS_OFFLINE")
    _set_in(
        "huggingface_hub.constants",
        HF_HUB_OFFLINE=hub,
        HF_HUB_DISABLE_TELEMETRY=True,
        HF_HUB_DISABLE_XET=_says_yes("HF_HUB_DISABLE_XET"),
    )
    _set_in("datasets.config", HF_HUB_OFFLINE=hub or datasets)


def _environment_says_offline() -> bool:
    """As huggingface_hub reads it."""
    return _says_yes("HF_HUB_OFFLINE") or _says_yes("TRANSFORMERS_OFFLINE")


def _set_in(module: str, **values: bool) -> None:
    """Change constants that a library read from the environment, if it is imported."""
    if module in sys.modules:
        vars(sys.modules[module]).update(values)


def _says_yes(variable: str) -> bool:
    return os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")
