"""The verdict beside the files that it is of: `proof.json`, and a mark on what differs. Light."""

from __future__ import annotations

import hashlib
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from training_backend import __version__
from training_backend.files import write_json_atomic, write_text_atomic
from training_backend.hub.push_files import CARD, PICTURE
from training_backend.job import ExportJob
from training_backend.protocol import ExportProved
from training_backend.summaries import model_card

FILE = "proof.json"
MARKER = "DIFFERENT.txt"
_NOT_ASKED = {FILE, MARKER, CARD, PICTURE, "Modelfile"}
_LIBRARIES = ("torch", "transformers", "peft", "ik-llama-cpp-python")


def state(folder: Path) -> str:
    """Stands for the files that a check asks, by names, sizes and times: others have another one.

    Raises `OSError`.
    """
    files = [
        path for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name not in _NOT_ASKED
    ]  # fmt: skip
    stats = [(path.name, path.stat()) for path in files]
    known = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def standing(folder: Path) -> dict[str, Any] | None:
    """What an earlier check found of the very files that are there; None where it found nothing.

    Raises `OSError`.
    """
    found = read(folder) or {}
    is_found = found.get("verdict") in ("alike", "slightly_different", "different")
    is_found = is_found and isinstance(found.get("message"), str)
    return found if is_found and found.get("state") == state(folder) else None


def write(folder: Path, job: ExportJob, proved: ExportProved, state: str) -> None:
    """Write it, into the model card too; nothing in it tells of this computer or the data.

    Raises `OSError`.

    Args:
        state: of the files when the check began.
    """
    document = {
        "version": 1,
        "verdict": proved.verdict,
        "code": proved.code,
        "message": proved.message,
        "checks": [check.model_dump(mode="json") for check in proved.checks],
        "format": job.format,
        "quantization": job.quantization if job.format == "gguf" else None,
        "base": job.base,
        "state": state,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "made_with": {"lorasmith": __version__, **_versions()},
    }
    write_json_atomic(folder / FILE, document)
    if proved.verdict == "different":
        write_text_atomic(folder / MARKER, f"{proved.message}\n")
    else:
        (folder / MARKER).unlink(missing_ok=True)
    model_card.tell_verdict(folder)


def read(folder: Path) -> dict[str, Any] | None:
    """What an earlier check of an export said; None where there is none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
