"""The end of a run: held-out rows answered by the model and its base, against the data's own.

Answers are greedy and as long as the longest of the data's own at most. What goes wrong here, or
is asked to stop, takes nothing from the run: its result is saved before.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from training_backend.data.training_rows import Question
from training_backend.errors import StopRequested
from training_backend.files import write_text_atomic
from training_backend.job import TrainingJob
from training_backend.protocol import AnswersScored, ScoredAnswer
from training_backend.training import lora, measures, sampling
from training_backend.worker import Reporter

BATCH_ROWS = 8
MOST_NEW_TOKENS = 512
EXAMPLES = 3
EXAMPLE_CHARACTERS = 240
FILE = "scores.jsonl"


def score_answers(
    job: TrainingJob,
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    first: lora.Weights | None,
    step: int,
    reporter: Reporter,
) -> None:
    """Say how the answers compare, and write all of them to the run's `scores.jsonl`.

    Args:
        first: what the adapter began with, where that was taken out of the base.

    Raises `StopRequested` when asked to stop; any other failure becomes a warning.
    """
    if not questions:
        return
    try:
        with sampling.random_state_kept(model.device):
            has_base = job.training.method == "lora"
            answers = _Answers(model, tokenizer, questions, 1 + has_base, reporter)
            after = answers.all()
            before = None
            if has_base:
                with _as_before(model, first):
                    before = answers.all()
        reporter.phase("scoring", fraction=1.0)
        _report(tokenizer, questions, before, after, step, reporter)
    except StopRequested:
        raise
    except Exception as error:
        traceback.print_exception(error)
        reporter.warn(
            "answers_not_scored",
            "The answers could not be compared with the data's own ({kind}). The result of the "
            "training is saved all the same.",
            kind=type(error).__name__,
        )


@contextmanager
def _as_before(model: Any, first: lora.Weights | None) -> Iterator[None]:
    """The model with what was learned taken out of it."""
    if first is None:
        with model.disable_adapter():
            yield
        return
    # The base lacks what the adapter began with: only both together are the base as it was.
    learned = {k: v.detach().clone() for k, v in get_peft_model_state_dict(model).items()}
    set_peft_model_state_dict(model, first)
    try:
        yield
    finally:
        set_peft_model_state_dict(model, learned)


class _Answers:
    """Answers all questions, in batches of rows of like length; says how far it is.

    A batch that does not fit into memory is halved.

    Args:
        passes: how often `all` will be called.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        questions: Sequence[Question],
        passes: int,
        reporter: Reporter,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._questions = questions
        self._reporter = reporter
        self._began = time.monotonic()
        self._done = 0
        self._total = passes * len(questions)
        self._rows = BATCH_ROWS
        longest = max(len(question.reference) for question in questions)
        self._new_tokens = min(longest, MOST_NEW_TOKENS)
        self._ends = _end_tokens(model, tokenizer, questions)

    def all(self) -> list[str]:
        """One answer a question, in their order."""
        was_training = self._model.training
        self._model.eval()
        try:
            return self._in_batches()
        finally:
            self._model.train(was_training)

    def _in_batches(self) -> list[str]:
        order = sorted(
            range(len(self._questions)), key=lambda place: -len(self._questions[place].prompt)
        )
        found = [""] * len(order)
        while order:
            self._say()
            batch = order[: self._rows]
            try:
                texts = self._answer([self._questions[place].prompt for place in batch])
            except Exception as error:
                if len(batch) == 1 or not should_reduce_batch_size(error):
                    raise
                self._rows = len(batch) // 2
                continue
            for place, text in zip(batch, texts, strict=True):
                found[place] = text
            order = order[len(batch) :]
            self._done += len(batch)
        return found

    def _say(self) -> None:
        spent = time.monotonic() - self._began
        self._reporter.phase(
            "scoring",
            fraction=self._done / self._total,
            seconds_left=spent / self._done * (self._total - self._done) if self._done else None,
        )

    @torch.no_grad()
    def _answer(self, prompts: list[list[int]]) -> list[str]:
        """Prompts are padded at the left, where nothing follows."""
        width = max(map(len, prompts))
        padding = self._tokenizer.pad_token_id
        rows = [[padding] * (width - len(prompt)) + prompt for prompt in prompts]
        seen = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        output = self._model.generate(
            input_ids=torch.tensor(rows, device=self._model.device),
            attention_mask=torch.tensor(seen, device=self._model.device),
            max_new_tokens=self._new_tokens,
            eos_token_id=self._ends,
            pad_token_id=padding,
            stopping_criteria=[
                sampling.Limits(self._reporter.check_stop, len(rows) * sampling.ANSWER_SECONDS)
            ],
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            use_cache=True,
        )
        return [_said(self._tokenizer, row) for row in output[:, width:].tolist()]


def _end_tokens(model: Any, tokenizer: Any, questions: Sequence[Question]) -> list[int]:
    """What the model's files name as an end, and what the data's answers close with."""
    known = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])}
    special = set(tokenizer.all_special_ids)
    ends |= special & {question.reference[-1] for question in questions}
    return sorted(ends - {None})


def _said(tokenizer: Any, tokens: list[int]) -> str:
    """The text of an answer, less the thoughts that went before it."""
    text: str = tokenizer.decode(tokens, skip_special_tokens=True)
    return text.rpartition("</think>")[2].strip()


def _report(
    tokenizer: Any,
    questions: Sequence[Question],
    before: list[str] | None,
    after: list[str],
    step: int,
    reporter: Reporter,
) -> None:
    rows = [
        ScoredAnswer(
            question=_said(tokenizer, question.asked),
            reference=_said(tokenizer, question.reference),
            before=None if before is None else before[place],
            after=after[place],
        )
        for place, question in enumerate(questions)
    ]
    ours = [measures.measure(row.after, row.reference) for row in rows]
    theirs = None
    if before is not None:
        theirs = [measures.measure(row.before or "", row.reference) for row in rows]
    lines = [
        {
            **row.model_dump(),
            "scores_before": None if theirs is None else theirs[place],
            "scores_after": ours[place],
        }
        for place, row in enumerate(rows)
    ]
    write_text_atomic(
        reporter.run.folder / FILE,
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
    )
    reporter.emit(
        AnswersScored(
            step=step,
            rows=len(rows),
            scores=measures.summary(theirs, ours),
            examples=tuple(_shortened(row) for row in rows[:EXAMPLES]),
        )
    )


def _shortened(row: ScoredAnswer) -> ScoredAnswer:
    def short(text: str | None) -> str | None:
        if text is None or len(text) <= EXAMPLE_CHARACTERS:
            return text
        return text[: EXAMPLE_CHARACTERS - 1] + "…"

    return ScoredAnswer(**{name: short(text) for name, text in row.model_dump().items()})
