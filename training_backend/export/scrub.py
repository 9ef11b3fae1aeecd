"""What identifies this machine, or could make another program run code, taken out of an export."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from training_backend.files import write_json_atomic
from training_backend.models.model_kinds import CODE_KEYS

_DROPPED_KEYS = CODE_KEYS | {"_name_or_path", "name_or_path"}


def scrub(out: Path) -> None:
    """Take paths and keys that lead to code out of every JSON file of a folder."""
    for path in out.glob("*.json"):
        if path.name != "tokenizer.json":  # the vocabulary: large, and no place for paths
            document = json.loads(path.read_text(encoding="utf-8"))
            write_json_atomic(path, _without_paths(document))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if k not in _DROPPED_KEYS}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if isinstance(value, str) and _is_path(value):
        return PureWindowsPath(value).name
    return value


def _is_path(text: str) -> bool:
    """Whether a text is an absolute path, of this system or of Windows.

    Tokens may begin with a slash too: "/" and "/think" are none unless there is such a folder.
    """
    if len(text) > 1_000 or "\n" in text:
        return False
    if PureWindowsPath(text).is_absolute():
        return True
    path = PurePosixPath(text)
    return path.is_absolute() and (len(path.parts) > 2 or bool(path.name and os.path.exists(text)))
