"""Training: load, quantise, tokenise, train with TRL's SFTTrainer, save.

Read top to bottom it is one run. The traps of the stack that it steers around are named
where they are met; tests pin each of them.
"""

from __future__ import annotations

import inspect
import math
import shutil
import time
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from training_backend import checkpoints, sampling
from training_backend.adapters import CONFIG, WEIGHTS
from training_backend.catalog import DEMO_MODEL_IDS, resolve_model
from training_backend.checkpoints import Checkpoint
from training_backend.data.training_rows import TrainingRows, training_rows
from training_backend.demo_model import DemoProgress, prepare_demo_model
from training_backend.errors import UserError
from training_backend.files import fsync_tree, replace
from training_backend.job import TrainingJob
from training_backend.protocol import (
    CheckpointSaved,
    EvaluationLogged,
    MetricsLogged,
    RunCompleted,
    RunStopped,
    SampleGenerated,
)
from training_backend.tokenizer import load_tokenizer
from training_backend.worker import Reporter

# On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first forward in eval
# mode; gradients after it are wrong while the loss looks normal. Keep it from doing so.
bnb.nn.modules.has_avx512bf16 = lambda: False


def run(
    job: TrainingJob, reporter: Reporter, resume_from: Checkpoint | None
) -> RunCompleted | RunStopped:
    """Do the job. Raises `UserError`, or `StopRequested` when asked to stop before step one."""
    try:
        return _run(job, reporter, resume_from)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            "out_of_vram",
            "The card ran out of memory.",
            "Choose a smaller batch size or a shorter longest row, and turn on 4-bit loading and "
            "activation checkpointing.",
            field="training.per_device_train_batch_size",
        ) from error


def _run(
    job: TrainingJob, reporter: Reporter, resume_from: Checkpoint | None
) -> RunCompleted | RunStopped:
    folder = reporter.run.folder
    staging = folder / "staging"
    shutil.rmtree(staging, ignore_errors=True)

    reporter.phase("loading", detail="the tokenizer and the data")
    model_id = str(_base_model(job, reporter))
    tokenizer = load_tokenizer(job, model_id)
    model = _model(job, model_id, reporter)
    data = _dataset(job, tokenizer, reporter)

    trainer = _Trainer(
        model=model,
        args=_arguments(job, staging, data.held_out is not None),
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
        peft_config=_lora(job, model),
    )
    # TRL holds 4-bit adapters in bf16, yet a resumed one comes back in fp32: a resume would
    # not be exact. Train them in fp32 from the start.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    reports = _Reports(job, reporter, staging)
    trainer.add_callback(reports)

    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    if resume_from is None:
        _answer_prompts(job, trainer, tokenizer, 0, reporter)
    reporter.phase(
        "training",
        total_steps=_total_steps(trainer),
        trainable_parameters=trainable,
        total_parameters=trainable + _base_parameters(trainer.model),
        rows=len(data.train),
        trained_token_share=data.trained_share,
    )
    trainer.train(resume_from_checkpoint=str(resume_from.folder) if resume_from else None)

    step = trainer.state.global_step
    if reports.stopped:
        newest = checkpoints.finished(reporter.run.checkpoints)[-1]
        return RunStopped(step=step, checkpoint=str(newest.folder))
    _answer_prompts(job, trainer, tokenizer, step, reporter)
    reporter.phase("saving", detail="the adapter")
    _save_adapter(trainer, tokenizer, staging / "adapter", reporter.run.adapter)
    shutil.rmtree(staging, ignore_errors=True)
    return RunCompleted(folder=str(reporter.run.adapter), step=step, loss=reports.last_loss)


# --- loading ---------------------------------------------------------------------------


def _base_model(job: TrainingJob, reporter: Reporter) -> str | Path:
    if job.model.id not in DEMO_MODEL_IDS:
        return resolve_model(job.model.id)

    def report(progress: DemoProgress) -> None:
        share = progress.done_bytes / progress.total_bytes if progress.total_bytes else None
        reporter.phase("loading", fraction=share, detail=f"the demo model ({progress.phase})")

    return prepare_demo_model(report)


