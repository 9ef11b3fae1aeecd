"""The part of a script that loads the model and describes its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training_backend.job import TrainingJob
from training_backend.models import start_adapter
from training_backend.script.python import Source, call

if TYPE_CHECKING:
    from training_backend.script.base import Base

_COMMENTS = {
    "use_safetensors": "never a pickle",
    "trust_remote_code": "no program code from the model's folder",
}


def model_part(job: TrainingJob, base: Base) -> list[str]:
    """Blocks of source."""
    full, in_4bit = job.training.method == "full", job.quantization.load_in_4bit
    arguments: dict[str, Any] = {
        "revision": Source("REVISION"),
        "dtype": Source("torch.float32" if full else "DTYPE"),
        "device_map": Source('{"": 0 if ON_GPU else "cpu"}'),
        "attn_implementation": base.attention,
        "quantization_config": Source(_quantization(job)),
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if base.revision is None:
        del arguments["revision"]
    if not in_4bit:
        del arguments["quantization_config"]
    comments = dict(_COMMENTS)
    if full:
        comments["dtype"] = "in 16 bits, small steps would be lost"
    parts = []
    if in_4bit:
        parts.append(
            "# On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first forward "
            "outside of\n# training, and all later gradients are wrong. Keep it from doing so.\n"
            "bnb.nn.modules.has_avx512bf16 = lambda: False"
        )
    function = "model = AutoModelForCausalLM.from_pretrained"
    parts.append(call(function, arguments, ["MODEL"], comments))
    if not full:
        parts.append(call("adapter = LoraConfig", _lora(job, base)))
    return parts


def _quantization(job: TrainingJob) -> str:
    asked = job.quantization
    compute = asked.bnb_4bit_compute_dtype
    arguments = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": asked.bnb_4bit_quant_type,
        "bnb_4bit_use_double_quant": asked.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": Source("DTYPE" if compute == "bfloat16" else f"torch.{compute}"),
    }
    return call("BitsAndBytesConfig", arguments, indent=4)


def _lora(job: TrainingJob, base: Base) -> dict[str, Any]:
    """Arguments of `LoraConfig`, as `training_backend.training.lora.lora_config` gives them."""
    lora = job.lora
    first = {"task_type": "CAUSAL_LM"}
    if base.start is not None:
        structure = start_adapter.structure(base.start)
        return {**first, "lora_dropout": lora.lora_dropout, **structure}
    arguments: dict[str, Any] = {
        **first,
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": base.target_modules,
    }
    if lora.layers_to_transform != "all":
        arguments["layers_to_transform"] = _blocks(list(lora.layers_to_transform))
    if lora.modules_to_save != "none":
        arguments["modules_to_save"] = [name.strip() for name in lora.modules_to_save]
    for switch in ("use_rslora", "use_dora"):
        if getattr(lora, switch):
            arguments[switch] = True
    if lora.init_lora_weights != "default":
        arguments["init_lora_weights"] = lora.init_lora_weights
    return arguments


def _blocks(numbers: list[int]) -> Any:
    first, last = numbers[0], numbers[-1]
    in_order = numbers == list(range(first, last + 1))
    begin = f"{first}, " if first else ""
    return Source(f"list(range({begin}{last + 1}))") if in_order else numbers
