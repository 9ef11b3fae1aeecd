"""The numbers of a dataset that a person wants before training. Light: no torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from training_backend.job import TrainingJob


@dataclass
class Numbers:
    """Counted while rows go by; lengths are in tokens, before any cut.

    Attributes:
        rows: rows that can be trained on.
        unusable: rows that cannot.
        sequences: what they become; more than rows where plain texts are cut to pieces.
        tokens: of all sequences, before the cut at `max_length`.
        kept_tokens: what is left of them.
        trained_tokens: those of the kept ones that are learned from.
        lengths: how many sequences have each length.
    """

    rows: int = 0
    unusable: int = 0
    sequences: int = 0
    tokens: int = 0
    kept_tokens: int = 0
    trained_tokens: int = 0
    lengths: Counter[int] = field(default_factory=Counter)

    def add(self, length: int, kept: int, trained: int) -> None:
        """Count one sequence."""
        self.sequences += 1
        self.tokens += length
        self.kept_tokens += kept
        self.trained_tokens += trained
        self.lengths[length] += 1

    @property
    def trained_share(self) -> float:
        """Share of the kept tokens that are learned from."""
        return self.trained_tokens / self.kept_tokens if self.kept_tokens else 0.0

    def cut_at(self, max_length: int) -> tuple[float, float]:
        """The shares of sequences and of tokens that a `max_length` would cut."""
        rows = sum(count for length, count in self.lengths.items() if length > max_length)
        tokens = sum(
            (length - max_length) * count
            for length, count in self.lengths.items()
            if length > max_length
        )
        return (rows / self.sequences if rows else 0.0, tokens / self.tokens if tokens else 0.0)

    def percentile(self, share: float) -> int:
        """The length that this share of the sequences does not exceed (nearest rank)."""
        wanted = max(1, math.ceil(self.sequences * share))
        seen = 0
        for length in sorted(self.lengths):
            seen += self.lengths[length]
            if seen >= wanted:
                return length
        return 0

    def histogram(self, bins: int = 40) -> list[tuple[int, int, int]]:
        """(shortest, longest, sequences) of bins of equal width, from 1 to the longest."""
        longest = max(self.lengths, default=0)
        width = max(1, math.ceil(longest / bins))
        counts = Counter[int]()
        for length, count in self.lengths.items():
            counts[max(0, length - 1) // width] += count
        return [
            (place * width + 1, (place + 1) * width, counts[place])
            for place in range(math.ceil(longest / width))
        ]

    def steps_per_epoch(self, job: TrainingJob) -> int:
        """Optimizer steps of one epoch, without mixture weights; packed ones by tokens."""
        training = job.training
        train = self.sequences
        if job.dataset.held_out_path is None:
            train -= round(self.sequences * job.evaluation.held_out_fraction)
        if job.dataset.max_rows is not None and self.rows:
            train = min(train, round(self.sequences * job.dataset.max_rows / self.rows))
        if training.packing and self.sequences:
            train = math.ceil(self.kept_tokens / training.max_length * train / self.sequences)
        batches = math.ceil(train / training.per_device_train_batch_size)
        return math.ceil(batches / training.gradient_accumulation_steps)

    def document(self, job: TrainingJob) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        cut_rows, cut_tokens = self.cut_at(job.training.max_length)
        return {
            "rows": self.rows,
            "unusable_rows": self.unusable,
            "sequences": self.sequences,
            "tokens": self.tokens,
            "kept_tokens": self.kept_tokens,
            "trained_tokens": self.trained_tokens,
            "trained_share": self.trained_share,
            "longest": max(self.lengths, default=0),
            "median": self.percentile(0.5),
            "percentile_95": self.percentile(0.95),
            "max_length": job.training.max_length,
            "cut_rows_share": cut_rows,
            "cut_tokens_share": cut_tokens,
            "steps_per_epoch": self.steps_per_epoch(job),
            "histogram": self.histogram(),
            "lengths": sorted(self.lengths.items()) if len(self.lengths) <= 4096 else [],
        }
