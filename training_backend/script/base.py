"""What a script must know of its base model; needs transformers, but no weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from training_backend.catalog import resolve_model
from training_backend.hub import hub_cache
from training_backend.job import TrainingJob
from training_backend.models import attention, model_layers, start_adapter, targets
from training_backend.models.adapters import Adapter
from training_backend.models.model_folder import dtype_name, read_model_config


@dataclass(frozen=True)
class Base:
    """The base model of a script.

    Attributes:
        name: owner/name on the Hub, or an absolute folder.
        revision: a commit or what the job says; None for a folder.
        attention: transformers' `attn_implementation`.
        target_modules: of PEFT: "all-linear" or names.
        dtype: the type of numbers that its files hold, of torch, such as "bfloat16".
        start: the adapter that the training goes on from.
    """

    name: str
    revision: str | None
    attention: str
    target_modules: str | list[str]
    dtype: str
    start: Adapter | None

    @property
    def is_folder(self) -> bool:
        return os.path.isabs(self.name)


def look_at_base(job: TrainingJob) -> Base:
    """Raises `UserError` about the model, the adapter to start from, or the layers."""
    found = resolve_model(job.model.id)
    here = found if isinstance(found, Path) else hub_cache.find_snapshot(found, job.model.revision)
    # A model of the Hub by its id and commit, also where the job names the cached folder.
    name, revision = (here and hub_cache.origin(here)) or (str(found), job.model.revision)
    if job.model.adapter is not None:
        start_adapter.check(job, here)
    return Base(
        name,
        revision,
        attention.implementation(model_layers.configuration(job)),
        _targets(job),
        dtype_name(read_model_config(here, alone=True) if here else {}),
        start_adapter.find(job),
    )


def _targets(job: TrainingJob) -> str | list[str]:
    if job.training.method == "full":
        return "all-linear"
    # PEFT takes blocks only beside names.
    if job.lora.target_modules == "all-linear" and job.lora.layers_to_transform == "all":
        return "all-linear"
    layers = model_layers.layers_of(job)
    targets.adapted(layers, job.lora)  # raises where a name or a block is not there
    return targets.names(layers, job.lora)
