"""What the model sees of some rows: text, tokens and what is learned from."""

from __future__ import annotations

from typing import Any

from training_backend.data.formatting import Encoded, Formatter
from training_backend.data.prepare import Preparation, PreparedRow
from training_backend.job import TrainingJob


def preview(job: TrainingJob, tokenizer: Any, rows: int, start: int = 0) -> dict[str, Any]:
    """Some rows of a job's data, by the code that training uses.

    Args:
        rows: sequences shown at most; a row that cannot be trained on counts as one, and
            says why under `problem`.
        start: the number of the first row, from 0.

    Raises `UserError` for what is wrong with the data as a whole.
    """
    preparation = Preparation(job, tokenizer)
    shown: list[dict[str, Any]] = []
    for row in preparation.rows(start=start):
        shown += _shown(row, preparation.formatter)
        if len(shown) >= rows:
            break
    return {
        "format": preparation.format,
        "rows": shown[:rows],
        "max_length": job.training.max_length,
        "chat_template": _template_name(job, preparation.formatter),
        "notices": [str(notice) for notice in preparation.notices],
    }


def lengths(job: TrainingJob, tokenizer: Any, rows: int, start: int = 0) -> dict[int, int]:
    """The tokens before any cut of each of `rows` rows from `start` on; by row number.

    Rows that cannot be trained on, or that a fix leaves out, are missing.
    """
    prepared = Preparation(job, tokenizer).rows(start=start, limit=rows)
    return {
        row.index: sum(sequence.n_full for sequence in row.sequences)
        for row in prepared
        if row.problem is None
    }


def _shown(row: PreparedRow, formatter: Formatter) -> list[dict[str, Any]]:
    if row.problem is not None:
        nothing = {"text": "", "n_tokens": 0, "n_tokens_full": 0, "n_trained": 0}
        return [
            {"index": row.index, **nothing, "truncated": False, "tokens": [],
             "problem": f"{row.place} {row.problem}.", "code": row.problem.code}
        ]  # fmt: skip
    return [
        {
            "index": row.index,
            "text": sequence.text,
            "n_tokens": len(sequence.input_ids),
            "n_tokens_full": sequence.n_full,
            "n_trained": sequence.n_trained,
            "truncated": sequence.truncated,
            "tokens": tokens(sequence, formatter),
            "piece": number,
            "pieces": len(row.sequences),
        }
        for number, sequence in enumerate(row.sequences)
    ]


def tokens(sequence: Encoded, formatter: Formatter) -> list[dict[str, Any]]:
    """The tokens of a sequence; their texts joined are its text up to the cut.

    `special` marks control tokens; `mark` is bos or eos where the token is that.
    """
    tokenizer = formatter.tokenizer
    marks = {tokenizer.bos_token_id: "bos", tokenizer.eos_token_id: "eos"}
    learned = [False] * len(sequence.input_ids)
    for begin, end in sequence.trained:
        learned[begin:end] = [True] * (end - begin)
    return [
        {
            "id": token,
            "text": text,
            "trained": trained,
            "special": token in formatter.special_ids,
            "mark": marks.get(token),
        }
        for token, text, trained in zip(
            sequence.input_ids, formatter.token_texts(sequence), learned, strict=True
        )
    ]


def _template_name(job: TrainingJob, formatter: Formatter) -> str:
    """A standard template's name, or "model" for the model's own."""
    return job.dataset.chat_template or ("plain" if formatter.used_fallback else "model")
