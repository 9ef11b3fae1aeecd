"""How the storages of a step grow with batch, length and rank, told from their sizes.

Batch, length and rank of a traced pass are prime numbers that no width of the model is divisible
by, so the factors of a storage's size tell how it grows with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from training_backend.memory.memory_traces import GROWTHS, Growth, Poly, growth_values

_BATCHES = (5, 7, 11, 13, 17, 19, 23)
_RANKS = (29, 31, 37, 41, 43, 47, 53, 59, 61, 67)
_LENGTHS = (1009, 1013, 1019, 1021, 1031, 1033, 1039)
_SETTINGS = np.array(
    [
        list(growth_values(batch, length, rank, accumulates).values())
        for batch in (1, 4, 32)
        for length in (64, 256, 1024, 2048, 4096, 16384, 131072)
        for rank in (1, 8, 32, 128, 1024)
        for accumulates in (True, False)
    ]
).T


@dataclass(frozen=True)
class Sizes:
    """Batch, length (in tokens) and rank of a traced pass, each a prime number."""

    batch: int
    length: int
    rank: int

    @classmethod
    def unlike(cls, widths: Iterable[int]) -> Sizes:
        """Primes that divide none of a model's widths.

        Raises:
            StopIteration: when each of the primes at hand divides one.
        """
        given = [width for width in widths if width > 1]

        def first(primes: tuple[int, ...]) -> int:
            return next(p for p in primes if all(width % p for width in given))

        return cls(first(_BATCHES), first(_LENGTHS), first(_RANKS))

    def growth(self, count: int) -> tuple[Growth, float]:
        """What the number of elements of a storage grows with, and by what it is to be divided."""
        batch, rank, length = self.batch, self.rank, self.length
        lengths = 0
        while count % length == 0 and lengths < 2:
            count //= length
            lengths += 1
        by_batch, by_rank = count % batch == 0, count % rank == 0
        if lengths == 0:
            if by_rank:
                return "rank", float(rank)
            # A convolution looks at a few tokens more than there are.
            longer = next((length + n for n in (1, 2, 3) if count % (batch * (length + n)) == 0), 0)
            return ("tokens", float(batch * longer)) if longer else ("1", 1.0)
        if lengths == 2:
            if by_batch:
                return "batch*length^2", float(batch * length**2)
            return "length^2", float(length**2)
        if by_rank:
            return "tokens*rank", float(batch * length * rank)
        return ("tokens", float(batch * length)) if by_batch else ("length", float(length))

    def growth_in_loss(self, count: int, together: Growth) -> tuple[Growth, float]:
        """The same in a loss that looks at `together` tokens at a time.

        In the pass that is traced these are as many as a row's without its last token.
        """
        batch, chunk, length = self.batch, self.length, self.length + 1
        if count % batch == 0 and (count % chunk == 0 or count % length == 0):
            return "tokens", float(batch * (chunk if count % chunk == 0 else length))
        return (together, float(chunk)) if count % chunk == 0 else ("1", 1.0)


class Bytes:
    """Bytes by growth; sums and differences of them."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = list(values) or [0.0] * len(GROWTHS)

    def add(self, growth: Growth, amount: float) -> None:
        self.values[GROWTHS.index(growth)] += amount

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(a + b for a, b in zip(self.values, other.values, strict=True))

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(a - b for a, b in zip(self.values, other.values, strict=True))

    def exceeds(self, other: Bytes) -> bool:
        """Whether it is as much or more for every batch, length and rank."""
        return all(a >= b for a, b in zip(self.values, other.values, strict=True))

    def poly(self) -> Poly:
        return {
            growth: round(amount, 3)
            for growth, amount in zip(GROWTHS, self.values, strict=True)
            if round(amount, 3)
        }


class Moments:
    """The moments that no other moment always exceeds."""

    def __init__(self) -> None:
        self.kept: list[Bytes] = []

    def add(self, moment: Bytes) -> None:
        if any(other.exceeds(moment) for other in self.kept):
            return
        self.kept = [other for other in self.kept if not moment.exceeds(other)] + [moment]

    def polys(self) -> tuple[Poly, ...]:
        """Of these, the ones that take the most for some of the settings that people use."""
        sizes = np.array([moment.values for moment in self.kept]) @ _SETTINGS
        return tuple(self.kept[index].poly() for index in sorted(set(sizes.argmax(0))))
