"""The base model of a run: found, loaded whole, quantised, and which of its layers to adapt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from training_backend import attention, start_adapter
from training_backend.adapters import WEIGHTS, Adapter
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.model_folder import read_model_config, tensor_shapes
from training_backend.model_kinds import without_code
from training_backend.tokenizer import cannot_load
from training_backend.worker import Reporter

# On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first forward in eval
# mode; gradients after it are wrong while the loss looks normal. Keep it from doing so.
bnb.nn.modules.has_avx512bf16 = lambda: False


def load_model(job: TrainingJob, folder: Path, reporter: Reporter) -> Any:
    asked = job.quantization
    compute_dtype = getattr(torch, asked.bnb_4bit_compute_dtype)
    if compute_dtype is torch.bfloat16:
        compute_dtype = precision()  # older cards only emulate bfloat16
    reporter.phase(
        "quantising" if asked.load_in_4bit else "loading",
        detail="the base model, to 4 bits" if asked.load_in_4bit else "the base model",
    )
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=asked.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=asked.bnb_4bit_use_double_quant,
        bnb_4bit_compute_dtype=compute_dtype,
    )
    try:
        config = _config(folder)
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder),
            config=config,
            quantization_config=quantization if asked.load_in_4bit else None,
            dtype=precision(),
            device_map={"": 0 if torch.cuda.is_available() else "cpu"},
            attn_implementation=attention.implementation(config),
            use_safetensors=True,  # never a pickle
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise cannot_load(folder, error) from error
    _check_whole(model, folder, report)
    return model


def _config(folder: Path) -> Any:
    """The model's configuration without what could bring in program code from elsewhere."""
    settings = without_code(read_model_config(folder))
    return CONFIG_MAPPING[settings["model_type"]].from_dict(settings)


def _check_whole(model: Any, folder: Path, report: dict[str, Any]) -> None:
    """Weights that are not in the files were made up; transformers says so in the log only."""
    bad = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and tuple(state.shape) != (module.out_features, module.in_features):
            bad.add(f"{name}.weight")
    if bad:
        raise UserError(
            "model_incomplete",
            "The files of the model {model} lack {name}, or have it in another shape "
            "({count} weights in all).",
            "Download the model again.",
            field="model.id",
            model=folder,
            name=min(bad),
            count=len(bad),
        )


def precision() -> torch.dtype:
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def lora_config(job: TrainingJob, model: Any, start: Adapter | None) -> LoraConfig:
    """The fresh LoRA of a job; one that starts from an adapter has that one's structure."""
    lora = job.lora
    if start is not None:
        _check_all_linear(job, model, start)
        return LoraConfig(
            task_type="CAUSAL_LM",
            lora_dropout=lora.lora_dropout,
            **start_adapter.structure(start),
        )
    targets: str | list[str] = "all-linear"
    if lora.target_modules != "all-linear":
        targets = [name.strip() for name in lora.target_modules]
        names = _linear_layers(model)
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                raise UserError(
                    "target_unknown",
                    "This model has no linear layer named {target}.",
                    "Write all-linear, or names such as q_proj.",
                    field="lora.target_modules",
                    target=target,
                )
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
    )


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


def _check_all_linear(job: TrainingJob, model: Any, start: Adapter) -> None:
    """The job may leave the layers at all-linear only where the adapter has all of them."""
    if job.lora.target_modules != "all-linear":
        return
    adapted = {
        name.removeprefix(start_adapter.PREFIX).removesuffix(".lora_A.weight")
        for name in tensor_shapes(start.folder / WEIGHTS)
    }
    if _linear_layers(model) - adapted:
        theirs = sorted({name.rpartition(".")[2] for name in adapted if ".lora_" not in name})
        raise start_adapter.differs("target_modules", "all-linear", ", ".join(theirs))


def _linear_layers(model: Any) -> set[str]:
    """The names of the layers that all-linear stands for."""
    head = model.get_output_embeddings()  # TRL refuses to adapt it
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    }


def _cannot_start(start: Adapter, reason: str) -> UserError:
    return UserError(
        "adapter_unusable",
        "The adapter in {folder} cannot be trained on: {reason}.",
        "Take it from its source again, or choose another one.",
        field="model.adapter",
        folder=start.folder,
        reason=reason,
    )
