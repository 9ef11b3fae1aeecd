"""Between transformers' Trainer and our events."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from training_backend.job import TrainingJob
from training_backend.lifecycle import checkpoints
from training_backend.lifecycle.disk_room import DiskRoom
from training_backend.models.adapters import name_base
from training_backend.paths import drive_of
from training_backend.protocol import CheckpointSaved, EvaluationLogged, MetricsLogged
from training_backend.summaries import losses
from training_backend.watching import slow_causes
from training_backend.worker import Reporter

SMALL_FILES_BYTES = 6 * 10**6  # the tokenizer above all


class TrainerReports(TrainerCallback):  # type: ignore[misc]
    """Turns what the trainer says into events, and what it saves into finished checkpoints.

    Args:
        why_not_finite: is given the step in which the loss is no number; what to raise then.
    """

    def __init__(
        self,
        job: TrainingJob,
        reporter: Reporter,
        staging: Path,
        why_not_finite: Callable[[int], Exception],
    ) -> None:
        self._job = job
        self._why_not_finite = why_not_finite
        self._reporter = reporter
        self._staging = staging
        self.stopped = False  # on request; see `Steering`
        self._tokens = 0.0
        self._logged_at = self._began_at = time.monotonic()
        self._first_step = 0
        self.room = DiskRoom(reporter, self.leave_out)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_step = state.global_step
        self._logged_at = self._began_at = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.room.check_folder()
        if self._reporter.is_short_of_room():
            self.room.wait_for(0)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._reporter.sign_of_life()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._reporter.sign_of_life()

    def leave_out(self, seconds: float, *, comes_again: bool = False) -> None:
        """So long the training stood still; that says nothing about its speed.

        Args:
            comes_again: as at every checkpoint, so that it counts for the time that is left.
        """
        self._logged_at += seconds
        if not comes_again:
            self._began_at += seconds

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            raise self._why_not_finite(state.global_step)
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
                reward_margin=_finite(logs.get("rewards/margins")),
                reward_accuracy=_finite(logs.get("rewards/accuracies")),
                seconds_left=(now - self._began_at) / done * (state.max_steps - state.global_step)
                if done
                else None,
            )
        )
        self._tokens, self._logged_at = tokens, now

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        if not metrics or "eval_loss" not in metrics:
            return
        loss = _finite(metrics["eval_loss"])
        if loss is None:
            self._reporter.warn(
                "evaluation_not_finite",
                "The loss on the held-out rows is not a number at step {step}.",
                step=state.global_step,
            )
            return
        epoch = float(state.epoch or 0.0)
        self._reporter.emit(
            EvaluationLogged(
                step=state.global_step,
                epoch=epoch,
                loss=loss,
                reward_margin=_finite(metrics.get("eval_rewards/margins")),
                reward_accuracy=_finite(metrics.get("eval_rewards/accuracies")),
            )
        )
        for saved in checkpoints.finished(self._reporter.run.checkpoints)[-1:]:
            if saved.step == state.global_step:  # memory ran out in its test, which comes now
                self.room.keep(0, functools.partial(checkpoints.note_test, saved, loss))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The loss is looked at every `logging_steps`; what is saved in between is looked at here.
        if not all(p.isfinite().all() for p in kwargs["model"].parameters() if p.requires_grad):
            raise self._why_not_finite(state.global_step)
        staged = self._staging / f"{checkpoints.PREFIX}{state.global_step}"
        # A pickle of ours that nothing needs, and the card that PEFT writes with local paths.
        for useless in ("training_args.bin", "README.md"):
            (staged / useless).unlink(missing_ok=True)
        if self._job.training.method == "lora":
            name_base(staged)
        step, held_out_loss = (losses.of_tests(state.log_history) or [(0, math.inf)])[-1]
        tested = _finite(held_out_loss) if step == state.global_step else None
        saved = self.room.keep(
            0,  # it is written already, but for a few hashes
            lambda: checkpoints.commit(staged, self._reporter.run.checkpoints, tested),
        )
        checkpoints.prune(
            self._reporter.run.checkpoints,
            self._job.training.save_total_limit,
            keep_best=self._job.evaluation.keep_best,
        )
        size = sum(path.stat().st_size for path in saved.folder.rglob("*") if path.is_file())
        self._reporter.emit(CheckpointSaved(step=saved.step, path=str(saved.folder), bytes=size))
        took, self.room.write_seconds = self.room.write_seconds, 0.0
        slow = slow_causes.slow_save(took, size, drive_of(saved.folder))
        if slow is not None:
            self._reporter.warn(
                slow.code, slow.template, since=saved.step, until=saved.step, **slow.params
            )


def save_bytes(model: Any, *, with_optimizer: bool) -> int:
    """About what is written of a model in training: its 32-bit weights, twice as much of the
    optimizer in a checkpoint, and the rest."""
    trained = int(sum(p.numel() for p in model.parameters() if p.requires_grad))
    return (3 if with_optimizer else 1) * 4 * trained + SMALL_FILES_BYTES


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
