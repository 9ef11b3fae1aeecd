"""What all our trainers do otherwise than TRL's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from peft.optimizers import create_loraplus_optimizer
from transformers import TrainerCallback

from training_backend.training import sampling

MOST_OVERFLOWS = 25  # in a row; by then the scale has come down from 2^16 to 2^-8


class TrainerHabits:
    """Goes before a trainer of TRL in a class's bases.

    Evaluations leave the random numbers of the training alone, and a save waits for room on the
    disk where `save_when_there_is_room` is set. `batches` are the micro-batches of the step under
    way, and `learned_tokens` how many tokens its loss is a mean of, where that is so. A step whose
    gradient is not finite ends the training before it changes a weight, where `why_not_finite` is
    set: it is given the step and makes the error to raise.

    Args:
        loraplus_lr_ratio: learning rate of the adapter's B matrices against the others'; 1 is
            one rate for all.
    """

    model: Any
    args: Any
    optimizer: Any
    save_when_there_is_room: Callable[[Callable[[], None]], None] | None = None
    batches: Sequence[dict[str, Any]] = ()
    learned_tokens: Any = None
    why_not_finite: Callable[[int], Exception] | None = None
    accelerator: Any
    state: Any
    _tr_loss: Any = 0.0  # the trainer's own sum since the last report
    _overflows = 0

    def __init__(self, *, loraplus_lr_ratio: float = 1.0, **arguments: Any) -> None:
        self._loraplus_lr_ratio = loraplus_lr_ratio
        super().__init__(**arguments)

    def create_optimizer(self, model: Any = None) -> Any:
        trainer: Any = super()
        if self._loraplus_lr_ratio == 1.0:
            return trainer.create_optimizer(model)
        kind, settings = trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
        # LoRA+ (arXiv:2402.12354).
        self.optimizer = create_loraplus_optimizer(
            self.model,
            kind,
            loraplus_lr_ratio=self._loraplus_lr_ratio,
            loraplus_weight_decay=self.args.weight_decay,
            **settings,
        )
        return self.optimizer

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = super()
        self.batches, self.learned_tokens = trainer.get_batch_samples(*args, **kwargs)
        return self.batches, self.learned_tokens

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = super()
        norm = trainer._get_grad_norm(*args, **kwargs)
        if math.isfinite(norm):
            self._overflows = 0
        elif self.why_not_finite is not None:
            # In float16 the scale of the loss is found by steps whose gradients overflow, which are
            # left out; that the loss itself is no number has nothing to do with its scale.
            self._overflows += 1
            finding_scale = self.accelerator.scaler is not None and math.isfinite(self._tr_loss)
            if not finding_scale or self._overflows >= MOST_OVERFLOWS:
                raise self.why_not_finite(self.state.global_step + 1)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        trainer: Any = super()
        if self.save_when_there_is_room is None:
            trainer._save_checkpoint(model, trial)
        else:
            self.save_when_there_is_room(lambda: trainer._save_checkpoint(model, trial))

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        trainer: Any = super()
        with sampling.random_state_kept(self.model.device):
            return trainer.evaluate(*args, **kwargs)


class ScheduleOfTheJob(TrainerCallback):  # type: ignore[misc]
    """Has a resumed run take its very first step at the rate of its own job's schedule.

    The optimizer's saved state holds the rate of the job as it was then. For an extended run that
    is the end of the shorter schedule, which may be 0; for any other it is the same number.
    """

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any, lr_scheduler: Any, **_: Any
    ) -> None:
        rates = [
            base * share(lr_scheduler.last_epoch)
            for base, share in zip(lr_scheduler.base_lrs, lr_scheduler.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        lr_scheduler._last_lr = rates
