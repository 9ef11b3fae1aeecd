"""The linear layers of a model that need not be here: its structure follows from its config."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from training_backend.errors import UserError
from training_backend.hub import hub_models
from training_backend.job import TrainingJob
from training_backend.models.model_config import config_of, remember_config
from training_backend.models.model_kinds import without_code
from training_backend.models.targets import Layer
from training_backend.training import lora


def layers_of(job: TrainingJob) -> list[Layer]:
    """The layers of a job's model that an adapter can be put on; takes no memory for weights.

    Raises:
        UserError: the model is not known, not reachable, or of no known kind.
    """
    try:
        config = configuration(job)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _unknown(job) from error
    return lora.linear_layers(model)


def configuration(job: TrainingJob) -> Any:
    """transformers' configuration of a job's model, fetched from the Hub where it is not here.

    Raises:
        UserError: as `layers_of`.
    """
    config = config_of(job)
    if config is None:
        name, revision = job.model.id.strip(), job.model.revision
        config = hub_models.fetch_config(name, revision)
        remember_config(name, revision, config)
    settings = without_code({k: v for k, v in config.items() if k != "quantization_config"})
    try:
        return CONFIG_MAPPING[settings["model_type"]].from_dict(settings)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _unknown(job) from error


def _unknown(job: TrainingJob) -> UserError:
    return UserError(
        "layers_unknown",
        "The layers of {model} cannot be told from its config.",
        "Choose another model, or leave the layers as they are.",
        field="model.id",
        model=job.model.id,
    )