def _model(job: TrainingJob, model_id: str, reporter: Reporter) -> Any:
    asked = job.quantization
    compute_dtype = getattr(torch, asked.bnb_4bit_compute_dtype)
    if compute_dtype is torch.bfloat16:
        compute_dtype = _dtype()  # older cards only emulate bfloat16
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
        config = AutoConfig.from_pretrained(
            model_id, revision=job.model.revision, trust_remote_code=False
        )
        return AutoModelForCausalLM.from_pretrained(
            model_id,
            config=config,
            revision=job.model.revision,
            quantization_config=quantization if asked.load_in_4bit else None,
            dtype=_dtype(),
            device_map={"": 0 if torch.cuda.is_available() else "cpu"},
            attn_implementation="sdpa",  # whatever the config says: it could name remote code
            use_safetensors=True,  # never a pickle
            trust_remote_code=False,
        )
    except (OSError, ValueError) as error:
        raise _cannot_load(model_id, error) from error


def _cannot_load(model_id: str, error: Exception) -> UserError:
    return UserError(
        "model_unloadable",
        "The model {model} cannot be loaded: {reason}",
        "Check the name and the connection, or choose another model.",
        field="model.id",
        model=model_id,
        reason=str(error).strip().splitlines()[0],
    )


def _dtype() -> torch.dtype:
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def _lora(job: TrainingJob, model: Any) -> LoraConfig:
    lora = job.lora
    targets: str | list[str] = "all-linear"
    if lora.target_modules != "all-linear":
        targets = [name.strip() for name in lora.target_modules]
        names = [name for name, _ in model.named_modules()]
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                raise UserError(
                    "target_unknown",
                    "This model has no layer named {target}.",
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


# --- data ------------------------------------------------------------------------------


def _dataset(job: TrainingJob, tokenizer: Any, reporter: Reporter) -> TrainingRows:
    """The rows to train on and the held-out ones, as `input_ids` and `labels`."""
    reporter.phase("tokenising")
    rows = training_rows(
        job,
        tokenizer,
        on_progress=lambda count: reporter.phase("tokenising", detail=f"{count:,} rows"),
        should_stop=reporter.stop_requested,
    )
    for code, template, params in rows.warnings:
        reporter.warn(code, template, **params)
    return rows


# --- training --------------------------------------------------------------------------


def _arguments(job: TrainingJob, staging: Path, evaluates: bool) -> SFTConfig:
    training = job.training
    on_gpu = torch.cuda.is_available()
    optimizer = training.optim
    if optimizer == "auto":
        optimizer = "paged_adamw_8bit" if on_gpu else "adamw_torch"
    known = inspect.signature(SFTConfig).parameters
    # transformers 5.23 renamed gradient to activation checkpointing; we run with both.
    checkpointing = (
        "activation_checkpointing"
        if "activation_checkpointing" in known
        else "gradient_checkpointing"
    )
    warmup = training.warmup_steps
    return SFTConfig(
        output_dir=str(staging),
        num_train_epochs=training.num_train_epochs,
        max_steps=training.max_steps if training.max_steps > 0 else -1,
        learning_rate=training.learning_rate,
        per_device_train_batch_size=training.per_device_train_batch_size,
        per_device_eval_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        max_length=training.max_length,
        packing=training.packing,
        eval_packing=False,
        lr_scheduler_type=training.lr_scheduler_type,
        warmup_steps=warmup if warmup < 1 else int(warmup),
        optim=optimizer,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        bf16=_dtype() is torch.bfloat16,
        fp16=_dtype() is torch.float16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,  # otherwise a loss of NaN is logged as 0.0
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=None,  # finished checkpoints are moved away and pruned by us
        eval_strategy="steps" if evaluates else "no",
        eval_steps=job.evaluation.eval_steps if evaluates else None,
        report_to="none",
        disable_tqdm=True,
        **{checkpointing: training.activation_checkpointing},
    )


class _Trainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose evaluations leave the random numbers of the training alone."""

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with sampling.random_state_kept(self.model.device):
            return super().evaluate(*args, **kwargs)


class _Reports(TrainerCallback):  # type: ignore[misc]
    """Turns what the trainer says into events, and requests into what it understands."""

    def __init__(self, job: TrainingJob, reporter: Reporter, staging: Path) -> None:
        self._job = job
        self._reporter = reporter
        self._staging = staging
        self.stopped = False
        self.last_loss: float | None = None
        self._tokens = 0.0
        self._logged_at = self._began_at = time.monotonic()
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_step = state.global_step
        self._logged_at = self._began_at = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._reporter.stop_requested() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise UserError(
                "loss_not_finite",
                "The loss is no longer a number at step {step}.",
                "Choose a lower learning rate and start again; checkpoints saved before are sound.",
                field="training.learning_rate",
                step=state.global_step,
            )
        now = time.monotonic()
        tokens = float(logs.get("num_tokens", 0.0))
        done = state.global_step - self._first_step
        self._reporter.emit(
            MetricsLogged(
                step=state.global_step,
                total_steps=state.max_steps,
                epoch=float(state.epoch or 0.0),
                loss=loss,
                learning_rate=logs.get("learning_rate"),
                grad_norm=_finite(logs.get("grad_norm")),
                tokens_per_second=(tokens - self._tokens) / (now - self._logged_at)
                if tokens > self._tokens
                else None,
                seconds_left=(now - self._began_at) / done * (state.max_steps - state.global_step)
                if done
                else None,
            )
        )
        self.last_loss, self._tokens, self._logged_at = loss, tokens, now

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        if metrics and "eval_loss" in metrics:
            self._reporter.emit(
                EvaluationLogged(
                    step=state.global_step,
                    epoch=float(state.epoch or 0.0),
                    loss=float(metrics["eval_loss"]),
                )
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        staged = self._staging / f"{checkpoints.PREFIX}{state.global_step}"
        # A pickle of ours that nothing needs, and the card that PEFT writes with local paths.
        for useless in ("training_args.bin", "README.md"):
            (staged / useless).unlink(missing_ok=True)
        saved = checkpoints.commit(staged, self._reporter.run.checkpoints)
        checkpoints.prune(self._reporter.run.checkpoints, self._job.training.save_total_limit)
        size = sum(path.stat().st_size for path in saved.folder.rglob("*") if path.is_file())
        self._reporter.emit(CheckpointSaved(step=saved.step, path=str(saved.folder), bytes=size))


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _total_steps(trainer: Any) -> int:
    if trainer.args.max_steps > 0:
        return int(trainer.args.max_steps)
    batches = len(trainer.get_train_dataloader())
    per_epoch = math.ceil(batches / trainer.args.gradient_accumulation_steps)
    return math.ceil(per_epoch * trainer.args.num_train_epochs)


def _base_parameters(model: Any) -> int:
    """Parameters of the frozen base; a 4-bit tensor holds two of them in each byte."""
    return sum(
        p.numel() * (2 if type(p).__name__ == "Params4bit" else 1)
        for p in model.parameters()
        if not p.requires_grad
    )


def _answer_prompts(
    job: TrainingJob, trainer: Any, tokenizer: Any, step: int, reporter: Reporter
) -> None:
    for prompt in job.evaluation.prompts:
        reporter.check_stop()
        text = sampling.answer(trainer.model, tokenizer, prompt, job.evaluation.max_new_tokens)
        reporter.emit(SampleGenerated(step=step, prompt=prompt, answer=text))


def _save_adapter(trainer: Any, tokenizer: Any, staged: Path, target: Path) -> None:
    """Write the adapter beside and move it into place whole."""
    trainer.model.save_pretrained(staged, safe_serialization=True)
    tokenizer.save_pretrained(staged)
    (staged / "README.md").unlink(missing_ok=True)
    assert (staged / WEIGHTS).is_file() and (staged / CONFIG).is_file()
    fsync_tree(staged)
    if target.exists():
        shutil.rmtree(target)
    replace(staged, target)
