"""The base model of a run: found, loaded whole, quantised, and which of its layers to adapt."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import bitsandbytes as bnb
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
)
from transformers.integrations import peft as peft_integration
from transformers.models.auto import auto_factory

from training_backend.errors import UserError
from training_backend.job import QuantizationSection, TrainingJob
from training_backend.models import attention
from training_backend.models.model_folder import read_model_config
from training_backend.models.model_kinds import without_code
from training_backend.models.tokenizer import cannot_load
from training_backend.worker import Reporter

# On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first forward in eval
# mode; gradients after it are wrong while the loss looks normal. Keep it from doing so.
bnb.nn.modules.has_avx512bf16 = lambda: False

_GENERATION_KEYS = (
    "bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "temperature", "top_k", "top_p",
    "min_p", "typical_p", "repetition_penalty",
)  # fmt: skip


def load_model(job: TrainingJob, folder: Path, reporter: Reporter) -> Any:
    asked = job.quantization
    reporter.phase(
        "quantising" if asked.load_in_4bit else "loading",
        detail="the base model, to 4 bits" if asked.load_in_4bit else "the base model",
    )
    # What is trained is held in 32 bits: small steps would be lost in 16.
    dtype = torch.float32 if job.training.method == "full" else precision()
    return load(folder, dtype, asked, on_card=torch.cuda.is_available())


def load(
    folder: Path, dtype: torch.dtype, quantization: QuantizationSection | None, *, on_card: bool
) -> Any:
    """A model's folder as it is, or in 4 bits where `quantization` says so.

    Raises `UserError` when it cannot be loaded or weights are missing in it.
    """
    to_four_bits = None
    if quantization is not None and quantization.load_in_4bit:
        compute_dtype = getattr(torch, quantization.bnb_4bit_compute_dtype)
        if compute_dtype is torch.bfloat16:
            compute_dtype = precision()  # older cards only emulate bfloat16
        to_four_bits = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=quantization.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=compute_dtype,
        )
    return _loaded(folder, lambda: _config(folder), dtype, to_four_bits, on_card)


def load_quantised(folder: Path, dtype: torch.dtype, *, on_card: bool) -> Any:
    """A folder whose weights bitsandbytes quantised before. Raises `UserError` as `load`."""

    def config() -> Any:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        how = settings.pop("quantization_config", None)
        if not isinstance(how, dict) or how.get("quant_method") != "bitsandbytes":
            raise ValueError("its config.json does not say that bitsandbytes quantised it")
        known = CONFIG_MAPPING[settings["model_type"]].from_dict(without_code(settings))
        known.quantization_config = how
        return known

    return _loaded(folder, config, dtype, None, on_card)


def _loaded(
    folder: Path,
    read_config: Callable[[], Any],
    dtype: torch.dtype,
    to_four_bits: BitsAndBytesConfig | None,
    on_card: bool,
) -> Any:
    try:
        config = read_config()
        with _without_adapters():
            model, report = AutoModelForCausalLM.from_pretrained(
                str(folder),
                config=config,
                quantization_config=to_four_bits,
                dtype=dtype,
                device_map={"": 0 if on_card else "cpu"},
                attn_implementation=attention.implementation(config),
                use_safetensors=True,  # never a pickle
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        model.generation_config = _plain_generation(model.generation_config)
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


@contextlib.contextmanager
def _without_adapters() -> Iterator[None]:
    """What is loaded meanwhile is the model alone.

    transformers puts an adapter that lies in a model's folder on it without a word; a run would
    then train, and a merge add to, two different models.
    """
    with (
        mock.patch.object(auto_factory, "is_peft_available", return_value=False),
        mock.patch.object(peft_integration, "is_peft_available", return_value=False),
    ):
        yield


def _plain_generation(given: GenerationConfig) -> GenerationConfig:
    """How the model's makers have it pick words, and nothing else of its generation_config.json:
    that may ask for thousands of answers at once, or for ways that are program code on the Hub."""
    return GenerationConfig(**{key: getattr(given, key, None) for key in _GENERATION_KEYS})


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
