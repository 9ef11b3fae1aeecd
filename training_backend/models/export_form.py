"""What an export's folder holds, told by its files. Light."""

from __future__ import annotations

import json
from pathlib import Path

from training_backend.job import ExportFormat
from training_backend.models.adapters import CONFIG


def form_of(folder: Path) -> ExportFormat | None:
    """The form of an export, whose weights may be damaged or missing; None where it is none."""
    if not folder.is_dir():
        return None
    files = sorted(folder.glob("*.gguf"))
    if files:
        return "gguf_adapter" if _is_gguf_adapter(files[0]) else "gguf"
    if (folder / CONFIG).is_file():
        return "adapter"
    if (folder / "config.json").is_file():
        return "bnb_4bit" if _is_quantised(folder / "config.json") else "safetensors"
    return None


def _is_gguf_adapter(path: Path) -> bool:
    """By its `general.type`, which stands at the beginning of the file (GGUF version 3)."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    key = b"general.type"
    at = head.find(key)
    value = at + len(key) + 4 + 8  # behind the number of its type and its length
    return at >= 0 and head[value : value + 7] == b"adapter"


def _is_quantised(config: Path) -> bool:
    try:
        known = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(known, dict) and bool(known.get("quantization_config"))
