"""The base models that a person can choose from now, and what their words for one mean."""

from __future__ import annotations

import os
from pathlib import Path

from training_backend import job
from training_backend.errors import UserError
from training_backend.hub import hub_cache
from training_backend.models import curated, model_cache
from training_backend.models.catalog_entry import CatalogEntry as CatalogEntry
from training_backend.models.curated import nearest_trainable as nearest_trainable
from training_backend.models.demo_model import (
    DEMO_MODEL_BYTES,
    DEMO_MODEL_NAME,
    demo_model_folder,
    demo_model_ready,
)
from training_backend.models.model_folder import check_model_folder

DEMO_MODEL_IDS = job.DEMO_MODEL_IDS


def list_models() -> list[CatalogEntry]:
    """The demo model, what the Hugging Face cache holds, then the rest of the catalogue.

    At the end stands what lies in the cache but cannot be trained, each with its `problem`:
    people look for what they know is there. Reads folder names, configurations and the heads
    of weight files; no network.
    """
    cached = sorted(model_cache.models(), key=lambda entry: entry.id.lower())
    usable = [entry for entry in cached if entry.location and not entry.problem]
    here = {entry.id for entry in usable}
    catalogue = [entry for entry in curated.models() if entry.id not in here]
    known = {entry.id for entry in catalogue}
    partly = [entry for entry in cached if not entry.location and entry.id not in known]
    refused = [entry for entry in cached if entry.problem]
    return [_demo_entry(), *usable, *catalogue, *partly, *refused]


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
    hub_id = hub_cache.parse_id(name)
    if hub_id is not None:
        return hub_id
    if "://" in name:
        raise _error(
            "model_is_an_address",
            "“{name}” is not the address of a model on the Hugging Face Hub.",
            "Write owner/name, or choose a folder.",
            name=name,
        )
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

    Of a folder that holds an adapter, `adapter_of` names the model it belongs to.

    Raises:
        UserError: as `resolve_model`; but a demo model that is not prepared yet is fine.
    """
    name = id.strip()
    if name in DEMO_MODEL_IDS:
        return _demo_entry()
    path = Path(os.path.expanduser(name)).absolute()
    adapter = model_cache.adapter_entry(path, name) if name and os.path.isdir(path) else None
    if adapter is not None:
        return adapter
    found = resolve_model(name)
    if isinstance(found, Path):
        return model_cache.folder_entry(found, name)
    cached = model_cache.model(found)
    if cached is not None and cached.location:
        return cached
    return (
        curated.entry(found)
        or cached
        or CatalogEntry(
            id=found,
            title=found,
            parameters=None,
            size_bytes=None,
            licence="",
            location=None,
            description="It is downloaded from the Hugging Face Hub when training starts.",
            family=curated.family_of(found),
            source="hub",
        )
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
        family=curated.family_of(DEMO_MODEL_NAME),
        context_length=8192,
        chat_template=True,
        source="demo",
        licence_note=curated.licence_note("apache-2.0"),
    )


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~")) or "\\" in name or name.count("/") > 1 or "/" in name[:1]


def _error(code: str, message: str, remedy: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field="model.id", **params)
