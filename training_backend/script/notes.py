"""What lies beside the script: its packages, and how to run it."""

from __future__ import annotations

import platform
import re
import time
from importlib import metadata
from typing import TYPE_CHECKING

from training_backend.job import TrainingJob

if TYPE_CHECKING:
    from training_backend.script.base import Base

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")
_OF_4_BIT = re.compile(r"\bbnb\.|8bit|paged_")

# Settings that the script carries over, and those that change nothing of what is learned.
_CARRIED = {
    "quantization": {
        "load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant",
        "bnb_4bit_compute_dtype",
    },
    "lora": {
        "r", "lora_alpha", "lora_dropout", "target_modules", "layers_to_transform",
        "modules_to_save", "use_rslora", "use_dora", "init_lora_weights", "loraplus_lr_ratio",
    },
    "training": {
        "method", "objective", "beta", "num_train_epochs", "max_steps", "learning_rate",
        "per_device_train_batch_size", "gradient_accumulation_steps", "max_length", "packing",
        "padding_free", "train_sampling_strategy", "activation_checkpointing",
        "activation_checkpointing_every_n_layers", "lr_scheduler_type", "warmup_steps", "optim",
        "weight_decay", "max_grad_norm", "neftune_noise_alpha", "torch_compile", "save_steps",
        "save_total_limit", "logging_steps", "seed", "fast_paths", "tensorboard",
        "halve_batch_when_out_of_memory",
    },
    "evaluation": {
        "held_out_fraction", "eval_steps", "prompts", "max_new_tokens", "task_metric_rows",
        "keep_best", "early_stopping_patience",
    },
}  # fmt: skip


def requirements(script: str) -> str:
    """The packages of a script in the versions that are installed here."""
    packages = [*_PACKAGES, *["bitsandbytes"] * bool(_OF_4_BIT.search(script))]
    versions = {name: metadata.version(name).partition("+")[0] for name in packages}
    return "\n".join(
        [
            f"# What the script was written with, on Python {platform.python_version()}.",
            "# On Linux this torch brings CUDA. On Windows it is for the processor only: install",
            "# the build for your card first, as https://pytorch.org/get-started/locally/ says.",
            *(f"{name}=={version}" for name, version in versions.items()),
            "",
        ]
    )


def readme(job: TrainingJob, base: Base, *, evaluates: bool) -> str:
    """How to run the script, what it leaves, and how near it comes."""
    target = "model" if job.training.method == "full" else "adapter"
    parts = [
        "# A training as a script",
        f"Written on {time.strftime('%Y-%m-%d')}. The script repeats a training with TRL alone, "
        "from its first step to its last; whatever stopped or prolonged it on its way is not "
        "repeated.",
        "    python -m venv .venv\n"
        "    .venv/bin/pip install -r requirements.txt    (Windows: .venv\\Scripts\\pip)\n"
        "    .venv/bin/python train.py",
        f"It leaves the result in `{target}/` and every loss in `checkpoints/trainer_state.json`.",
        _data_note(evaluates),
        *_model_note(base),
        _exactness(job),
    ]
    left_out = settings_left_out(job)
    if left_out:
        parts.append("Settings that the script does not carry over: " + ", ".join(left_out) + ".")
    return "\n\n".join(parts) + "\n"


def settings_left_out(job: TrainingJob) -> list[str]:
    """Settings of a job, by their names in a job file, that a script knows nothing of."""
    found = []
    for section, carried in _CARRIED.items():
        settings = getattr(job, section)
        for name, info in type(settings).model_fields.items():
            if name not in carried and getattr(settings, name) != info.default:
                found.append(f"{section}.{name}")
    return found


def _data_note(evaluates: bool) -> str:
    held_out = ", those to test on in `held_out.parquet`" if evaluates else ""
    return (
        f"The rows lie in `data/train.parquet`{held_out}, as tokens. Whoever has the folder can "
        "turn them back into text: pass it on only where the data may go."
    )


def _model_note(base: Base) -> list[str]:
    if not base.is_folder:
        return []
    return [
        "`MODEL` at the top of the script is a folder of the computer that it was written on. "
        "Elsewhere, put the model's folder or its name on the Hub there."
    ]


def _exactness(job: TrainingJob) -> str:
    same = (
        "On a processor, with the same packages and number of threads (`OMP_NUM_THREADS`), its "
        "losses equal the training's to the last digit"
    )
    if job.training.fast_paths:
        return (
            f"{same} where the training ran without fast paths; with them, as here, they agree "
            "to rounding. On a card they agree to rounding."
        )
    return f"{same}; on a card they agree to rounding."
