"""A job's tokenizer. Needs transformers, but not torch."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.files import is_disk_full
from training_backend.job import TrainingJob


def load_tokenizer(job: TrainingJob, model: str | Path, *, local_only: bool = False) -> Any:
    """The tokenizer of a model (a folder or Hub id). Raises `UserError` when it has none.

    Args:
        local_only: take it from this computer or not at all.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(model),
            revision=job.model.revision,
            trust_remote_code=False,
            local_files_only=local_only,
        )
    except Exception as error:  # broken files end in errors of any kind
        raise cannot_load(model, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def cannot_load(model: str | Path, error: Exception) -> Exception:
    """What to raise when a model's files, or its fetching, failed."""
    if is_disk_full(error):  # while it was fetched
        return error
    traceback.print_exception(error)
    told = isinstance(error, (OSError, ValueError)) and str(error).strip()
    return UserError(
        "model_unloadable",
        "The model {model} cannot be loaded: {reason}.",
        "Check the name, the files and the connection, or choose another model.",
        field="model.id",
        model=model,
        reason=(told or repr(error)).splitlines()[0].rstrip(".: "),
    )
