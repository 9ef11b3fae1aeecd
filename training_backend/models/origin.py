"""Which base model an export comes from: its public name, its version and its licence. Light."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

from training_backend.hub import hub_cache
from training_backend.job import DEMO_MODEL_IDS, is_on_network
from training_backend.models import curated, licence
from training_backend.models.adapters import Adapter
from training_backend.models.demo_model import DEMO_MODEL_NAME, demo_model_folder
from training_backend.models.licence import Licence
from training_backend.runs import Run

DEMO_MODEL_HUB_ID = f"HuggingFaceTB/{DEMO_MODEL_NAME}"


@dataclass(frozen=True)
class Origin:
    """A base model, without anything of this computer.

    Attributes:
        id: owner/name on the Hub; "" where it is not known to be there.
        name: for people: the same, else the name of its folder.
        revision: the commit on the Hub; "" where that is not known.
        licence: as its model card, else the catalogue, names it.
        folder: where it lies here, or None. Not to be written anywhere.
    """

    id: str
    name: str
    revision: str = ""
    licence: Licence = field(default_factory=Licence)
    folder: Path | None = None


def of_adapter(adapter: Adapter) -> Origin:
    """The base model of an adapter. Does not look at another computer's files."""
    return find(adapter.base, str(adapter.config.get("revision") or ""))


def of_run(run: Run) -> Origin:
    """The base model of a training."""
    model = run.training_job().model
    return find(model.id, model.revision or "")


def find(base: str, revision: str = "") -> Origin:
    """What is known of a base model by its folder or its id.

    Args:
        base: a folder, owner/name, or the demo model's name.
        revision: the version that is meant, where `base` does not tell.
    """
    if is_on_network(base):
        return Origin("", PureWindowsPath(base).name)
    own = Path(os.path.expanduser(base))  # Path's own raises for an unknown user
    if base in DEMO_MODEL_IDS or own.resolve() == demo_model_folder().resolve():
        origin = Origin(DEMO_MODEL_HUB_ID, DEMO_MODEL_HUB_ID, folder=demo_model_folder())
    elif (known := hub_cache.origin(base)) is not None:
        origin = Origin(known[0], known[0], known[1], folder=Path(base))
    elif own.is_dir() or (id := hub_cache.parse_id(base)) is None:
        origin = Origin("", PureWindowsPath(base).name, folder=own)
    else:
        found = hub_cache.find_snapshot(id, revision or None)
        origin = Origin(id, id, revision, folder=found)
    return replace(origin, licence=_licence(origin))


def _licence(origin: Origin) -> Licence:
    told = licence.read(origin.folder) if origin.folder else Licence()
    listed = curated.entry(origin.id)
    return told if told.id or listed is None else Licence(listed.licence)
