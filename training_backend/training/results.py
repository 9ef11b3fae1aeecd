"""What a training leaves: an adapter's folder, or a whole model's; each is there whole or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file

from training_backend.lifecycle.checkpoints import Checkpoint, move_sealed
from training_backend.models.adapters import CONFIG, WEIGHTS, name_base
from training_backend.models.model_folder import dtype_name, read_model_config
from training_backend.training import lora


def restore(trainer: Any, checkpoint: Checkpoint) -> None:
    """Give the model what the checkpoint holds of it."""
    if isinstance(trainer.model, PeftModel):
        set_peft_model_state_dict(trainer.model, load_file(checkpoint.folder / WEIGHTS))
    else:
        trainer._load_from_checkpoint(str(checkpoint.folder))


def save_adapter(
    trainer: Any, tokenizer: Any, first: lora.Weights | None, staged: Path, target: Path
) -> None:
    """Write the adapter beside and move it into place.

    Args:
        first: what the adapter began with, where that was taken out of the base.
    """
    trainer.model.save_pretrained(staged, safe_serialization=True)
    if first is not None:
        lora.write_as_plain(staged, first)
    name_base(staged)
    assert (staged / WEIGHTS).is_file() and (staged / CONFIG).is_file()
    _move(tokenizer, staged, target)


def save_model(trainer: Any, tokenizer: Any, base: Path, staged: Path, target: Path) -> None:
    """Write the whole model beside, in the type of numbers that its base has, and move it.

    The model in memory is of that type afterwards.
    """
    trainer.model.to(getattr(torch, dtype_name(read_model_config(base))))
    trainer.model.save_pretrained(staged, safe_serialization=True)
    _move(tokenizer, staged, target)


def _move(tokenizer: Any, staged: Path, target: Path) -> None:
    tokenizer.save_pretrained(staged)
    (staged / "README.md").unlink(missing_ok=True)
    move_sealed(staged, target)
