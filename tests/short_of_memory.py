"""A card that has memory for so many rows only, in every worker that is spawned from here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Python imports a `sitecustomize` when it starts; this one waits for the trainer to be imported.
_SITE = """
import importlib.abc
import importlib.util
import sys

TRAINER = "training_backend.training.last_good_step"


def plant():
    import torch
    from transformers import LlamaModel

    real = LlamaModel.forward
    calls = 0

    def forward(self, input_ids, *args, **kwargs):
        nonlocal calls
        calls += self.training
        if self.training and calls >= {from_call} and len(input_ids) > {rows}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, input_ids, *args, **kwargs)

    LlamaModel.forward = forward


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != TRAINER:
            return None
        sys.meta_path.remove(self)
        plant()
        return importlib.util.find_spec(name)


sys.meta_path.insert(0, Finder())
"""


def plant(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int, from_call: int) -> None:
    """Have the forward passes of the training fail that have more rows, from a call on."""
    folder.mkdir()
    text = _SITE.format(rows=rows, from_call=from_call)
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
