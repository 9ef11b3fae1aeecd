"""The text of `train.py`: what `training_backend.train` does for a job, by TRL and PEFT alone.

Nothing that a person typed stands in it but as a quoted literal. What a job does not use is not
there: no branch of the script is dead.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from training_backend import start_adapter
from training_backend.job import TrainingJob
from training_backend.script.python import Source, call, literal
from training_backend.trainer_settings import trainer_settings

if TYPE_CHECKING:
    from training_backend.script.base import Base

# Arguments that are worth reading also where they are what the trainer takes by itself.
_ALWAYS_SAID = {
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "activation_checkpointing",
    "gradient_checkpointing",
    "seed",
}
_COMMENTS = {
    "logging_nan_inf_filter": "otherwise a loss of NaN is logged as 0.0",
    "use_safetensors": "never a pickle",
    "trust_remote_code": "no program code from the model's folder",
}
_PLAIN_IMPORTS = {"bnb": "bitsandbytes as bnb", "torch": "torch"}
_IMPORTS = {
    "AutoModelForCausalLM": "transformers",
    "AutoTokenizer": "transformers",
    "BitsAndBytesConfig": "transformers",
    "DPOConfig": "trl",
    "DPOTrainer": "trl",
    "Dataset": "datasets",
    "LoraConfig": "peft",
    "SFTConfig": "trl",
    "SFTTrainer": "trl",
    "create_loraplus_optimizer": "peft.optimizers",
    "get_peft_model_state_dict": "peft",
    "load_file": "safetensors.torch",
    "save_file": "safetensors.torch",
    "set_peft_model_state_dict": "peft",
}


def script_text(job: TrainingJob, base: Base, *, evaluates: bool) -> str:
    """The whole script; needs TRL installed.

    Args:
        evaluates: whether there are held-out rows.
    """
    parts = [
        _setting(base),
        _heading("the data, as tokens"),
        _data(evaluates),
        _heading("the model"),
        *_model(job, base),
        _heading("the training"),
        _trainer_class(job, evaluates),
        _trainer(job, evaluates),
        *_before_step_one(job, base),
        "trainer.train()",
        _heading("the result"),
        *_result(job, base),
    ]
    body = "\n\n".join(part for part in parts if part)
    body = re.sub(r"\n*\nclass ", "\n\n\nclass ", body)  # two empty lines, as is usual
    return f"{_head(job)}\n\n{_imports(body)}\n\n{body}\n"


# --- the parts ---------------------------------------------------------------------------


def _head(job: TrainingJob) -> str:
    learns = {"sft": "SFT", "dpo": "DPO"}[job.training.objective]
    if job.training.method == "full":
        method = "by training every weight"
    else:
        kind = "DoRA" if job.lora.use_dora else "LoRA"
        method = f"with {'Q' if job.quantization.load_in_4bit else ''}{kind}"
    columns = (
        "Of each pair, `prompt_ids` is what both answers follow."
        if job.training.objective == "dpo"
        else "A label of -100 marks a token that is read, not learned."
    )
    return (
        f'"""Fine-tune a language model {method} ({learns}).\n\n'
        "Install the packages in requirements.txt, then run: python train.py\n\n"
        f'The rows in data/ are tokenised already. {columns}\n"""'
    )


def _imports(body: str) -> str:
    modules: dict[str, list[str]] = {}
    for name, module in sorted(_IMPORTS.items()):
        if re.search(rf"\b{name}\b", body):
            modules.setdefault(module, []).append(name)
    plain = [f"import {what}" for name, what in _PLAIN_IMPORTS.items() if f"{name}." in body]
    named = [f"from {module} import {', '.join(modules[module])}" for module in sorted(modules)]
    standard = ["import json"] * ("json." in body) + ["import os", "from pathlib import Path"]
    return "\n".join(
        [
            *standard,
            "",
            "# Trainers take one card; this is said before PyTorch looks for cards.",
            'os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")',
            'os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")',
            "",
            *plain,
            *named,
        ]
    )


