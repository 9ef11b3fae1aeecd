"""Which kind of model a configuration and a list of files describe, and why one cannot be trained.

Light, and the same for a folder, for what the Hub tells of a model, and for a name in a search.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.models import curated

# Names of methods that a tag or a folder's name may hold where the configuration tells nothing.
_METHODS = (
    "gptq",
    "awq",
    "bitsandbytes",
    "fp8",
    "exl2",
    "exl3",
    "hqq",
    "aqlm",
    "compressed-tensors",
)
# Keys of a `config.json` with which it could have the libraries fetch and run code: kernels
# from the Hub (transformers takes their names where it takes "sdpa"), modules, pipelines; or load
# other weights than those that were looked at.
CODE_KEYS = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "use_kernels",
        "kernel_config",
        "trust_remote_code",
        "transformers_weights",
    }
)
_QUANTISATION_KEYS = ("quantization_config", "compression_config", "quantization")
# Far beyond every model there is. A model of such a size would fill the memory while its layers
# are merely counted.
_LARGEST = {
    "num_hidden_layers": 2_000,
    "num_attention_heads": 10_000,
    "num_key_value_heads": 10_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 10_000_000,
    "vocab_size": 20_000_000,
    "num_experts": 10_000,
    "num_local_experts": 10_000,
    "n_routed_experts": 10_000,
}
_LEFT_OUT = CODE_KEYS.union(_QUANTISATION_KEYS)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_OF_SEVERAL = re.compile(r"model-\d+-of-\d+\.safetensors")  # its index is still to come
_MAPPING = re.compile(r"\(\"([\w.-]+)\", \"\w+Config\"\)|\"([\w.-]+)\": \"\w+Config\"")


def kind_problem(
    config: dict[str, Any] | None,
    files: Iterable[str],
    model: object,
    *,
    tags: Iterable[str] = (),
) -> UserError | None:
    """Why a model cannot be fine-tuned, or None where nothing speaks against it.

    Args:
        config: its `config.json`, or as much of that as is known; None where there is none.
        files: the names of its files, as far as they are known.
        model: what to call it in the sentence: a folder, or owner/name.
        tags: what the Hub says of it.
    """
    names = set(files)
    if "config.json" not in names:
        return _no_config(names, model)
    config = config or {}
    method = _quantised_by(config, {tag.lower() for tag in tags})
    if method:
        return _error(
            "model_quantised_already",
            "The model {model} is quantised already ({method}).",
            f"{_instead(model, config)} Lorasmith quantises it to 4-bit itself.",
            model=model,
            method=method,
        )
    architectures = _architectures(config)
    writes = any(_writes_text(name) for name in architectures)
    if not writes or "vision_config" in config or "audio_config" in config:
        return _error(
            "model_not_causal",
            "The model {model} is not one that writes text: its config.json says {kind}.",
            f"{_instead(model, config)} The architecture of a text model ends in ForCausalLM.",
            model=model,
            kind=_kind(config, architectures),
        )
    type = str(config.get("model_type") or "of no name")
    if type not in (_native_types() or {type}):
        brings = "auto_map" in config
        return _error(
            "model_needs_code" if brings else "model_type_unknown",
            "The model {model} works only with program code of its own (its kind is {type}), "
            "which is never run."
            if brings
            else "The model {model} is of the kind {type}, which the installed version of "
            "transformers does not know.",
            _instead(model, config),
            model=model,
            type=type,
        )
    wild = next((key for key, most in _LARGEST.items() if _is_beyond(config.get(key), most)), None)
    if wild is not None:
        return _error(
            "model_config_wild",
            "The config.json of the model {model} cannot be right: it says {key} = {value}.",
            "Download the model again, or choose another.",
            model=model,
            key=wild,
            value=str(config[wild])[:40],
        )
    return _weights_problem(names, model)


def without_code(config: dict[str, Any]) -> dict[str, Any]:
    """A `config.json` less the keys that lead to program code or to other weights, at any depth.

    How the weights are quantised is left out as well: those of a model that is are refused before.
    """
    return {key: _without_code(value) for key, value in config.items() if key not in _LEFT_OUT}


def _without_code(value: Any) -> Any:
    match value:
        case dict():
            return without_code(value)
        case list():
            return [_without_code(part) for part in value]
    return value


def _is_beyond(value: Any, most: int) -> bool:
    return isinstance(value, int | float) and not -1 <= value <= most


def _no_config(names: set[str], model: object) -> UserError:
    if "adapter_config.json" in names:
        return _error(
            "model_is_an_adapter",
            "{model} holds a LoRA adapter, not a base model.",
            "Choose the base model that the adapter was trained on.",
            model=model,
        )
    if any(name.endswith(".gguf") for name in names):
        return _gguf(names, model)
    if "model_index.json" in names:
        return _error(
            "model_not_causal",
            "The model {model} is not one that writes text: it makes {kind}.",
            _instead(model, {}),
            model=model,
            kind="pictures",
        )
    return _error(
        "model_config_missing",
        "There is no config.json in {model}.",
        "Choose the folder that holds config.json and the model's *.safetensors files.",
        model=model,
    )


def _weights_problem(names: set[str], model: object) -> UserError | None:
    if names & {"model.safetensors", "model.safetensors.index.json"}:
        return None
    others = sorted(
        name for name in names if name.endswith(".safetensors") and not _OF_SEVERAL.fullmatch(name)
    )
    if others:
        return _error(
            "model_weights_elsewhere",
            "The weights in {model} are not where transformers looks for them (model.safetensors "
            "or an index of its parts), only {name} is there.",
            "Take a version of the model that is made for transformers.",
            model=model,
            name=others[0],
        )
    pickled = sorted(name for name in names if name.endswith(_PICKLES))
    if pickled:
        return _error(
            "model_weights_unsafe",
            "The weights in {model} are only there as {name}, not as safetensors.",
            "Such files can run programs when they are opened, so they are refused: take a "
            "version of the model with *.safetensors files.",
            model=model,
            name=pickled[0],
        )
    if any(name.endswith(".gguf") for name in names):
        return _gguf(names, model)
    return _error(
        "model_weights_missing",
        "There are no weights in {model}: no model.safetensors, nor an index of its parts.",
        "Download the model again, whole.",
        model=model,
    )


def _gguf(names: set[str], model: object) -> UserError:
    return _error(
        "model_is_gguf",
        "{model} holds the model only as {name}, a GGUF file.",
        f"GGUF files are made for running a model and cannot be fine-tuned. {_instead(model, {})}",
        model=model,
        name=min(name for name in names if name.endswith(".gguf")),
    )


def _quantised_by(config: dict[str, Any], tags: set[str]) -> str:
    """The method, in capitals; "" for a model that is not quantised."""
    for key in _QUANTISATION_KEYS:
        found = config.get(key)
        if found:
            method = found.get("quant_method") if isinstance(found, dict) else None
            return str(method or ("MLX" if key == "quantization" else "unknown method")).upper()
    return next((method.upper() for method in _METHODS if method in tags), "")


def _architectures(config: dict[str, Any]) -> list[str]:
    names = config.get("architectures")
    return [str(name) for name in names] if isinstance(names, list) else []


def _writes_text(architecture: str) -> bool:
    return architecture.endswith("ForCausalLM") or architecture == "GPT2LMHeadModel"


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


def _instead(model: object, config: dict[str, Any]) -> str:
    """The nearest model that can be trained, as far as it can be told; one sentence."""
    name = model.name if isinstance(model, Path) else str(model)
    nearest = curated.nearest_trainable(name) or curated.nearest_trainable(
        str(config.get("_name_or_path") or config.get("model_type") or "")
    )
    if nearest is None:
        return "Choose the original 16-bit text model."
    return f"Choose the original 16-bit text model, or the nearest in the list: {nearest.id}."


@cache
def _native_types() -> frozenset[str]:
    """The kinds of models that the installed transformers has code for; empty if not to be told.

    Read from its files: importing it takes seconds.
    """
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    models = Path(spec.submodule_search_locations[0]) / "models"
    found: set[str] = set()
    for name in ("auto_mappings.py", "configuration_auto.py"):
        try:
            text = (models / "auto" / name).read_text(encoding="utf-8")
        except OSError:
            continue
        found.update(one or other for one, other in _MAPPING.findall(text))
    return frozenset(found) if "llama" in found else frozenset()


def _error(code: str, message: str, remedy: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field="model.id", **params)
