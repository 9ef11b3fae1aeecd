"""A job's tokenizer. Needs transformers, but not torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.job import TrainingJob


def load_tokenizer(job: TrainingJob, model: str | Path) -> Any:
    """The tokenizer of a model (a folder or Hub id). Raises `UserError` when it has none."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(model), revision=job.model.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise UserError(
            "model_unloadable",
            "The model {model} cannot be loaded: {reason}",
            "Check the name and the connection, or choose another model.",
            field="model.id",
            model=model,
            reason=str(error).strip().splitlines()[0],
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
