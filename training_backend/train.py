"""Training: load, quantise, tokenise, train with TRL's SFTTrainer, save.

Read top to bottom it is one run. The traps of the stack that it steers around are named
where they are met; tests pin each of them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from trl import DPOConfig, SFTConfig, SFTTrainer

from training_backend.computer.devices import Device
from training_backend.data.training_rows import TrainingRows, training_rows
from training_backend.errors import StopRequested, UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle import checkpoints, inputs
from training_backend.lifecycle.checkpoints import Checkpoint
from training_backend.models import adapters, base_model, start_adapter
from training_backend.models.adapters import Adapter, read_adapter
from training_backend.models.base_files import base_folder
from training_backend.models.tokenizer import load_tokenizer
from training_backend.protocol import (
    PhaseChanged,
    RunCompleted,
    RunStopped,
)
from training_backend.runs import Run
from training_backend.summaries import losses
from training_backend.training import lora, results, scoring
from training_backend.training.fast_paths import FastPaths
from training_backend.training.held_out import Answers, HeldOut, ended_early, missed_test
from training_backend.training.last_good_step import LastGoodStep
from training_backend.training.preference import PreferenceTrainer
from training_backend.training.steering import Steering
from training_backend.training.trainer_habits import ScheduleOfTheJob, TrainerHabits
from training_backend.training.trainer_reports import TrainerReports, save_bytes
from training_backend.training.trainer_settings import trainer_settings
from training_backend.vram import optimizer_name
from training_backend.watching import gone_bad
from training_backend.watching.run_watch import RunWatch
from training_backend.worker import Reporter


def run(
    job: TrainingJob, reporter: Reporter, resume_from: Checkpoint | None
) -> RunCompleted | RunStopped:
    """Do the job. Raises `UserError`, or `StopRequested` when asked to stop before step one."""
    try:
        return _run(job, reporter, resume_from)
    finally:  # on a full disk this also makes room for the last event
        shutil.rmtree(reporter.run.folder / "staging", ignore_errors=True)


def _run(
    job: TrainingJob, reporter: Reporter, resume_from: Checkpoint | None
) -> RunCompleted | RunStopped:
    staging = reporter.run.folder / "staging"
    shutil.rmtree(staging, ignore_errors=True)

    reporter.phase("loading", detail="the tokenizer and the data")
    base = base_folder(job.model.id, _revision(job, resume_from), reporter)
    start = start_of(job, str(base), resume_from)
    tokenizer = load_tokenizer(base)
    model = base_model.load_model(job, base, reporter)
    data = _dataset(job, tokenizer, reporter)
    found = {
        "base": inputs.of_model(base) if job.training.method == "lora" else "",
        "data": inputs.of_rows(data.train),
        "held_out": inputs.of_rows(data.held_out),
    }
    inputs.check(reporter.run, found, resume_from is not None)

    trainer = make_trainer(job, model, tokenizer, data.train, data.held_out, start, staging)
    trainer.why_not_finite = functools.partial(gone_bad.explain, trainer, job, data)
    reports = TrainerReports(job, reporter, staging, trainer.why_not_finite)
    answers = Answers(job, trainer, tokenizer, reporter, reports)
    last_good = LastGoodStep()
    # Steering is the last one: a pause begins when all else is done.
    for callback in (
        last_good,
        RunWatch(trainer, reporter),
        reports,
        ScheduleOfTheJob(),
        HeldOut(job, reporter),
        answers,
        Steering(job, reporter, reports),
    ):
        trainer.add_callback(callback)
    tidy = functools.partial(shutil.rmtree, staging, ignore_errors=True)
    trainer.save_when_there_is_room = lambda save: reports.room.keep(
        save_bytes(trainer.model, with_optimizer=True), save, tidy
    )
    first = lora.first_weights(job, trainer.model)

    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    total_steps = _total_steps(trainer)
    if resume_from is None:
        answers.answer(0)
    reporter.phase(
        "training",
        total_steps=total_steps,
        trainable_parameters=trainable,
        total_parameters=trainable + _base_parameters(trainer.model),
        rows=len(data.train),
        trained_token_share=data.trained_share,
    )
    if resume_from is not None and _is_done(job, resume_from, total_steps, reporter.extended):
        # Cut off between its last step and its result: the trainer would do a step too many.
        results.restore(trainer, resume_from)
        step, log = resume_from.step, _state(resume_from)["log_history"]
        answers.answer(step)
    else:
        if resume_from and data.held_out is not None:
            log = _state(resume_from)["log_history"]
            trainer.args.eval_on_start = missed_test(job, log, resume_from.step)
        try:
            trainer.train(resume_from_checkpoint=str(resume_from.folder) if resume_from else None)
        except Exception as error:
            last_good.save(trainer, reports, reporter.run, error)
            raise
        step, log = trainer.state.global_step, trainer.state.log_history
    told = [loss for _, loss in losses.of_training(log)]
    _warn_of_rise(told, job, reporter)
    if reports.stopped:
        newest = checkpoints.finished(reporter.run.checkpoints)[-1]
        reason = reporter.run.requests.stop_reason()
        return RunStopped(step=step, checkpoint=str(newest.folder), reason=reason)
    # Done: a request to stop no longer takes the result away.
    target = reporter.run.model if job.training.method == "full" else reporter.run.adapter
    reporter.emit(PhaseChanged(phase="saving", detail=f"the {target.name}"))
    best = _best(reporter.run) if job.evaluation.keep_best and data.held_out is not None else None
    if best is not None and best[0].step != step:
        results.restore(trainer, best[0])

    def save() -> None:
        if job.training.method == "full":
            results.save_model(trainer, tokenizer, base, staging / target.name, target)
        else:
            results.save_adapter(trainer, tokenizer, first, staging / target.name, target)

    needed = save_bytes(trainer.model, with_optimizer=False)
    reports.room.keep(needed, save, tidy, phase="saving")
    kept = best[0].step if best else step
    with contextlib.suppress(StopRequested):
        scoring.score_answers(job, trainer.model, tokenizer, data.questions, first, kept, reporter)
    early = step < total_steps and ended_early(job, log, step)
    return RunCompleted(
        folder=str(target),
        step=step,
        loss=losses.recent(told),
        early_stopped_after=job.evaluation.early_stopping_patience if early else None,
        best_step=best[0].step if best else None,
        best_loss=best[1] if best else None,
    )


def _is_done(job: TrainingJob, checkpoint: Checkpoint, total_steps: int, extended: bool) -> bool:
    """Whether there is no step left to do after this checkpoint.

    An early end holds for as many steps as were asked for then, not for a run that was extended.
    """
    if checkpoint.step >= total_steps:
        return True
    state = _state(checkpoint)
    asked_for = state["max_steps"] == total_steps and not extended
    return asked_for and ended_early(job, state["log_history"], checkpoint.step)


def _best(run: Run) -> tuple[Checkpoint, float] | None:
    """The whole checkpoint with the lowest held-out loss, and that."""
    for checkpoint, loss in checkpoints.best_first(run.checkpoints):
        if checkpoints.is_whole(checkpoint.folder):
            return checkpoint, loss
    return None


def start_of(
    job: TrainingJob, model_id: str, resume_from: Checkpoint | None = None
) -> Adapter | None:
    """The adapter that the job goes on from; of a resumed one its checkpoint tells all."""
    if job.model.adapter is None:
        return None
    if resume_from is not None:
        return adapters.read_adapter(resume_from.folder, None)
    base = Path(model_id)
    start_adapter.check(job, base if base.is_dir() else None)
    return start_adapter.find(job)


def _revision(job: TrainingJob, resume_from: Checkpoint | None) -> str | None:
    """A resumed run goes on with the very version of the base that it began with.

    Where every weight is trained, all of them are in the checkpoint.
    """
    if job.model.revision or resume_from is None or job.training.method == "full":
        return job.model.revision
    return read_adapter(resume_from.folder, None).config.get("revision")


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


def make_trainer(
    job: TrainingJob,
    model: Any,
    tokenizer: Any,
    rows: Any,
    held_out: Any | None,
    start: Adapter | None,
    staging: Path,
) -> Any:
    """The trainer of a job, with its adapter in place; `rows` as `TrainingRows.train`."""
    with_adapter = job.training.method == "lora"
    if job.training.torch_compile:
        _require_compiler()
    in_pairs = job.training.objective == "dpo"
    own: dict[str, Any] = {} if in_pairs else {"fast_paths": job.training.fast_paths}
    trainer = (PreferenceTrainer if in_pairs else _Trainer)(
        **own,
        loraplus_lr_ratio=job.lora.loraplus_lr_ratio if with_adapter else 1.0,
        model=model,
        args=_arguments(job, staging, held_out is not None),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        peft_config=lora.lora_config(job, model, start) if with_adapter else None,
    )
    # TRL holds 4-bit adapters in bf16, yet a resumed one comes back in fp32: a resume would
    # not be exact. Train them in fp32 from the start.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if start is not None:
        lora.start_from(trainer.model, start)
    # It prints what the journal holds; the log's last lines are evidence when a worker dies.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _require_compiler() -> None:
    """Raises `UserError` where torch.compile would fail at the first step."""
    compilers = ("cl",) if sys.platform == "win32" else ("c++", "g++", "clang++")
    missing = "" if any(map(shutil.which, compilers)) else "a C++ compiler"
    if torch.cuda.is_available() and importlib.util.find_spec("triton") is None:
        missing = "Triton"
    if missing:
        raise UserError(
            "no_compiler",
            "The model cannot be compiled here: {missing} is not installed.",
            "Install it, or turn this off.",
            field="training.torch_compile",
            missing=missing,
        )


def _arguments(job: TrainingJob, staging: Path, evaluates: bool) -> SFTConfig | DPOConfig:
    on_gpu = torch.cuda.is_available()
    kind = DPOConfig if job.training.objective == "dpo" else SFTConfig
    return kind(
        **trainer_settings(job, evaluates, set(inspect.signature(SFTConfig).parameters)),
        output_dir=str(staging),
        optim=optimizer_name(job, Device("cuda" if on_gpu else "cpu", name="", total_bytes=0)),
        bf16=base_model.precision() is torch.bfloat16,
        fp16=base_model.precision() is torch.float16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        save_total_limit=None,  # finished checkpoints are moved away and pruned by us
        disable_tqdm=True,
    )


class _Trainer(FastPaths, TrainerHabits, SFTTrainer):  # type: ignore[misc]
    """Learns to give the answers of the data."""


def _state(checkpoint: Checkpoint) -> dict[str, Any]:
    """The trainer's own state, with the log of all attempts."""
    state = json.loads((checkpoint.folder / "trainer_state.json").read_text(encoding="utf-8"))
    return dict(state)


def _warn_of_rise(told: list[float], job: TrainingJob, reporter: Reporter) -> None:
    """A training that made the model worse comes to its end like any other."""
    rise = losses.rise(told)
    if rise is not None:
        reporter.warn(
            "loss_rose",
            "The loss rose from {first} to {last}: the model became worse, not better. Train anew "
            "with a lower learning rate than {rate}, such as {lower}.",
            first=f"{rise[0]:.3g}",
            last=f"{rise[1]:.3g}",
            rate=f"{job.training.learning_rate:g}",
            lower=f"{min(2e-4, job.training.learning_rate / 10):g}",
        )


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