def _setting(base: Base) -> str:
    lines = ["HERE = Path(__file__).resolve().parent", f"MODEL = {literal(base.name)}"]
    if base.is_folder:
        lines[-1] += "  # a folder, or owner/name on the Hub"
    if base.revision is not None:
        lines.append(f"REVISION = {literal(base.revision)}")
    lines += [
        "",
        "ON_GPU = torch.cuda.is_available()",
        "# bfloat16 everywhere but on older cards, which only emulate it.",
        "EMULATED = ON_GPU and not torch.cuda.is_bf16_supported(including_emulation=False)",
        "DTYPE = torch.float16 if EMULATED else torch.bfloat16",
    ]
    return "\n".join(lines)


def _heading(title: str) -> str:
    return f"# --- {title} ".ljust(90, "-")


def _data(evaluates: bool) -> str:
    read = 'Dataset.from_parquet(str(HERE / "data" / "{name}.parquet"))'
    lines = [f"train_rows = {read.format(name='train')}"]
    if evaluates:
        lines.append(f"held_out_rows = {read.format(name='held_out')}")
    lines.append(
        'tokenizer = AutoTokenizer.from_pretrained(HERE / "tokenizer", trust_remote_code=False)'
    )
    return "\n".join(lines)


def _model(job: TrainingJob, base: Base) -> list[str]:
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
    """Arguments of `LoraConfig`, as `training_backend.lora.lora_config` gives them."""
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
    return Source(f"list(range({first}, {last + 1}))") if in_order else numbers


def _trainer_class(job: TrainingJob, evaluates: bool) -> str:
    """A class of its own where TRL's does not do all of it; "" where it does."""
    parts = []
    if job.training.objective == "dpo":
        parts.append(
            "    def _prepare_dataset(self, dataset, *arguments):\n"
            "        return dataset  # tokenised already"
        )
    if _has_two_rates(job):
        parts.append(
            "    def create_optimizer(self, model=None):\n"
            "        # LoRA+ (arXiv:2402.12354): the second matrix of each pair learns faster.\n"
            "        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)\n"
            "        self.optimizer = create_loraplus_optimizer(\n"
            "            self.model,\n"
            "            kind,\n"
            f"            loraplus_lr_ratio={job.lora.loraplus_lr_ratio},\n"
            "            loraplus_weight_decay=self.args.weight_decay,\n"
            "            **settings,\n"
            "        )\n"
            "        return self.optimizer"
        )
    if evaluates:
        parts.append(
            "    def evaluate(self, *arguments, **options):\n"
            "        # Tests leave the random numbers of the training alone.\n"
            "        with torch.random.fork_rng():\n"
            "            return super().evaluate(*arguments, **options)"
        )
    if not parts:
        return ""
    return "\n\n".join([f"class Trainer({_trl(job)}Trainer):", *parts]).replace(":\n\n", ":\n", 1)


def _trainer(job: TrainingJob, evaluates: bool) -> str:
    arguments: dict[str, Any] = {
        "model": Source("model"),
        "args": Source(_config(job, evaluates)),
        "train_dataset": Source("train_rows"),
    }
    if evaluates:
        arguments["eval_dataset"] = Source("held_out_rows")
    arguments["processing_class"] = Source("tokenizer")
    if job.training.method == "lora":
        arguments["peft_config"] = Source("adapter")
    own_class = _trainer_class(job, evaluates)
    kind = "Trainer" if own_class else f"{_trl(job)}Trainer"
    text = call(f"trainer = {kind}", arguments)
    return f"\n{text}" if own_class else text


