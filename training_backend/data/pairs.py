"""Preference data: two answers to one question, of which one is preferred. Light: no torch.

A pair is encoded as two conversations and told apart into the tokens that both begin with, and
the rest of each: the answers, of which DPO (arXiv:2305.18290) compares the probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable

from training_backend.data import mapping
from training_backend.data.mapping import Conversation, RowProblem
from training_backend.data.sources import OpenSource
from training_backend.data.table import Row
from training_backend.errors import UserError

Pieces = tuple[list[int], list[int], list[int]]


def require_pairs(sources: Iterable[OpenSource]) -> None:
    """Raises `UserError` about `training.objective` unless every source holds pairs."""
    for source in sources:
        if source.format != "preference":
            raise UserError(
                "no_preference_data",
                "dpo compares a chosen with a rejected answer, but {name} holds {format} data.",
                "Choose sft, or data with the columns prompt, chosen and rejected.",
                field="training.objective",
                name=source.table.name,
                format=source.format,
            )


def rejected(row: Row, chosen: Conversation) -> Conversation:
    """The same conversation with the rejected answer.

    Raises `RowProblem` when there is none, or it is no other answer to the same question.
    """
    if row.get("rejected") in (None, "", []):
        raise RowProblem("has no rejected answer", "no_rejected")
    other = mapping.to_conversation({**row, "chosen": row["rejected"]}, "preference")
    if other.messages[:-1] != chosen.messages[:-1]:
        raise RowProblem("has answers to different questions", "different_questions")
    if other.messages[-1] == chosen.messages[-1]:
        raise RowProblem("has the same answer twice", "same_answers")
    return other


def split(chosen: list[int], begin: int, rejected: list[int], other_begin: int) -> Pieces:
    """The tokens that both share, and the rest of each.

    Args:
        begin: where the answer begins in `chosen`.
        other_begin: the same of `rejected`.
    """
    shared = 0
    for one, other in zip(chosen[:begin], rejected[:other_begin], strict=False):
        if one != other:
            break
        shared += 1
    return chosen[:shared], chosen[shared:], rejected[shared:]
