"""The batch that takes the most memory: the longest rows of the data, else full ones made up.

Needs datasets, so it is for the worker alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training_backend.data.formatting import IGNORED
from training_backend.data.prepare import Preparation
from training_backend.errors import UserError
from training_backend.job import TrainingJob

SCAN_SECONDS = 8.0
_DRAWS = 1_000


@dataclass(frozen=True)
class LongestRow:
    """One row to fill batches with, and what is known of the data's lengths.

    `lengths` are tokens of the sequences that were looked at; `complete` says that these are
    all. Without data they are empty.
    """

    input_ids: list[int]
    labels: list[int]
    lengths: tuple[int, ...]
    complete: bool


def longest_row(
    job: TrainingJob, tokenizer: Any, should_stop: Callable[[], bool] | None = None
) -> LongestRow:
    """Look for the longest row, for seconds at most.

    Where the data cannot be read, or holds more rows than there is time for and none of those
    seen is full, a row of `max_length` tokens is made up.
    """
    longest: tuple[int, int] = (0, 0)  # tokens, learned ones
    input_ids: list[int] = []
    labels: list[int] = []
    lengths: list[int] = []
    complete = True
    until = time.monotonic() + SCAN_SECONDS
    try:
        for row in Preparation(job, tokenizer).rows(should_stop=should_stop):
            for sequence in row.sequences:
                found = list(sequence.labels)
                size = len(found), sum(label != IGNORED for label in found)
                lengths.append(size[0])
                if size > longest:
                    longest, input_ids, labels = size, list(sequence.input_ids), found
            if time.monotonic() > until:
                complete = False
                break
    except UserError:  # the run will tell what is wrong with it; memory can be told all the same
        lengths, complete = [], True
    if not lengths or (not complete and longest[0] < job.training.max_length):
        chance = random.Random(job.training.seed)
        vocabulary = int(tokenizer.vocab_size)
        input_ids = [chance.randrange(vocabulary) for _ in range(job.training.max_length)]
        labels = input_ids
    return LongestRow(input_ids, labels, tuple(lengths), complete)


def batches(row: LongestRow, job: TrainingJob, count: int) -> Any:
    """A dataset of `count` batches, in order, each as long as the settings and the row allow.

    Which mask a batch needs decides the attention, and so the memory: rows in one batch are
    never all of one length, and packed ones are full and hold several rows.
    """
    from datasets import Dataset

    size = job.training.per_device_train_batch_size
    ids, labels = row.input_ids, row.labels
    if job.training.packing:
        usual = sum(row.lengths) / len(row.lengths) if row.lengths else job.training.max_length / 2
        pieces = max(2, round(job.training.max_length / max(1.0, usual)))
        length = max(2, job.training.max_length // pieces)
        ids = labels = (ids * -(-length // len(ids)))[:length]
        lengths = [length] * size * (job.training.max_length // length)
    else:
        lengths = [len(ids), *[max(1, len(ids) - 1)] * (size - 1)]
    return Dataset.from_dict(
        {
            "input_ids": [ids[:length] for length in lengths] * count,
            "labels": [labels[:length] for length in lengths] * count,
        }
    )


def usual_share(row: LongestRow, job: TrainingJob) -> float:
    """How long a usual batch is, measured by the longest: padded to its longest row, or not."""
    if not row.lengths:
        return 1.0
    if job.training.padding_free:
        return sum(row.lengths) / len(row.lengths) / len(row.input_ids)
    chance, size = random.Random(job.training.seed), job.training.per_device_train_batch_size
    drawn = (max(chance.choices(row.lengths, k=size)) for _ in range(_DRAWS))
    return min(1.0, sum(drawn) / _DRAWS / len(row.input_ids))
