"""W + L R for a weight W in bfloat16: what most merges consist of, in half the time.

bfloat16 keeps 8 bits of a number, float32 keeps 24: computed in float32 the sum rounds as it would
exactly, but where L R and W, or the terms of L R, cancel. A sum of less than a thousandth of the
largest product that there can be, which is at most |row of L| |column of R| (Cauchy-Schwarz), is
computed again in float64. The result is the nearest bfloat16 of the exact sum or, where that lies
within some thousandths of a step of the middle between two, one of these.
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

CANCELLED = 2.0**-10
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
        small = from_float32(np.array([bound * CANCELLED]), "BF16")[0]
        if not all(np.isfinite(half).all() for half in halves) or small >= _INFINITE:
            raise refusal
    columns = np.ascontiguousarray(right.T)
    return partial(_rows, file, tensor, left, columns, *halves, small, refusal)


def _rows(
    file: TensorFile,
    tensor: TensorInfo,
    left: Array,
    columns: Array,
    left_half: Array,
    right_half: Array,
    small: np.uint16,
    refusal: UserError,
    rows: slice,
) -> Array:
    stored = file.read_row_bytes(tensor, rows)
    with np.errstate(all="ignore"):
        sums = left_half[rows] @ right_half
        sums += to_float32(stored, "BF16").reshape(sums.shape)
        result = from_float32(sums, "BF16")
        sizes = result & _SIGNLESS
        doubtful = np.flatnonzero(sizes < small)
        if sizes.max(initial=0) >= _INFINITE:
            raise refusal
    if doubtful.size:
        row, column = np.divmod(doubtful, sums.shape[1])
        exact = np.einsum("nr,nr->n", left[rows][row], columns[column])
        exact += to_float32(stored, "BF16")[doubtful]
        result[row, column] = from_float32(exact, "BF16")
    return result
