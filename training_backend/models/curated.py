"""The catalogue: base models that are good to fine-tune, from `resources/models.json`.

What the file says of a model was checked once, against its published number of parameters,
with the configuration given there (`tests/integration/test_curated_models.py`).
"""

from __future__ import annotations

import difflib
import json
import math
import re
from functools import cache
from importlib import resources
from typing import Any

from training_backend.models.catalog_entry import CatalogEntry

# Names in which a family's own does not stand.
_ALIASES = {"mixtral": "Mistral", "ministral": "Mistral", "mathstral": "Mistral", "qwq": "Qwen"}
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)(b|m)(?![a-z0-9])")
_BASE = re.compile(r"(?<![a-z0-9])(?:base|pt)(?![a-z0-9])")


def models() -> tuple[CatalogEntry, ...]:
    """All of them, as if none were here yet; each family from small to large."""
    return _read()[0]


def entry(id: str) -> CatalogEntry | None:
    """The catalogue's model of this id."""
    return next((model for model in models() if model.id == id), None)


def config(id: str) -> dict[str, Any] | None:
    """What of a model's `config.json` decides its shapes, for `AutoConfig.for_model(**config)`."""
    found = _read()[1].get(id)
    return None if found is None else dict(found)


def licence_note(licence: str) -> str:
    """What a licence with this short name allows, in words; "" for one not known."""
    return _read()[2].get(licence, "")


def family_of(name: str) -> str:
    """The family that a model's name speaks of, the first if several; "" for one not known."""
    words = {model.family.lower(): model.family for model in models()} | _ALIASES
    found = []
    for word in words:
        # Short names stand in other words too: Phi in “dolphin”, Yi in “playing”.
        pattern = rf"(?<![a-z]){word}(?![a-z])" if len(word) <= 3 else re.escape(word)
        match = re.search(pattern, name.lower())
        if match:
            found.append((match.start(), -len(word), word))
    return words[min(found)[2]] if found else ""


def nearest_trainable(name: str, parameters: int | None = None) -> CatalogEntry | None:
    """The catalogue's model to take in place of one that cannot be trained.

    Of the same family and nearest in size; a chat model, unless the name speaks of a base.

    Args:
        name: as on the Hub, such as TheBloke/Mistral-7B-Instruct-v0.2-GPTQ.
        parameters: where they are known; else the name may tell.
    """
    family = family_of(name)
    rivals = [model for model in models() if model.family == family]
    wanted = parameters or _size_in(name)
    if not rivals:
        return None
    wants_base = bool(_BASE.search(name.lower()))
    short = name.rpartition("/")[2].lower()

    def distance(model: CatalogEntry) -> tuple[float, bool, float]:
        assert model.parameters is not None
        steps = abs(math.log2(model.parameters / wanted)) if wanted else 0.0
        own = model.id.rpartition("/")[2].lower()
        likeness = difflib.SequenceMatcher(None, own, short).ratio()
        return round(steps, 1), model.title.endswith("(base)") != wants_base, -likeness

    return min(rivals, key=distance)


def smaller(name: str, parameters: int | None = None) -> list[CatalogEntry]:
    """The catalogue's smaller models of the same family and kind, the largest first.

    Args:
        parameters: of the model to be replaced; by default as the catalogue or the name tells.
    """
    own = entry(name)
    size = parameters or (own.parameters if own else _size_in(name))
    family = own.family if own else family_of(name)
    base = own.title.endswith("(base)") if own else bool(_BASE.search(name.lower()))
    found = [
        model
        for model in models()
        if model.family == family and model.title.endswith("(base)") == base
        if size is not None and (model.parameters or 0) < 0.9 * size
    ]
    return sorted(found, key=lambda model: -(model.parameters or 0))


def _size_in(name: str) -> int | None:
    """The number of parameters that a name tells: 7B, 1.5b, 135M, 8x7B."""
    found = _SIZE.search(name.lower())
    if found is None:
        return None
    experts, amount, unit = found.groups()
    return int(int(experts or 1) * float(amount) * (1e9 if unit == "b" else 1e6))


@cache
def _read() -> tuple[tuple[CatalogEntry, ...], dict[str, dict[str, Any]], dict[str, str]]:
    """The entries, their configurations by id, and the words for each licence."""
    file = resources.files("resources") / "models.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    entries, configs = [], {}
    for model in document["models"]:
        entries.append(
            CatalogEntry(
                id=model["id"],
                title=model["title"],
                parameters=model["parameters"],
                size_bytes=model["download_bytes"],
                licence=model["licence"],
                location=None,
                description=model["description"],
                family=model["family"],
                context_length=model["context_length"],
                chat_template=model["chat_template"],
                gated=model["gated"],
                source="catalogue",
                licence_note=document["licences"][model["licence"]],
            )
        )
        length = {"max_position_embeddings": model["context_length"]}
        configs[model["id"]] = {**model["config"], **length}
    return tuple(entries), configs, document["licences"]
