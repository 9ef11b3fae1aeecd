"""What TRL's trainers are told that follows from a job alone. Light: the training and the script
that repeats it (`script/`) both go by it.
"""

from __future__ import annotations

from typing import Any

from training_backend.job import TrainingJob

_SCHEDULER_SETTINGS = {"cosine_with_min_lr": {"min_lr_rate": 0.1}}


def trainer_settings(job: TrainingJob, evaluates: bool, known: set[str]) -> dict[str, Any]:
    """Arguments of `SFTConfig`, or of `DPOConfig` where the job prefers answers.

    Args:
        evaluates: whether there are held-out rows.
        known: the arguments that the installed `SFTConfig` has.
    """
    training = job.training
    # transformers 5.23 renamed gradient to activation checkpointing; we run with both.
    checkpointing = (
        "activation_checkpointing"
        if "activation_checkpointing" in known
        else "gradient_checkpointing"
    )
    every = training.activation_checkpointing_every_n_layers
    warmup = training.warmup_steps
    own: dict[str, Any] = {
        "packing": training.packing,
        "eval_packing": False,
        "padding_free": training.padding_free,
    }
    if training.objective == "dpo":
        own = {"beta": training.beta}
    return {
        **own,
        "num_train_epochs": training.num_train_epochs,
        "max_steps": training.max_steps if training.max_steps > 0 else -1,
        "learning_rate": training.learning_rate,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "per_device_eval_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        # Rows are cut already; TRL, which does not see that, refuses to lay them end to end.
        "max_length": None if training.padding_free else training.max_length,
        "lr_scheduler_type": training.lr_scheduler_type,
        "lr_scheduler_kwargs": _SCHEDULER_SETTINGS.get(training.lr_scheduler_type, {}),
        "warmup_steps": warmup if warmup < 1 else int(warmup),
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "neftune_noise_alpha": training.neftune_noise_alpha or None,
        "train_sampling_strategy": training.train_sampling_strategy,
        "torch_compile": training.torch_compile,
        checkpointing: training.activation_checkpointing,
        f"{checkpointing}_kwargs": {"every_n_layers": every} if every > 1 else None,
        "seed": training.seed,
        "logging_steps": training.logging_steps,
        "logging_nan_inf_filter": False,  # otherwise a loss of NaN is logged as 0.0
        "save_strategy": "steps",
        "save_steps": training.save_steps,
        "eval_strategy": "steps" if evaluates else "no",
        "eval_steps": job.evaluation.eval_steps if evaluates else None,
        "report_to": "none",
    }
