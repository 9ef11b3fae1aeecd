"""The base models that a person can choose from now, and what their words for one mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training_backend import job
from training_backend.demo_model import (
    DEMO_MODEL_BYTES,
    DEMO_MODEL_NAME,
    demo_model_folder,
    demo_model_ready,
)
from training_backend.errors import UserError
from training_backend.model_folder import check_model_folder, count_parameters, weight_files

DEMO_MODEL_IDS = job.DEMO_MODEL_IDS

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LICENCE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True)
class CatalogEntry:
    """A base model to choose.

    `id` is what goes into a job. `parameters` and `size_bytes` (of the weights) are None
    where the files do not tell. `location` is the folder, or None while it is not here yet.
    """

    id: str
    title: str
    parameters: int | None
    size_bytes: int | None
    licence: str
    location: Path | None
    description: str


def list_models() -> list[CatalogEntry]:
    """The demo model, always first, then the fitting models in the Hugging Face cache.

    Reads folder names, configurations and the heads of weight files; no network.
    """
    return [_demo_entry(), *sorted(_cached_entries(), key=lambda entry: entry.id.lower())]


def resolve_model(id: str) -> str | Path:
    """What to load for a job's `model.id`: a checked folder, or an id on the Hugging Face Hub.

    Args:
        id: "demo", a folder, or owner/name, which is not looked up here.

    Raises:
        UserError: about field `model.id`.
    """
    name = id.strip()
    if name in DEMO_MODEL_IDS:
        if not demo_model_ready():
            raise _error(
                "demo_model_not_ready",
                "The demo model has not been prepared on this computer yet.",
                "Prepare it in the window's Model page, or with: "
                "python -m training_backend demo-model",
            )
        return demo_model_folder()
    # os.path answers False where Path raises: a name too long, an unknown user's home.
    path = Path(os.path.expanduser(name)).absolute()
    if name and os.path.isdir(path):
        _check(path)
        return path
    if name and os.path.isfile(path):
        raise _error(
            "model_is_a_file",
            "{path} is a file; a model is a folder with config.json and *.safetensors.",
            "Choose the folder of the original model. A GGUF file cannot be fine-tuned.",
            path=path,
        )
    if _HUB_ID.fullmatch(name) and ".." not in name and "--" not in name:
        return name
    if _looks_like_path(name):
        raise _error(
            "model_folder_missing",
            "No model folder at {path}.",
            "Check the path, or choose another model.",
            path=path,
        )
    raise _error(
        "model_unknown",
        "“{name}” is neither a folder nor a model on the Hugging Face Hub (owner/name).",
        "Choose a folder, write owner/name, or take the demo model: demo",
        name=name,
    )


def describe_model(id: str) -> CatalogEntry:
    """What can be told of a job's `model.id` without a network.

    Raises:
        UserError: as `resolve_model`; but a demo model that is not prepared yet is fine.
    """
    name = id.strip()
    if name in DEMO_MODEL_IDS:
        return _demo_entry()
    found = resolve_model(name)
    if isinstance(found, Path):
        weights = weight_files(found)
        return CatalogEntry(
            id=name,
            title=found.name,
            parameters=count_parameters(weights),
            size_bytes=sum(path.stat().st_size for path in weights),
            licence=_licence(found),
            location=found,
            description="A folder on this computer.",
        )
    for entry in _cached_entries():
        if entry.id == found:
            return entry
    return CatalogEntry(
        id=found,
        title=found,
        parameters=None,
        size_bytes=None,
        licence="",
        location=None,
        description="It is downloaded from the Hugging Face Hub when training starts.",
    )


def _check(folder: Path) -> None:
    try:
        check_model_folder(folder)
    except OSError as error:
        raise _error(
            "model_folder_unreadable",
            "The model folder {path} cannot be read: {reason}.",
            "Check that you may read it and all files in it.",
            path=folder,
            reason=error.strerror or error,
        ) from error


def _demo_entry() -> CatalogEntry:
    ready = demo_model_ready()
    return CatalogEntry(
        id=DEMO_MODEL_IDS[0],
        title=f"{DEMO_MODEL_NAME} (demo)",
        parameters=134_515_008,
        size_bytes=DEMO_MODEL_BYTES,
        licence="apache-2.0",
        location=demo_model_folder() if ready else None,
        description="A small chat model that trains on any computer, even without a GPU."
        + ("" if ready else " It is downloaded once (93 MB)."),
    )


def _cached_entries() -> Iterator[CatalogEntry]:
    for repo in _hub_cache().glob("models--*--*"):
        snapshot = _snapshot(repo)
        if snapshot is None:
            continue
        try:
            check_model_folder(snapshot)
        except (UserError, OSError):
            continue  # not for training, or not downloaded whole
        weights = weight_files(snapshot)
        name = repo.name.removeprefix("models--").replace("--", "/", 1)
        yield CatalogEntry(
            id=name,
            title=name,
            parameters=count_parameters(weights),
            size_bytes=sum(path.stat().st_size for path in weights),
            licence=_licence(snapshot),
            location=snapshot,
            description="Downloaded from the Hugging Face Hub.",
        )


def _hub_cache() -> Path:
    """Where huggingface_hub keeps models, by its own rules; importing it takes too long."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get("HF_HOME") or caches / "huggingface").expanduser() / "hub"


def _snapshot(repo: Path) -> Path | None:
    """The folder of the cached version that the name `main` stands for."""
    try:
        commit = (repo / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    snapshot = repo / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def _licence(folder: Path) -> str:
    """The licence that the model card names, or an empty string."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as card:
            found = _LICENCE.search(card.read(4000))
    except (OSError, ValueError):
        return ""
    return found.group(1) if found else ""


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~")) or "\\" in name or name.count("/") > 1 or "/" in name[:1]


def _error(code: str, message: str, remedy: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field="model.id", **params)
