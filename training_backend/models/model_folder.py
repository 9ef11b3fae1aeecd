"""A model's folder: what its files say, and whether they are whole and fit for training.

Light: reads configurations and the heads of weight files, never the weights.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.models.model_kinds import kind_problem

_LFS_POINTER = b"version https://git-lfs"
_MAX_HEAD_BYTES = 100_000_000
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class WeightsHead:
    """What the head of a safetensors file says: every tensor's type and shape, and the bytes
    that the file must have."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    file_bytes: int


def read_model_config(folder: Path, *, alone: bool = False) -> dict[str, Any]:
    """The folder's `config.json`, provided that it is a text model that can be fine-tuned.

    Args:
        alone: whether the weights may be missing.

    Raises:
        UserError: about field `model.id`: no or broken `config.json`, another kind of model, or
            one whose weights are quantised already.
    """
    names = [*os.listdir(folder), *["model.safetensors"] * alone]
    config = _load_config(folder) if "config.json" in names else None
    problem = kind_problem(config, names, folder)
    if problem is not None:
        raise problem
    assert config is not None
    return config


def dtype_name(config: dict[str, Any]) -> str:
    """The type of numbers that a model's files hold, by torch's name for it."""
    name = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return name if name in ("float64", "float32", "float16") else "bfloat16"


def check_model_folder(folder: Path) -> None:
    """Makes sure that config and weights are there, whole and of a kind that can be trained.

    Raises:
        UserError: about field `model.id`.
    """
    config = read_model_config(folder)
    weights = weight_files(folder)
    missing = [path.name for path in weights if not path.is_file()]
    if missing:
        raise _error(
            "model_incomplete",
            "The model in {folder} is incomplete: {name} is missing ({count} of its files are).",
            "Download the model again.",
            folder=folder,
            name=missing[0],
            count=len(missing),
        )
    if not weights:
        raise _error(
            "model_weights_missing",
            "There are no weights in {folder}: no model.safetensors, nor a sound index of its "
            "parts.",
            "Download the model again, whole.",
            folder=folder,
        )
    tensors = {name: found for path in weights for name, found in _checked(path).tensors.items()}
    absent = sorted(set(_index(folder)) - set(tensors)) if len(weights) > 1 else []
    if absent:
        raise _error(
            "model_incomplete",
            "The model in {folder} is incomplete: its files lack {name} ({count} weights in all).",
            "Download the model again.",
            folder=folder,
            name=absent[0],
            count=len(absent),
        )
    _check_types(folder, tensors)
    _check_vocabulary(folder, config, tensors)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load, whether or not they are there."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    return [folder / name for name in sorted({Path(name).name for name in _index(folder).values()})]


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a file that a tokenizer can be made of."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def count_parameters(weights: list[Path]) -> int | None:
    """Numbers in all tensors, by the files' heads; None where a head cannot be read."""
    try:
        return sum(math.prod(shape) for path in weights for shape in tensor_shapes(path).values())
    except (OSError, ValueError):
        return None


def embedding_rows(folder: Path) -> int | None:
    """How many different tokens the model has weights for; None where that cannot be told."""
    try:
        for path in weight_files(folder):
            rows = _embedding_rows(read_head(path).tensors)
            if rows is not None:
                return rows
    except (OSError, ValueError):
        pass
    return None


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a safetensors file, as `read_head`."""
    return {name: shape for name, (_, shape) in read_head(path).tensors.items()}


def read_head(path: Path) -> WeightsHead:
    """The head of a safetensors file: 8 bytes of length, then JSON, then the tensors' bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a safetensors file.
    """
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEAD_BYTES:
                raise ValueError("not a safetensors file")
            head = json.loads(file.read(length))
            tensors = {
                name: (str(entry["dtype"]), tuple(int(size) for size in entry["shape"]))
                for name, entry in head.items()
                if name != "__metadata__"
            }
            ends = [head[name]["data_offsets"][1] for name in tensors]
            return WeightsHead(tensors, 8 + length + max(ends, default=0))
        except (struct.error, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("not a safetensors file") from error


def _checked(path: Path) -> WeightsHead:
    """The head of a file that is as long as it says."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise _error(
                "model_lfs_pointer",
                "{name} in {folder} is only a Git LFS pointer, a note of where the weights are.",
                "Run “git lfs pull” in that folder, or choose the model by its name, owner/name, "
                "to have it downloaded.",
                name=path.name,
                folder=path.parent,
            )
    try:
        head = read_head(path)
    except ValueError:
        raise _error(
            "model_weights_damaged",
            "{name} in {folder} is damaged: it does not begin as a safetensors file does.",
            "Download the model again.",
            name=path.name,
            folder=path.parent,
        ) from None
    size = path.stat().st_size
    if size != head.file_bytes:
        raise _error(
            "model_weights_truncated",
            "{name} in {folder} is damaged: it should have {expected} bytes and has {actual}.",
            "Download the model again.",
            name=path.name,
            folder=path.parent,
            expected=f"{head.file_bytes:,}",
            actual=f"{size:,}",
        )
    return head


def _check_types(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """8-bit floats have no place in an unquantised model; transformers would convert them."""
    eight_bit = sorted(name for name, (type, _) in tensors.items() if type.startswith("F8"))
    if eight_bit:
        raise _error(
            "model_quantised_already",
            "The model in {folder} is quantised already ({method}).",
            "Choose the original 16-bit model; Lorasmith quantises it to 4-bit itself.",
            folder=folder,
            method="FP8",
        )


def _check_vocabulary(
    folder: Path, config: dict[str, Any], tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    rows, told = _embedding_rows(tensors), config.get("vocab_size")
    if rows is not None and isinstance(told, int) and rows != told:
        raise _error(
            "model_vocabulary_differs",
            "The model in {folder} does not fit together: its config.json names {told} tokens, "
            "its weights hold {rows}.",
            "Download the model again, config.json and weights from the same place.",
            folder=folder,
            told=f"{told:,}",
            rows=f"{rows:,}",
        )


def _embedding_rows(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> int | None:
    return next(
        (shape[0] for name, (_, shape) in tensors.items() if name.endswith(_EMBEDDINGS) and shape),
        None,
    )


def _load_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(_LFS_POINTER.decode()):
            raise ValueError("it is only a Git LFS pointer")
        config = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        config, reason = None, str(error)
    else:
        reason = "it is not a JSON object"
    if not isinstance(config, dict):
        raise _error(
            "model_config_broken",
            "{path} cannot be read: {reason}.",
            "Download the model again.",
            path=path,
            reason=reason,
        )
    return config


def _index(folder: Path) -> dict[str, str]:
    """Tensor names to file names, of a model in several parts; empty for one in one part."""
    try:
        text = (folder / "model.safetensors.index.json").read_text(encoding="utf-8")
        found = {str(name): str(file) for name, file in json.loads(text)["weight_map"].items()}
        return found if all(map(_is_plain_name, found.values())) else {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _is_plain_name(file: str) -> bool:
    """Whether it names weights in this very folder, of the only kind that is opened."""
    return file.endswith(".safetensors") and not set(file) & set("/\\:\0")


def _error(code: str, message: str, remedy: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field="model.id", **params)
