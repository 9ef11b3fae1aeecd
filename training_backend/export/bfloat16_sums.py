"""W + L R for a weight W in bfloat16: what most merges consist of, in a third of the time.

bfloat16 keeps 8 bits of a number, float32 keeps 24: computed in float32 the sum rounds as it would
exactly, but where things cancel. How far off the product can be is known: r terms by r + 2
roundings of at most |row of L| |column of R| (Cauchy-Schwarz; Higham, Accuracy and Stability of
Numerical Algorithms, section 3.1). A sum so small that this is much of its own rounding step is
computed again in float64. So no result is further than `MOST_OFF` steps from the exact sum, where
half a step is perfect rounding; and those errors hardly ever add up.

Two stored numbers are taken as one of 32 bits, whose halves are columns 2n and 2n + 1: half as
much to shift and to mask.
"""

from __future__ import annotations

import threading

import numpy as np

from training_backend.errors import UserError
from training_backend.export.shards import Rows
from training_backend.export.tensor_file import (
    Array,
    TensorFile,
    TensorInfo,
    from_float32,
    is_within,
    to_float32,
)

MOST_OFF = 0.75  # steps of bfloat16
_ROUNDING = 2.0**-24  # of float32, relative
_SMALLEST = 2.0**-149  # of float32
_STEP = 2.0**-8  # of bfloat16, relative, at the least
_LOWER, _UPPER = np.uint32(16), np.uint32(0xFFFF0000)
_HALF_STEP = np.uint32(0x8000)  # in the last place of a float32
_SIGNLESS = np.uint16(0x7FFF)
_INFINITE = 0x7F80

_kept = threading.local()  # what each thread computes in: new memory would cost a third


def rows_of_sum(
    file: TensorFile, tensor: TensorInfo, left: Array, right: Array, refusal: UserError
) -> Rows:
    """What makes the stored rows of the sum.

    Args:
        tensor: has two axes, an even number of columns, and the type BF16.
        left, right: (rows, rank) and (rank, columns), in float64.
        refusal: is raised where a sum is no finite number.
    """
    return _Sum(file, tensor, left, right, refusal).rows


class _Sum:
    def __init__(
        self, file: TensorFile, tensor: TensorInfo, left: Array, right: Array, refusal: UserError
    ) -> None:
        rank, columns = right.shape
        self._file, self._tensor, self._refusal = file, tensor, refusal
        self._left, self._columns = left, np.ascontiguousarray(right.T)
        with np.errstate(all="ignore"):  # too large a number becomes infinite, and is refused
            self._left_half = left.astype(np.float32)
            halves = right.astype(np.float32).reshape(rank, columns // 2, 2)
            self._right_halves = np.ascontiguousarray(halves.transpose(2, 0, 1))
            lengths, longest = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=0).max()
            off = lengths * longest * (rank + 3) * _ROUNDING
            off += (lengths + longest + 1) * rank * _SMALLEST
            self._small = off / (_STEP * (MOST_OFF - 0.5))  # by rows
            finite = (self._left_half, self._right_halves, self._small.astype(np.float32))
            if not all(np.isfinite(part).all() for part in finite):
                raise refusal

    def rows(self, rows: slice) -> Array:
        words = np.frombuffer(self._file.read_row_bytes(self._tensor, rows), np.uint16)
        with np.errstate(all="ignore"):
            result = self._in_float32(words.view(np.uint32), rows)
            sizes = result & _SIGNLESS
            if sizes.max(initial=0) >= _INFINITE:
                raise self._refusal
            small = self._small[rows].max().astype(np.float32).view(np.uint32) >> _LOWER
            doubtful = np.flatnonzero(sizes <= small.astype(np.uint16))
        if doubtful.size * self._left.shape[1] > result.size:
            return self._in_float64(words, rows)
        if doubtful.size:
            row, column = np.divmod(doubtful, len(self._columns))
            # "clip" looks at no bounds, which is quicker; they are within.
            of_left = self._left[rows].take(row, axis=0, mode="clip")
            of_right = self._columns.take(column, axis=0, mode="clip")
            exact = np.einsum("nr,nr->n", of_left, of_right)
            exact += to_float32(words.take(doubtful).tobytes(), "BF16")
            result[doubtful] = from_float32(exact, "BF16")
        return result

    def _in_float32(self, stored: Array, rows: slice) -> Array:
        """The rows' sums by way of float32; one that lies halfway goes away from zero."""
        pairs = stored.reshape(-1, len(self._columns) // 2)
        sums, weights = _room(pairs.shape)
        np.matmul(self._left_half[rows], self._right_halves, out=sums)
        bits = weights.view(np.uint32)
        np.left_shift(pairs, _LOWER, out=bits[0])
        np.bitwise_and(pairs, _UPPER, out=bits[1])
        sums += weights
        bits = sums.view(np.uint32)
        bits += _HALF_STEP
        result = bits[0] >> _LOWER
        bits[1] &= _UPPER
        result |= bits[1]
        return result.reshape(-1).view(np.uint16)

    def _in_float64(self, words: Array, rows: slice) -> Array:
        with np.errstate(all="ignore"):
            sums = self._left[rows] @ self._columns.T
            sums += to_float32(words.tobytes(), "BF16").reshape(sums.shape)
            if not is_within(sums, "BF16"):
                raise self._refusal
            return from_float32(sums, "BF16").reshape(-1)


def _room(shape: tuple[int, ...]) -> Array:
    """Two arrays of float32 in two halves each; the same ones for the same shape."""
    room: Array | None = getattr(_kept, "room", None)
    if room is None or room.shape[2:] != shape:
        room = _kept.room = np.empty((2, 2, *shape), np.float32)
    return room
