"""What a person asks of a training under way, obeyed at the end of each step.

None of it changes the training: what comes after a pause, an answer or a checkpoint equals,
bit for bit, what would have come without.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from training_backend.errors import StopRequested, UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle.run_requests import read_question, remove
from training_backend.protocol import Phase, PhaseChanged, SampleGenerated
from training_backend.training import sampling
from training_backend.training.trainer_reports import TrainerReports
from training_backend.worker import Reporter

LOOK_SECONDS = 0.2  # how often a paused run looks whether it may go on
# However rare the checkpoints are by steps, a crash costs no more than this; but saving, with the
# test before it, takes no more than this share of the time.
SAVE_SECONDS = 600.0
SAVE_SHARE = 1 / 20


class Steering(TrainerCallback):  # type: ignore[misc]
    """Comes after `TrainerReports`, which makes of each save a finished checkpoint.

    A pause begins with a checkpoint, so that nothing is lost if the paused run never goes on.
    The model stays in memory meanwhile; of a card's memory only what nothing uses is given back.
    """

    def __init__(self, job: TrainingJob, reporter: Reporter, reports: TrainerReports) -> None:
        self._job = job
        self._reporter = reporter
        self._requests = reporter.run.requests
        self._reports = reports
        self._passed_over: set[Path] = set()  # done, but their files cannot be removed
        self._pausing = False
        self._saved_at = self._save_begins = time.monotonic()
        self._save_took = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved_at = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        with self._not_counted():
            self._answer(state.global_step, "training", **kwargs)
        if state.global_step < state.max_steps and self._requests.is_asked("stop"):
            self._stop(control)
            control.should_save = True
            return
        if self._requests.is_asked("checkpoint"):
            control.should_save = True
            self._requests.done("checkpoint")
        if state.global_step < state.max_steps and self._requests.is_asked("pause"):
            control.should_save = self._pausing = True
        self._save_begins = time.monotonic()
        if self._save_begins - self._saved_at >= max(SAVE_SECONDS, self._save_took / SAVE_SHARE):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._saved_at = time.monotonic()
        self._save_took = self._saved_at - self._save_begins
        if not self._pausing or self._reports.stopped:
            return
        self._pausing = False
        with self._not_counted():
            self._wait(state.global_step, control, **kwargs)
        self._saved_at = time.monotonic()

    def _wait(self, step: int, control: Any, **kwargs: Any) -> None:
        """Until the person has it go on, or stops it."""
        self._enter("paused")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        while self._requests.is_asked("pause"):
            if self._requests.is_asked("stop"):
                self._requests.done("pause")
                self._stop(control)
                return
            self._answer(step, "paused", **kwargs)
            if self._requests.is_asked("checkpoint"):  # the pause began with one
                self._requests.done("checkpoint")
                self._reporter.log(f"Step {step} is saved already.")
            time.sleep(LOOK_SECONDS)
        self._enter("training")

    def _answer(
        self, step: int, phase: Phase, *, model: Any, processing_class: Any, **_: Any
    ) -> None:
        """Answer all questions that wait; `phase` is what goes on afterwards."""
        waiting = [one for one in self._requests.questions() if one not in self._passed_over]
        if not waiting:
            return
        self._enter("sampling")
        with contextlib.suppress(StopRequested):  # it is obeyed at once, not answered first
            for file in waiting:
                for prompt in self._prompts(file):
                    self._say(model, processing_class, prompt, step)
        self._enter(phase)

    def _prompts(self, file: Path) -> tuple[str, ...]:
        """What the file asks; it is gone then."""
        try:
            prompt = read_question(file)
        except UserError as error:
            self._reporter.warn(error.code, "{reason}", reason=str(error))
            return ()
        finally:
            remove(file)
            self._passed_over.add(file)
        return self._job.evaluation.prompts if prompt is None else (prompt,)

    def _say(self, model: Any, tokenizer: Any, prompt: str, step: int) -> None:
        """One answer. Whatever goes wrong with it, the training goes on."""
        longest = self._job.evaluation.max_new_tokens
        try:
            text = sampling.answer(model, tokenizer, prompt, longest, self._reporter.check_stop)
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            sampling.warn_not_answered(error, self._reporter)
            return
        self._reporter.emit(SampleGenerated(step=step, prompt=prompt, answer=text))

    def _stop(self, control: Any) -> None:
        self._reports.stopped = control.should_training_stop = True

    def _enter(self, phase: Phase) -> None:
        # Not `Reporter.phase`: to raise here would end the training without saving.
        self._reporter.emit(PhaseChanged(phase=phase))

    @contextlib.contextmanager
    def _not_counted(self) -> Iterator[None]:
        """Time that says nothing about how long a step takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._reports.leave_out(time.monotonic() - began)
