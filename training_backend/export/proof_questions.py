"""What both models are asked: rows of the run's data, the person's own questions, general ones.

Needs transformers (a tokenizer tells how long a row is), not torch. Rows stay on this computer.
"""

from __future__ import annotations

import functools
import itertools
import random
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from training_backend.data import split
from training_backend.data.abilities import adapt
from training_backend.data.mapping import TEXT, Conversation
from training_backend.data.prepare import Preparation, PreparedRow
from training_backend.errors import UserError
from training_backend.job import TrainingJob

MOST_ROWS = 6
FEWEST = 6  # filled up with general ones
MOST_CHARACTERS = 1_600  # of a row; comparing does not get better by long ones
MOST_ROWS_READ = 50_000  # to find out which are held out: about half a minute
MOST_CANDIDATES = 400
PLAIN_PROMPT_CHARACTERS = 160

Kind = Literal["held_out", "data", "own", "general"]

GENERAL = (
    "What is the capital of France?",
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about rain.",
    "Name three things that one needs to bake bread.",
    "Rewrite this politely: give me the report now.",
    "What is 17 plus 25? Show how you got there.",
)


@dataclass(frozen=True)
class Question:
    """One thing to ask.

    Attributes:
        messages: a chat up to where the answer begins; none for a plain text.
        text: the beginning of a plain text, which is to be gone on with.
        answer: the data's own answer, or how the text goes on; "" where there is none.
    """

    kind: Kind
    messages: tuple[dict[str, str], ...] = ()
    text: str = ""
    answer: str = ""


def questions(
    job: TrainingJob | None, tokenizer: Any, own: Sequence[str]
) -> tuple[list[Question], str]:
    """What to ask, and the reason where the data could not be read ("" where it could).

    Args:
        job: of the run; None for an adapter from elsewhere. `tokenizer` gets its chat template.
        own: the person's questions.
    """
    reason = ""
    rows: list[Question] = []
    if job is not None:
        try:
            rows = _of_data(job, tokenizer)
        except UserError as error:
            reason = error.message
        except Exception as error:  # whatever a file that changed since may bring about
            traceback.print_exc()
            reason = f"The data could not be read ({type(error).__name__})."
    chats = bool(tokenizer.chat_template)
    asked = [question for question in rows if chats or not question.messages]
    asked += [_asked("own", text, chats) for text in own]
    asked += [_asked("general", text, chats) for text in GENERAL[: max(0, FEWEST - len(asked))]]
    return asked, reason


def _asked(kind: Kind, text: str, chats: bool) -> Question:
    if not chats:
        return Question(kind, text=text)
    return Question(kind, ({"role": "user", "content": text},))


def _of_data(job: TrainingJob, tokenizer: Any) -> list[Question]:
    """Held-out rows where the run has some that can be told, else rows of its data."""
    preparation = Preparation(job, tokenizer)  # sets the template that the run trained with
    some = functools.partial(
        _some, preparation=preparation, chance=random.Random(job.training.seed)
    )
    if preparation.held_out is not None:
        return some("held_out", _conversations(preparation.rows(held_out=True)))
    fraction = job.evaluation.held_out_fraction
    if not fraction:
        return some("data", _conversations(preparation.rows()))
    keys: list[bytes] = []
    short: dict[int, Conversation] = {}
    for row in preparation.rows(limit=MOST_ROWS_READ + 1):
        if len(keys) == MOST_ROWS_READ:  # which rows are held out is known when all are read
            return some("data", iter(short.values()))
        if row.problem is None and row.conversation is not None:
            if _length(row.conversation) <= MOST_CHARACTERS:
                short[len(keys)] = row.conversation
            keys.append(row.key)
    held = split.hold_out(keys, fraction, job.training.seed)
    return some("held_out", (short[place] for place in held if place in short))


def _conversations(rows: Iterator[PreparedRow]) -> Iterator[Conversation]:
    return (row.conversation for row in rows if row.problem is None and row.conversation)


def _some(
    kind: Kind,
    conversations: Iterator[Conversation],
    *,
    preparation: Preparation,
    chance: random.Random,
) -> list[Question]:
    found = (_question(kind, conversation, preparation) for conversation in conversations)
    first = list(itertools.islice((question for question in found if question), MOST_CANDIDATES))
    return chance.sample(first, min(MOST_ROWS, len(first)))


def _question(kind: Kind, conversation: Conversation, preparation: Preparation) -> Question | None:
    """None for a row that is too long, or of more than words."""
    if _length(conversation) > MOST_CHARACTERS:
        return None
    if conversation.messages[0]["role"] == TEXT:
        text = conversation.messages[0]["content"]
        cut = text.rfind(" ", 0, PLAIN_PROMPT_CHARACTERS)
        return Question(kind, text=text[:cut], answer=text[cut:]) if cut > 0 else None
    fitting = adapt(conversation, preparation.formatter.abilities)
    if fitting.tools:
        return None
    *before, last = fitting.messages
    plain = all(set(turn) >= {"role", "content"} and turn["content"] for turn in fitting.messages)
    if not plain or not before or last["role"] != "assistant":
        return None
    turns = tuple({"role": turn["role"], "content": turn["content"]} for turn in before)
    return Question(kind, turns, answer=last["content"])


def _length(conversation: Conversation) -> int:
    return sum(len(str(turn.get("content") or "")) for turn in conversation.messages)
