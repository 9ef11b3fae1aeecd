"""Whether the weight files of an export are whole, by their heads. Light."""

from __future__ import annotations

from pathlib import Path

from training_backend.errors import UserError
from training_backend.models import model_folder


def find(folder: Path) -> UserError | None:
    """What is wrong with the weight files of a model's or adapter's folder; None for nothing.

    A GGUF file is looked at by the engine that loads it.
    """
    wanted = {path.name for path in model_folder.weight_files(folder)}
    for path in sorted({folder / name for name in wanted} | set(folder.glob("*.safetensors"))):
        try:
            head, size = model_folder.read_head(path), path.stat().st_size
        except FileNotFoundError:
            return _damage("export_file_missing", "{name} is missing.", path)
        except (ValueError, OSError):
            return _damage("export_file_damaged", "{name} is damaged: it has no head.", path)
        if size != head.file_bytes:
            return _damage(
                "export_file_cut",
                "{name} is damaged: it should have {expected} bytes and has {actual}.",
                path,
                expected=f"{head.file_bytes:,}",
                actual=f"{size:,}",
            )
    return None


def _damage(code: str, template: str, path: Path, **params: str) -> UserError:
    return UserError(code, template, "Export the run again.", name=path.name, **params)
