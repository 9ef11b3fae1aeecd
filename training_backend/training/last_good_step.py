"""When memory runs out within a step, or its numbers are none, the step before is saved.

A step computes its gradients first and changes weights and optimizer at its end. So whatever its
forward or backward pass dies of, step n is all there, but for one thing: random numbers have been
drawn since. They are kept at the end of each step. A run that goes on from here equals, bit for
bit, one that was never disturbed.
"""

from __future__ import annotations

import gc
import random
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from training_backend.lifecycle import checkpoints, failures
from training_backend.runs import Run

# Ends that leave weights and optimizer as they were after the last step.
LEAVE_IT_SOUND = (
    *failures.OUT_OF_MEMORY,
    "row_not_finite",
    "overflow_16_bits",
    "not_repeatable",
)

Restore = Callable[[], None]


class LastGoodStep(TrainerCallback):  # type: ignore[misc]
    """Comes first of our callbacks: what the others do at a step's end is not the step's."""

    def __init__(self) -> None:
        self._random: Restore | None = None
        self._updating = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._updating = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._random = _random_numbers(kwargs["model"].device)
        self._updating = False

    def save(self, trainer: Any, reports: TrainerCallback, run: Run, error: Exception) -> None:
        """After `error` ended the training: save the last good step, if it is of use.

        Memory is what such an error is about, or a row that was not learned from yet; after any
        other the state is not to be trusted. Whatever goes wrong here, the error is what counts:
        the checkpoints before it are sound.
        """
        code = failures.explained(error, run.folder).code
        if code not in LEAVE_IT_SOUND or not self._is_whole(trainer.control):
            return
        saved = checkpoints.finished(run.checkpoints)
        if saved and saved[-1].step >= trainer.state.global_step:
            return
        assert self._random is not None
        try:
            _free_memory(trainer, error)
            self._random()
            trainer._save_checkpoint(trainer.model, None)
            reports.on_save(trainer.args, trainer.state, trainer.control, model=trainer.model)
        except Exception:
            traceback.print_exc()

    def _is_whole(self, control: Any) -> bool:
        """Whether a step was done in this attempt, and weights, optimizer and log are of one."""
        return self._random is not None and not self._updating and not control.should_log


def _random_numbers(device: torch.device) -> Restore:
    """Puts all random numbers back to where they are now; takes microseconds."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    card = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if card is not None:
            torch.cuda.set_rng_state(card, device)

    return restore


def _free_memory(trainer: Any, error: BaseException) -> None:
    """Let go of the gradients and of what the failed step computed, which the error holds on to."""
    for each in (error, error.__context__, error.__cause__):
        if each is not None:
            traceback.clear_frames(each.__traceback__)
    trainer.model.zero_grad(set_to_none=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
