"""What the tests on the held-out rows decide while a run goes on, and the answers beside them.

Everything is read from the trainer's own log, which each checkpoint holds: a run that was cut off
and resumed decides as the uninterrupted one does, without a state of ours to keep.
"""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback

from training_backend.errors import StopRequested
from training_backend.job import TrainingJob
from training_backend.protocol import PhaseChanged
from training_backend.summaries import losses
from training_backend.training import sampling
from training_backend.training.trainer_reports import TrainerReports
from training_backend.worker import Reporter


def ended_early(job: TrainingJob, log: losses.Log, step: int) -> bool:
    """Whether early stopping ended the run at this step.

    Args:
        log: the trainer's `log_history` up to that step.
    """
    tested = losses.of_tests(log)
    if not tested or tested[-1][0] != step:
        return False
    patience = job.evaluation.early_stopping_patience
    return losses.is_exhausted([loss for _, loss in tested], patience)


def missed_test(job: TrainingJob, log: losses.Log, step: int) -> bool:
    """Whether a checkpoint is of a step whose test never came to its end: memory ran out in it.

    Args:
        log: the trainer's `log_history` up to that step.
    """
    tested = losses.of_tests(log)
    return step % job.evaluation.eval_steps == 0 and (not tested or tested[-1][0] != step)


class HeldOut(TrainerCallback):  # type: ignore[misc]
    """Has the best model saved, ends a run that learns no more, says when it learns by heart."""

    def __init__(self, job: TrainingJob, reporter: Reporter) -> None:
        self._job = job
        self._reporter = reporter
        self._warned = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._warned = _parting(state.log_history) is not None  # by an earlier attempt

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.eval_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = True  # is the last model the best?

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tested = [loss for _, loss in losses.of_tests(state.log_history)]
        if not losses.tests_since_best(tested):
            control.should_save |= self._job.evaluation.keep_best
        if ended_early(self._job, state.log_history, state.global_step):
            control.should_training_stop = True
            control.should_save = True
        if not self._warned:
            self._warn_of_parting(_parting(state.log_history))

    def _warn_of_parting(self, parting: losses.Parting | None) -> None:
        if parting is None:
            return
        self._warned = True
        remedy = (
            "The model of step {step} is kept."
            if self._job.evaluation.keep_best
            else "Fewer steps, or Keep the best, give the model of step {step}."
        )
        self._reporter.warn(
            "overfitting",
            "Since step {step} the held-out loss rises ({best} to {last}) while that of the "
            "training falls: the model learns the rows by heart. " + remedy + " More rows, a lower "
            "learning rate or a smaller rank put it off.",
            step=parting.step,
            best=f"{parting.best:.3f}",
            last=f"{parting.last:.3f}",
        )


def _parting(log: losses.Log) -> losses.Parting | None:
    return losses.parting(losses.of_tests(log), losses.of_training(log))


class Answers(TrainerCallback):  # type: ignore[misc]
    """Has the job's prompts answered at every checkpoint, so that one sees the model change."""

    def __init__(
        self,
        job: TrainingJob,
        trainer: Any,
        tokenizer: Any,
        reporter: Reporter,
        reports: TrainerReports,
    ) -> None:
        self._job = job
        self._trainer = trainer
        self._tokenizer = tokenizer
        self._reporter = reporter
        self._reports = reports

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._job.evaluation.prompts or self._reports.stopped:
            return
        began = time.monotonic()
        self.answer(state.global_step)
        self._reports.leave_out(time.monotonic() - began, comes_again=True)
        if not control.should_training_stop:
            self._reporter.emit(PhaseChanged(phase="training"))

    def answer(self, step: int) -> None:
        """Answer them with the model as it is; a training does not fail for want of an answer."""
        try:
            sampling.answer_prompts(self._job, self._trainer, self._tokenizer, step, self._reporter)
        except StopRequested:
            pass  # obeyed before the first step, or at the end of the next
        except RuntimeError as error:  # out of memory is one
            sampling.warn_not_answered(error, self._reporter)
