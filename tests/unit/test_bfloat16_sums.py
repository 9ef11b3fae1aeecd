"""The quick way to add to weights in bfloat16: exact, also where things cancel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training_backend.errors import UserError
from training_backend.export import shards
from training_backend.export.bfloat16_sums import rows_of_sum
from training_backend.export.tensor_file import Array, TensorFile, from_float32, to_float32

ROWS, COLUMNS, RANK = 96, 512, 8
REFUSAL = UserError("refused", "It is no number.")


def _sum(base: Array, left: Array, right: Array, folder: Path) -> Array:
    stored = from_float32(base, "BF16")
    made = shards.OutTensor("w", "BF16", base.shape, stored.nbytes, "w", lambda: stored.__getitem__)
    shards.write(shards.Shard("w", (made,)), folder / "w", lambda _: None)
    with TensorFile(folder / "w") as file:
        rows = rows_of_sum(file, file.tensors[0], left, right, REFUSAL)
        halves = [rows(slice(0, 60)), rows(slice(60, ROWS))]
    return to_float32(np.concatenate(halves).tobytes(), "BF16").reshape(base.shape)


def _steps_off(got: Array, exact: Array) -> Array:
    """In steps of bfloat16 at the exact value's size."""
    exponent = np.maximum(np.frexp(np.abs(exact))[1] - 1, -126)
    off: Array = np.abs(got - exact) / np.ldexp(1.0, exponent - 7)
    return off


def _cancelling(base: Array, left: Array, right: Array) -> None:
    """The update takes away what is there, but for little: a sum of zero among others."""
    base[:] = (
        -(left @ right)
        * (1 + np.random.default_rng(5).choice([0, 1e-2, 1e-4, 1e-6], ROWS))[:, None]
    )


def _cancelling_inside(base: Array, left: Array, right: Array) -> None:
    """The terms of the update take away one another."""
    left[:, 1::2], right[1::2] = left[:, ::2] * (1 + 1e-5), -right[::2]
    base[:] *= 1e-6


def _nothing_there(base: Array, left: Array, right: Array) -> None:
    base[:] = 0


def _ordinary(base: Array, left: Array, right: Array) -> None: ...


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0, 1e-36])
@pytest.mark.parametrize("what", [_ordinary, _cancelling, _cancelling_inside, _nothing_there])
def test_a_sum_is_the_nearest_number(what: Any, size: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    base = (random.standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    left = random.standard_normal((ROWS, RANK)) * size
    right = random.standard_normal((RANK, COLUMNS)) * 0.02
    what(base, left, right)
    base = to_float32(from_float32(base, "BF16").tobytes(), "BF16").reshape(base.shape)
    exact = base.astype(np.float64) + left @ right
    got = _sum(base, left, right, tmp_path)
    off = _steps_off(got, exact)
    assert off.max() < 0.5001  # by way of float32, which may turn a tie
    nearest = to_float32(from_float32(exact, "BF16").tobytes(), "BF16").reshape(base.shape)
    assert np.array_equal(got, nearest)
    assert (nearest != base).any() or size < 1e-30


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *(("base", value) for value in (np.nan, np.inf)),
        *((part, value) for part in ("left", "right") for value in (np.nan, -np.inf, 3.4e38, 1e40)),
    ],
)
def test_what_is_no_number_is_refused(part: str, value: float, tmp_path: Path) -> None:
    parts = {
        "base": np.ones((ROWS, COLUMNS), np.float32),
        "left": np.ones((ROWS, RANK)),
        "right": np.full((RANK, COLUMNS), 2.0),
    }
    parts[part][-1, -1] = value
    with pytest.raises(UserError, match="It is no number"):
        _sum(*parts.values(), tmp_path)


def test_the_largest_number_stays(tmp_path: Path) -> None:
    base = np.full((ROWS, COLUMNS), np.array(0x7F7F0000, np.uint32).view(np.float32))
    base[::2] *= -1
    left, right = np.ones((ROWS, RANK)), np.ones((RANK, COLUMNS))
    assert np.array_equal(_sum(base, left, right, tmp_path), base)


def test_a_not_a_number_of_any_bits_is_refused(tmp_path: Path) -> None:
    """Rounding one with all its bits set would make a zero of it."""
    left = np.ones((ROWS, RANK))
    left[3, 3] = np.array(-1, np.int64).view(np.float64)
    with pytest.raises(UserError):
        _sum(np.ones((ROWS, COLUMNS), np.float32), left, np.ones((RANK, COLUMNS)), tmp_path)