def _config(job: TrainingJob, evaluates: bool) -> str:
    import trl

    kind = f"{_trl(job)}Config"
    usual = {field.name: field.default for field in dataclasses.fields(getattr(trl, kind))}
    settings = {
        name: value
        for name, value in trainer_settings(job, evaluates, set(usual)).items()
        if name in _ALWAYS_SAID or (value != usual[name] and value not in (None, {}))
    }
    if job.training.max_steps > 0:
        settings.pop("num_train_epochs", None)
    if not job.training.packing:
        settings.pop("eval_packing", None)
    if not evaluates:
        settings.pop("per_device_eval_batch_size", None)
    optimizer: Any = job.training.optim
    if optimizer == "auto":
        optimizer = Source('"paged_adamw_8bit" if ON_GPU else "adamw_torch"')
    arguments = {
        "output_dir": Source('str(HERE / "checkpoints")'),
        **settings,
        "save_total_limit": job.training.save_total_limit,
        "optim": optimizer,
        "bf16": Source("DTYPE is torch.bfloat16"),
        "fp16": Source("DTYPE is torch.float16"),
        "use_cpu": Source("not ON_GPU"),
        "dataloader_pin_memory": Source("ON_GPU"),
    }
    return call(kind, arguments, comments=_COMMENTS, indent=4)


def _before_step_one(job: TrainingJob, base: Base) -> list[str]:
    parts = []
    # Adapters of a 16-bit model are in 32 bits by themselves.
    in_16_bit = job.quantization.load_in_4bit or job.lora.modules_to_save != "none"
    if job.training.method == "lora" and in_16_bit:
        parts.append(
            "# What is trained is held in 32 bits: in 16, small steps would be lost.\n"
            "for parameter in trainer.model.parameters():\n"
            "    if parameter.requires_grad:\n"
            "        parameter.data = parameter.data.float()"
        )
    if base.start is not None:
        parts.append(
            "# Go on from this adapter.\n"
            'start = load_file(HERE / "start" / "adapter_model.safetensors")\n'
            "start = {name: value.float() for name, value in start.items()}\n"
            "set_peft_model_state_dict(trainer.model, start)"
        )
    if _changes_base(job):
        parts.append(
            "# The adapter begins with numbers that were taken out of the base model's weights.\n"
            "first = {\n"
            "    name: value.detach().float().cpu().clone()\n"
            "    for name, value in get_peft_model_state_dict(trainer.model).items()\n"
            "}"
        )
    return parts


def _result(job: TrainingJob, base: Base) -> list[str]:
    target = "model" if job.training.method == "full" else "adapter"
    lines = [
        "trainer.save_state()  # every loss, in checkpoints/trainer_state.json",
        f'target = HERE / "{target}"',
        "trainer.model.save_pretrained(target)",
        "tokenizer.save_pretrained(target)",
    ]
    if job.training.method == "full":
        lines.insert(2, f"trainer.model.to(torch.{base.dtype})  # as the model's own files are")
    parts = ["\n".join(lines)]
    if _changes_base(job):
        parts.append(_AS_PLAIN.format(grows="2**0.5" if job.lora.use_rslora else "2"))
    return parts


_AS_PLAIN = """\
# Make it an adapter of the unchanged model: W + s (B A - B0 A0), of twice the rank
# (PiSSA, arXiv:2404.02948, appendix C).
both = load_file(target / "adapter_model.safetensors")
for name, value in both.items():
    before = first[name].to(value.dtype)
    if ".lora_A." in name:
        both[name] = torch.cat((value, before), dim=0)
    elif ".lora_B." in name:
        both[name] = torch.cat((value, -before), dim=1)
save_file(both, target / "adapter_model.safetensors", metadata={{"format": "pt"}})
config = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
config["lora_alpha"] *= {grows}
config["r"] *= 2
config["init_lora_weights"] = True
(target / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")"""


def _trl(job: TrainingJob) -> str:
    return {"sft": "SFT", "dpo": "DPO"}[job.training.objective]


def _has_two_rates(job: TrainingJob) -> bool:
    return job.training.method == "lora" and job.lora.loraplus_lr_ratio != 1.0


def _changes_base(job: TrainingJob) -> bool:
    return job.training.method == "lora" and job.lora.changes_base
