"""The LoRA of a job on a loaded model: which layers, how it starts, what is saved of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from training_backend.errors import UserError
from training_backend.files import write_json_atomic
from training_backend.job import TrainingJob
from training_backend.models import start_adapter, targets
from training_backend.models.adapters import CONFIG, WEIGHTS, Adapter
from training_backend.models.model_folder import tensor_shapes
from training_backend.models.targets import Layer

Weights = dict[str, torch.Tensor]


def lora_config(job: TrainingJob, model: Any, start: Adapter | None) -> LoraConfig:
    """The fresh LoRA of a job; one that starts from an adapter has that one's structure.

    Raises:
        UserError: for layers that the model does not have, or that cannot be trained so.
    """
    lora = job.lora
    if start is not None:
        _check_targets(job, model, start)
        return LoraConfig(
            task_type="CAUSAL_LM",
            lora_dropout=lora.lora_dropout,
            **start_adapter.structure(start),
        )
    layers = linear_layers(model)
    chosen = targets.adapted(layers, lora)
    # PEFT takes blocks only beside names.
    by_word = lora.target_modules == "all-linear" and lora.layers_to_transform == "all"
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules="all-linear" if by_word else targets.names(layers, lora),
        layers_to_transform=None
        if lora.layers_to_transform == "all"
        else list(lora.layers_to_transform),
        modules_to_save=_saved_whole(job, model, chosen),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=True if lora.init_lora_weights == "default" else lora.init_lora_weights,
    )


def linear_layers(model: Any) -> list[Layer]:
    """The layers that all-linear stands for; the model may be on the meta device."""
    head = model.get_output_embeddings()  # TRL refuses to adapt it
    found = []
    for name, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, Conv1D):
            found.append(Layer(name, module.weight.shape[1], module.weight.shape[0]))
        elif isinstance(module, torch.nn.Linear):
            found.append(Layer(name, module.out_features, module.in_features))
    return found


# --- parts that are trained whole --------------------------------------------------------


def _saved_whole(job: TrainingJob, model: Any, adapted: list[Layer]) -> list[str] | None:
    """PEFT's `modules_to_save`, checked. A name stands for all modules whose name ends with it."""
    if job.lora.modules_to_save == "none":
        return None
    names = [name.strip() for name in job.lora.modules_to_save]
    under_adapter = {layer.name for layer in adapted}
    tied = model.config.get_text_config().tie_word_embeddings
    edges = (model.get_input_embeddings(), model.get_output_embeddings())
    for name in names:
        found = [(full, m) for full, m in model.named_modules() if full and full.endswith(name)]
        if not any(any(True for _ in module.parameters()) for _, module in found):
            raise _cannot_save(name, "this model has no part of that name")
        for full, module in found:
            if tied and any(part is edge for part in module.modules() for edge in edges):
                raise _cannot_save(
                    name,
                    "the model uses one table for its input and its output, and it would no "
                    "longer be one",
                )
            inside = {f"{full}.{inner}" if inner else full for inner, _ in module.named_modules()}
            if inside & under_adapter:
                raise _cannot_save(name, "it holds layers that get an adapter")
            if any(type(p).__name__ == "Params4bit" for p in module.parameters()):
                raise _cannot_save(name, "its weights are held in 4 bits")
    return names


def _cannot_save(name: str, reason: str) -> UserError:
    return UserError(
        "cannot_train_in_full",
        "{name} cannot be trained in full: {reason}.",
        "Name other parts, such as norm, or write none.",
        field="lora.modules_to_save",
        name=name,
        reason=reason,
    )


# --- starts that change the base ---------------------------------------------------------


def first_weights(job: TrainingJob, model: Any) -> Weights | None:
    """The adapter's numbers before the first step, where they were taken out of the base."""
    if not job.lora.changes_base:
        return None
    state = get_peft_model_state_dict(model)
    return {name: value.detach().float().cpu().clone() for name, value in state.items()}


def write_as_plain(folder: Path, first: Weights) -> None:
    """Make a saved adapter one for the unchanged base: W + s (B A - B0 A0), of twice the rank.

    As PEFT's own conversion does (PiSSA, arXiv:2404.02948, appendix C), on the files.
    """
    trained = load_file(folder / WEIGHTS)
    both = {}
    for name, value in trained.items():
        before = first[name].to(value.dtype)
        if ".lora_A." in name:
            both[name] = torch.cat((value, before), dim=0)
        elif ".lora_B." in name:
            both[name] = torch.cat((value, -before), dim=1)
        else:
            both[name] = value
    save_file(both, folder / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["lora_alpha"] *= 2**0.5 if config["use_rslora"] else 2
    config["r"] *= 2
    config["init_lora_weights"] = True
    write_json_atomic(folder / CONFIG, config)


# --- starting from an adapter ------------------------------------------------------------


def start_from(model: Any, start: Adapter) -> None:
    """Give the model's fresh LoRA the weights of an adapter of the same structure, in fp32.

    Raises `UserError` when they are damaged or do not belong to it.
    """
    try:
        weights = load_file(start.folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise _cannot_start(start, f"it cannot be read ({error})") from error
    broken = [name for name, value in weights.items() if not value.isfinite().all()]
    if broken:
        raise _cannot_start(start, f"{min(broken)} is not a finite number")
    try:
        told = set_peft_model_state_dict(
            model, {name: value.float() for name, value in weights.items()}
        )
    except RuntimeError as error:  # shapes
        raise _cannot_start(start, "its weights have other shapes") from error
    unused = [*told.unexpected_keys, *(name for name in told.missing_keys if "lora_" in name)]
    if unused:
        raise _cannot_start(start, f"{min(unused)} has no counterpart")


def _check_targets(job: TrainingJob, model: Any, start: Adapter) -> None:
    """The job may name its layers by a word only where the adapter has all of them."""
    if not isinstance(job.lora.target_modules, str):
        return
    asked = {layer.name for layer in targets.adapted(linear_layers(model), job.lora)}
    has = {
        name.removeprefix(start_adapter.PREFIX).removesuffix(".lora_A.weight")
        for name in tensor_shapes(start.folder / WEIGHTS)
    }
    if asked - has:
        theirs = sorted({name.rpartition(".")[2] for name in has if ".lora_" not in name})
        raise start_adapter.differs("target_modules", job.lora.target_modules, ", ".join(theirs))


def _cannot_start(start: Adapter, reason: str) -> UserError:
    return UserError(
        "adapter_unusable",
        "The adapter in {folder} cannot be trained on: {reason}.",
        "Take it from its source again, or choose another one.",
        field="model.adapter",
        folder=start.folder,
        reason=reason,
    )
