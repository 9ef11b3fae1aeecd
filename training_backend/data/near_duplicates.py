"""Rows that are nearly the same, by MinHash over their words. Light: numpy only when used.

Two rows are called near duplicates when about four in five of their runs of three words are
the same. The estimate and the search follow Broder, "On the resemblance and containment of
documents" (1997), and the banding of Leskovec et al., "Mining of Massive Datasets", 3.4.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

_HASHES = 64
_BANDS = 8
_SAME = 0.8
_PRIME = (1 << 61) - 1
_WORD = re.compile(r"\w+")


class NearDuplicates:
    """Collects texts; `found` names those that resemble an earlier one."""

    def __init__(self) -> None:
        import numpy

        chance = numpy.random.default_rng(0)
        self._factors = chance.integers(1, 1 << 31, _HASHES, dtype=numpy.uint64)
        self._offsets = chance.integers(0, 1 << 31, _HASHES, dtype=numpy.uint64)
        self._buckets: dict[bytes, list[int]] = {}
        self._signatures: list[Any] = []
        self._found: list[int] = []

    def add(self, row: int, text: str) -> None:
        import numpy

        words = _WORD.findall(text.casefold())
        runs = {" ".join(words[at : at + 3]) for at in range(max(1, len(words) - 2))}
        hashes = numpy.array([zlib.crc32(run.encode()) for run in runs], dtype=numpy.uint64)
        mixed = (hashes[:, None] * self._factors + self._offsets) % numpy.uint64(_PRIME)
        signature = mixed.min(axis=0)
        number = len(self._signatures)
        self._signatures.append(signature)
        bands = [
            bytes([band]) + part.tobytes()
            for band, part in enumerate(numpy.split(signature, _BANDS))
        ]
        candidates = {other for band in bands for other in self._buckets.get(band, ())}
        if any((self._signatures[other] == signature).mean() >= _SAME for other in candidates):
            self._found.append(row)
        else:
            for band in bands:
                self._buckets.setdefault(band, []).append(number)

    def found(self) -> list[int]:
        return self._found
