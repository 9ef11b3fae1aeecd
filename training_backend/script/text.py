"""The text of `train.py`: what `training_backend.train` does for a job, by TRL and PEFT alone.

Nothing that a person typed stands in it but as a quoted literal. What a job does not use is not
there: no branch of the script is dead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from training_backend.job import TrainingJob
from training_backend.script.model_part import model_part
from training_backend.script.python import literal
from training_backend.script.result_part import result_part
from training_backend.script.training_part import training_part

if TYPE_CHECKING:
    from training_backend.script.base import Base

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
    "TrainerCallback": "transformers",
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
    body = _joined(
        [
            _setting(base),
            _heading("the data, as tokens"),
            _data(evaluates),
            _heading("the model"),
            *model_part(job, base),
            _heading("the training"),
            *training_part(job, base, evaluates),
            _heading("the result"),
            *result_part(job, base, evaluates),
        ]
    )
    return f"{_head(job)}\n\n{_imports(body)}\n\n{body}\n"


def _joined(blocks: list[str]) -> str:
    """With an empty line between blocks, and two around a class."""
    text = ""
    after_class = False
    for block in filter(None, blocks):
        is_class = block.startswith("class ")
        if text:
            text += "\n\n\n" if is_class or after_class else "\n\n"
        text += block
        after_class = is_class
    return text


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
