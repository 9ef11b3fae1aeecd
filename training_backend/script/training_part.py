"""The part of a script that trains: TRL's trainer, with what ours do otherwise."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from training_backend.job import TrainingJob
from training_backend.script.classes import held_out_class, trainer_class, trl_name
from training_backend.script.python import Source, call
from training_backend.script.result_part import begun_with
from training_backend.training.trainer_settings import trainer_settings

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
_COMMENTS = {"logging_nan_inf_filter": "otherwise a loss of NaN is logged as 0.0"}


def training_part(job: TrainingJob, base: Base, evaluates: bool) -> list[str]:
    """Blocks of source, some of them empty; needs TRL installed."""
    return [
        trainer_class(job, evaluates),
        held_out_class(job) if evaluates else "",
        "held_out = HeldOut()" if evaluates else "",
        _trainer(job, evaluates),
        *_before_step_one(job, base),
        "trainer.train()",
    ]


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
    if evaluates:
        arguments["callbacks"] = Source("[held_out]")
    kind = "Trainer" if trainer_class(job, evaluates) else f"{trl_name(job)}Trainer"
    return call(f"trainer = {kind}", arguments)


def _config(job: TrainingJob, evaluates: bool) -> str:
    import trl

    kind = f"{trl_name(job)}Config"
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
    return [*parts, begun_with(job)]
