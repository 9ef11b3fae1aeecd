"""Answers to fixed prompts from the model in training."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import StoppingCriteria

from training_backend.data.bounded import bounded
from training_backend.job import TrainingJob
from training_backend.protocol import SampleGenerated
from training_backend.worker import Reporter

ANSWER_SECONDS = 60.0  # an answer that takes longer ends where it is


def answer_prompts(
    job: TrainingJob, trainer: Any, tokenizer: Any, step: int, reporter: Reporter
) -> None:
    """Have the model as it is after `step` steps answer the job's prompts, and say so.

    At step 0 these are the base model's answers, to be read beside all later ones; an adapter
    that the run starts from answers after it. Random numbers and the model's mode stay as they
    were, so a training goes on as if it had not been asked.

    Raises:
        StopRequested: when asked to stop, also within an answer.
    """

    def answers(base: bool) -> None:
        for prompt in job.evaluation.prompts:
            reporter.phase("sampling")
            longest = job.evaluation.max_new_tokens
            text = answer(trainer.model, tokenizer, prompt, longest, reporter.check_stop)
            reporter.emit(SampleGenerated(step=step, prompt=prompt, answer=text, base=base))

    if step == 0 and job.model.adapter is not None:
        with trainer.model.disable_adapter():
            answers(base=True)
        answers(base=False)
    else:
        answers(base=step == 0)


def warn_not_answered(error: Exception, reporter: Reporter) -> None:
    """A training does not end for want of an answer; the traceback goes to the log."""
    traceback.print_exception(error)
    reporter.warn(
        "question_not_answered",
        "The model could not answer now ({kind}); the training goes on.",
        kind=type(error).__name__,
    )


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """What is drawn inside leaves no trace on the training's random numbers."""
    cpu = torch.get_rng_state()
    card = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if card is not None:
            torch.cuda.set_rng_state(card, device)


@torch.no_grad()
def answer(
    model: Any,
    tokenizer: Any,
    prompt: str,
    max_new_tokens: int,
    check_stop: Callable[[], None] = lambda: None,
) -> str:
    """The model's greedy answer to one user message; the model's mode is left as it was.

    One that is cut off, by `max_new_tokens` or because it takes too long, ends in "…".

    Args:
        check_stop: is called at every token; what it raises ends the answer.
    """
    was_training = model.training
    model.eval()
    try:
        with random_state_kept(model.device):
            with bounded():
                inputs = tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}],
                    add_generation_prompt=True,
                    return_tensors="pt",
                    return_dict=True,
                )
            inputs = inputs.to(model.device)
            output = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                stopping_criteria=[Limits(check_stop)],
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                use_cache=True,
            )
    finally:
        model.train(was_training)
    new_tokens = output[0, inputs["input_ids"].shape[1] :]
    text: str = tokenizer.decode(new_tokens, skip_special_tokens=True)
    ends = model.generation_config.eos_token_id
    ended = set(ends if isinstance(ends, list) else [ends])
    whole = len(new_tokens) > 0 and int(new_tokens[-1]) in ended
    return text.strip() if whole else f"{text.strip()}…"


class Limits(StoppingCriteria):  # type: ignore[misc]
    """Ends an answer that takes too long; what it asks may raise."""

    def __init__(self, check_stop: Callable[[], None], seconds: float = ANSWER_SECONDS) -> None:
        self._check_stop = check_stop
        self._until = time.monotonic() + seconds

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        self._check_stop()
        late = time.monotonic() > self._until
        return torch.full((len(input_ids),), late, dtype=torch.bool, device=input_ids.device)
