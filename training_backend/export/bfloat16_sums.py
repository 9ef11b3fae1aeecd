"""W + L R for a weight W in bfloat16: what most merges consist of, in half the time.

bfloat16 keeps 8 bits of a number, float32 keeps 24: computed in float32 the sum nearly always
rounds as it would exactly. How far off it can be is known: a product of r terms by r + 2 roundings
of at most |row of L| |column of R| (Cauchy-Schwarz; Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1), and the sum by one of its own. A sum so near to the middle between two
bfloat16 numbers that this might turn it is computed again in float64, whether it lies there by
chance or since things cancelled. The result is the nearest bfloat16 number of the float64 sum.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from training_backend.errors import UserError
from training_backend.export.shards import Rows
from training_backend.export.tensor_file import (
    Array,
    TensorFile,
    TensorInfo,
    from_float32,
    to_float32,
)

ROUNDING = 2.0**-24  # of float32, relative
_SIGNLESS = np.uint16(0x7FFF)
_INFINITE = 0x7F80


def rows_of_sum(
    file: TensorFile, tensor: TensorInfo, left: Array, right: Array, refusal: UserError
) -> Rows:
    """What makes the stored rows of the sum.

    Args:
        tensor: has two axes, and the type BF16.
        left, right: (rows, rank) and (rank, columns), in float64.
        refusal: is raised where a sum is no finite number.
    """
    with np.errstate(all="ignore"):  # too large a number becomes infinite, and is refused
        halves = left.astype(np.float32), right.astype(np.float32)
        bound = np.linalg.norm(left, axis=1).max() * np.linalg.norm(right, axis=0).max()
        off = bound * (left.shape[1] + 2) * ROUNDING
        if not all(np.isfinite(half).all() for half in (*halves, bound)):
            raise refusal
    columns = np.ascontiguousarray(right.T)
    return partial(_rows, file, tensor, left, columns, *halves, off, refusal)


def _rows(
    file: TensorFile,
    tensor: TensorInfo,
    left: Array,
    columns: Array,
    left_half: Array,
    right_half: Array,
    off: float,
    refusal: UserError,
    rows: slice,
) -> Array:
    stored = file.read_row_bytes(tensor, rows)
    with np.errstate(all="ignore"):
        sums = left_half[rows] @ right_half
        sums += to_float32(stored, "BF16").reshape(sums.shape)
        result = from_float32(sums, "BF16")
        largest = (result & _SIGNLESS).max(initial=0)
        if largest >= _INFINITE:
            raise refusal
        own = 2 * ROUNDING * float(to_float32(largest.tobytes(), "BF16")[0])
        doubtful = np.flatnonzero(_from_middle(sums) <= np.float32(off + own))
    if doubtful.size > sums.size // 8:
        whole = left[rows] @ columns.T
        whole += to_float32(stored, "BF16").reshape(sums.shape)
        return from_float32(whole, "BF16")
    if doubtful.size:
        row, column = np.divmod(doubtful, sums.shape[1])
        exact = np.einsum("nr,nr->n", left[rows][row], columns[column])
        exact += to_float32(stored, "BF16")[doubtful]
        result[row, column] = from_float32(exact, "BF16")
    return result


def _from_middle(sums: Array) -> Array:
    """How far each number is from the middle between the two bfloat16 numbers beside it."""
    bits = sums.view(np.uint32) & np.uint32(0xFFFF0000)
    bits |= np.uint32(0x8000)
    middles: Array = bits.view(np.float32)
    middles -= sums
    return np.abs(middles, out=middles)
