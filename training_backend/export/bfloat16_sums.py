"""W + L R for a weight W in bfloat16: what most merges consist of, in half the time.

bfloat16 keeps 8 bits of a number, float32 keeps 24: computed in float32 the sum nearly always
rounds as it would exactly. How far off it is, is known: a product of r terms by about the root of
its r + 3 roundings, each of at most |row of L| |column of R| (Higham and Mary, A new approach to
probabilistic rounding error analysis, 2019, doi:10.1137/18M1226312), and the sum by one of its own.
So a number above the exact sum and one below it are rounded: where both become the same, that is
it, and the few others are computed again in float64. So the result is the nearest bfloat16 number
of the float64 sum. Were all roundings of one sum to conspire, and it to lie in the middle of two
numbers, the other one could come out, which is as near as makes no difference.

Two stored numbers are taken as one of 32 bits, whose halves are columns 2n and 2n + 1: half as
much to shift and to mask.
"""

from __future__ import annotations

import math
import threading

import numpy as np

from training_backend.errors import UserError
from training_backend.export.shards import Rows
from training_backend.export.tensor_file import (
    LARGEST,
    Array,
    TensorFile,
    TensorInfo,
    from_float32,
    is_within,
    to_float32,
)

_ROUNDING = 2.0**-24  # of float32, relative
_SMALLEST = 2.0**-149  # of float32
_LOWER, _UPPER = np.uint32(16), np.uint32(0xFFFF0000)
_HALF_STEP = np.uint32(0x8000)  # of bfloat16, in the bits of a float32
_SIGNLESS = 0x7FFF

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
            # A row of ones, for what is added to every sum.
            self._right_halves = np.ones((2, rank + 1, columns // 2), np.float32)
            self._right_halves[:, :rank] = right.reshape(rank, columns // 2, 2).transpose(2, 0, 1)
            lengths, longest = np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=0).max()
            self._most = lengths * longest  # by rows
            self._off = self._most * (rank + 3) ** 0.5 * _ROUNDING
            self._off += (lengths + longest + 1) * rank * _SMALLEST
            finite = (self._left_half, self._right_halves, self._most.astype(np.float32))
            if not all(np.isfinite(part).all() for part in finite):
                raise refusal

    def rows(self, rows: slice) -> Array:
        words = np.frombuffer(self._file.read_row_bytes(self._tensor, rows), np.uint16)
        largest = _largest(words)
        most = largest + float(self._most[rows].max())
        if not most < LARGEST["BF16"] / 2:
            return self._in_float64(words, rows)
        off = float(self._off[rows].max()) + 2 * _ROUNDING * most
        above, below = self._rounded(words, rows, off)
        apart = np.flatnonzero(above != below)
        result: Array = above.view(np.uint16)
        if apart.size * self._left.shape[1] > above.size:  # a whole product is quicker
            return self._in_float64(words, rows)
        if apart.size:
            differing = np.flatnonzero((above[apart] ^ below[apart]).view(np.uint16))
            doubtful = 2 * apart[differing >> 1] + (differing & 1)
            row, column = np.divmod(doubtful, len(self._columns))
            # "clip" looks at no bounds, which is quicker; they are within.
            of_left = self._left[rows].take(row, axis=0, mode="clip")
            of_right = self._columns.take(column, axis=0, mode="clip")
            exact = np.einsum("nr,nr->n", of_left, of_right)
            exact += to_float32(words.take(doubtful).tobytes(), "BF16")
            result[doubtful] = from_float32(exact, "BF16")
        return result

    def _rounded(self, words: Array, rows: slice, off: float) -> Array:
        """The rows' sums and `off`, and the sums less `off`, as pairs in bfloat16.

        One that lies halfway between two numbers goes away from zero; none does that is surely
        above or below.
        """
        left = np.full((rows.stop - rows.start, self._left.shape[1] + 1), off, np.float32)
        left[:, :-1] = self._left_half[rows]
        pairs = words.view(np.uint32).reshape(len(left), -1)
        both = _room(pairs.shape)
        above, below = both
        np.matmul(left, self._right_halves, out=above)
        bits = both.view(np.uint32)
        np.left_shift(pairs, _LOWER, out=bits[1, 0])
        np.bitwise_and(pairs, _UPPER, out=bits[1, 1])
        above += below
        np.subtract(above, np.float32(2 * off), out=below)
        bits += _HALF_STEP
        result: Array = bits[:, 0] >> _LOWER
        bits[:, 1] &= _UPPER
        result |= bits[:, 1]
        return result.reshape(2, -1)

    def _in_float64(self, words: Array, rows: slice) -> Array:
        with np.errstate(all="ignore"):
            sums = self._left[rows] @ self._columns.T
            sums += to_float32(words.tobytes(), "BF16").reshape(sums.shape)
            if not is_within(sums, "BF16"):
                raise self._refusal
            return from_float32(sums, "BF16").reshape(-1)


def _largest(words: Array) -> float:
    """The largest magnitude of stored bfloat16 numbers; infinite where one is none."""
    if not words.size:
        return 0.0
    bits = max(int(words.max()) & _SIGNLESS, int(words.view(np.int16).max()))
    return float(to_float32(bits.to_bytes(2, "little"), "BF16")[0]) if bits < 0x7F80 else math.inf


def _room(shape: tuple[int, ...]) -> Array:
    """Two arrays of float32 in two halves each; the same ones for the same shape."""
    room: Array | None = getattr(_kept, "room", None)
    if room is None or room.shape[2:] != shape:
        room = _kept.room = np.empty((2, 2, *shape), np.float32)
    return room
