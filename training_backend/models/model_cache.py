"""Models that lie on this computer: in the Hugging Face cache, or in a folder somebody chose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.hub import hub_cache
from training_backend.job import is_on_network
from training_backend.models import curated, licence
from training_backend.models.catalog_entry import CatalogEntry
from training_backend.models.model_folder import check_model_folder, count_parameters, weight_files

_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")

# Why a model cannot be trained, short enough for a row of a list. `{detail}` is what the
# check found; codes that are not here keep their own sentence.
_PROBLEMS = {
    "model_quantised_already": "It is quantised already ({detail}).",
    "model_not_causal": "It is not a model that writes text ({detail}).",
    "model_weights_unsafe": "Its weights are not safetensors ({detail}).",
    "model_is_gguf": "It is a GGUF file, which cannot be trained.",
    "model_needs_code": "It needs program code of its own.",
    "model_type_unknown": "The installed transformers does not know its kind.",
    "model_weights_truncated": "Its files are damaged: they are too short.",
    "model_weights_damaged": "Its files are damaged.",
    "model_lfs_pointer": "Its weights are only Git LFS pointers.",
    "model_vocabulary_differs": "Its config.json and its weights do not belong together.",
    "model_config_missing": "It has no config.json.",
    "model_config_broken": "Its config.json cannot be read.",
    "model_is_an_adapter": "It is an adapter, not a whole model.",
}
_PARTLY_HERE = ("model_incomplete", "model_weights_missing")


def models() -> Iterator[CatalogEntry]:
    """Every model in the cache, trainable or not.

    One that is here only in part has no `location`; one that cannot be trained has a `problem`.
    """
    seen: set[str] = set()
    for folder in hub_cache.folders():
        for repo in folder.glob("models--*--*"):
            name = repo.name.removeprefix("models--").replace("--", "/", 1)
            snapshot = hub_cache.snapshot_of(repo)
            if snapshot is not None and name not in seen:
                seen.add(name)
                yield _cached(name, snapshot)


def model(name: str) -> CatalogEntry | None:
    """The model of this id (owner/name) in the cache, as in `models`."""
    for folder in hub_cache.folders():
        snapshot = hub_cache.snapshot_of(hub_cache.repo_folder(folder, name))
        if snapshot is not None:
            return _cached(name, snapshot)
    return None


def folder_entry(folder: Path, id: str) -> CatalogEntry:
    """What a model's folder tells; whether it can be trained is not looked at."""
    weights = weight_files(folder)
    config = _json(folder / "config.json")
    name = licence.read(folder).id
    return CatalogEntry(
        id=id,
        title=folder.name,
        parameters=count_parameters(weights),
        size_bytes=sum(path.stat().st_size for path in weights if path.is_file()) or None,
        licence=name,
        licence_note=curated.licence_note(name),
        location=folder,
        description="A folder on this computer.",
        family=curated.family_of(folder.name),
        context_length=_context_length(config),
        chat_template=_has_chat_template(folder),
    )


def adapter_entry(folder: Path, id: str) -> CatalogEntry | None:
    """What the folder of a LoRA adapter tells; None if it is none, or names no base model."""
    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base or not isinstance(base, str) or (folder / "config.json").is_file():
        return None
    if is_on_network(base) and not is_on_network(str(folder)):
        return None  # it came from elsewhere, and is to bring about no look at that computer
    return CatalogEntry(
        id=id,
        title=folder.name,
        parameters=None,
        size_bytes=None,
        licence="",
        location=folder,
        description=f"An adapter for the model {base}.",
        problem=_PROBLEMS["model_is_an_adapter"],
        adapter_of=base,
    )


def _cached(name: str, snapshot: Path) -> CatalogEntry:
    entry = replace(
        folder_entry(snapshot, name),
        title=name,
        description="Downloaded from the Hugging Face Hub.",
        family=curated.family_of(name),
        source="cache",
    )
    try:
        check_model_folder(snapshot)
    except UserError as error:
        if error.code in _PARTLY_HERE:
            text = "Only a part of it is here; the rest is downloaded when training starts."
            return replace(entry, location=None, parameters=None, size_bytes=None, description=text)
        return replace(entry, parameters=None, problem=short_problem(error))
    except OSError as error:
        return replace(entry, problem=f"Its files cannot be read ({error.strerror or error}).")
    known = curated.entry(name)
    if known is None:
        return entry
    return replace(known, location=snapshot, size_bytes=entry.size_bytes, source="cache")


def short_problem(error: UserError) -> str:
    """Why a model cannot be trained, in a few words for a row of a list."""
    found = error.params
    detail = found.get("method") or found.get("kind") or found.get("name")
    text = _PROBLEMS.get(error.code)
    return text.format(detail=detail) if text else error.message


def _context_length(config: dict[str, Any]) -> int | None:
    found = [config[key] for key in _LENGTHS if isinstance(config.get(key), int)]
    return found[0] if found else None


def _has_chat_template(folder: Path) -> bool:
    """Since transformers 4.43 it is a file of its own; before, it stood in the tokenizer's."""
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    return bool(_json(folder / "tokenizer_config.json").get("chat_template"))


def _json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty when there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
