"""A model's folder: what its files say, and whether it can be fine-tuned."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from training_backend.errors import UserError


def read_model_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`, provided that it is a text model that can be fine-tuned.

    Raises:
        UserError: about field `model.id`: no or broken `config.json`, another kind of model,
            or one whose weights are quantised already.
    """
    config = _load_config(folder)
    quantised = config.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise _error(
            "model_quantised_already",
            "The model in {folder} is quantised already ({method}).",
            "Choose the original 16-bit model; Lorasmith quantises it to 4-bit itself.",
            folder=folder,
            method=str(method or "unknown method").upper(),
        )
    names = config.get("architectures")
    architectures = [str(name) for name in names] if isinstance(names, list) else []
    if not any(name.endswith("ForCausalLM") or name == "GPT2LMHeadModel" for name in architectures):
        raise _error(
            "model_not_causal",
            "The model in {folder} is not one that writes text: its config.json says {kind}.",
            "Choose a text generation model; its architecture ends in ForCausalLM.",
            folder=folder,
            kind=_kind(config, architectures),
        )
    return config


def check_model_folder(folder: Path) -> None:
    """Makes sure that config and weights are there, whole and of a kind that can be trained.

    Raises:
        UserError: about field `model.id`.
    """
    read_model_config(folder)
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
    if weights:
        return
    others = sorted(path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".gguf"))
    if not others:
        raise _error(
            "model_weights_missing",
            "There are no weights in {folder}: no model.safetensors, nor an index of its parts.",
            "Download the model again, whole.",
            folder=folder,
        )
    raise _error(
        "model_weights_unsafe",
        "The weights in {folder} are only there as {name}, not as safetensors.",
        "GGUF files cannot be fine-tuned: take the original model."
        if others[0].suffix == ".gguf"
        else "Such files can run programs when they are opened, so they are refused: take a "
        "version of the model with *.safetensors files.",
        folder=folder,
        name=others[0].name,
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load, whether or not they are there."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    return [folder / name for name in _indexed_weights(folder)]


def count_parameters(weights: list[Path]) -> int | None:
    """Numbers in all tensors, by the files' heads: 8 bytes of length, then JSON."""
    try:
        return sum(math.prod(shape) for path in weights for shape in tensor_shapes(path).values())
    except (OSError, ValueError):
        return None


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a safetensors file, by the file's head alone.

    Raises `OSError`, or `ValueError` for what is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 100_000_000:
                raise ValueError("not a safetensors file")
            head = json.loads(file.read(length))
        return {
            name: tuple(entry["shape"]) for name, entry in head.items() if name != "__metadata__"
        }
    except (LookupError, TypeError, AttributeError, struct.error) as error:
        raise ValueError("not a safetensors file") from error


def _kind(config: dict[str, Any], architectures: list[str]) -> str:
    """The model's architecture, with a word on what that is."""
    if not architectures:
        return "nothing about its architecture"
    name = ", ".join(architectures)
    if "vision_config" in config or "audio_config" in config:
        return f"{name}, a model for images or sound"
    if config.get("is_encoder_decoder"):
        return f"{name}, a model that translates one text into another"
    if name.endswith(("MaskedLM", "Classification", "QuestionAnswering", "Model")):
        return f"{name}, an encoder that reads but does not write"
    return name


def _load_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        if (folder / "adapter_config.json").is_file():
            raise _error(
                "model_is_an_adapter",
                "{folder} holds a LoRA adapter, not a base model.",
                "Choose the base model that the adapter was trained on.",
                folder=folder,
            )
        raise _error(
            "model_config_missing",
            "There is no config.json in {folder}.",
            "Choose the folder that holds config.json and the model's *.safetensors files.",
            folder=folder,
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
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


def _indexed_weights(folder: Path) -> list[str]:
    """File names in the index of a model in several parts; empty for one in one part."""
    try:
        text = (folder / "model.safetensors.index.json").read_text(encoding="utf-8")
        return sorted({Path(name).name for name in json.loads(text)["weight_map"].values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _error(code: str, message: str, remedy: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field="model.id", **params)
