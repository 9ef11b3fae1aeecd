"""Base + adapter, some rows of one tensor at a time.

W' = W + scale * B A, with scale = alpha / r, or alpha / sqrt(r) for rsLoRA (LoRA,
arXiv:2106.09685; rsLoRA, arXiv:2312.03732). With DoRA every output of that is brought to its
trained length m: W' = m * (W + scale * B A) / |W + scale * B A| (arXiv:2402.09353, equation 5).
A part that was trained in full takes the base's place. Computed in float64, and rounded into the
result's type at the end: where base and update cancel, float32 would be off by many steps.
(`bfloat16_sums` takes float32 where that makes no difference.)
`shards` lays the tensors out in files and writes them.

Every adapter tensor must find its weight (`adapter_changes`) and every result be finite, else the
merge fails: a merge that silently does nothing is the worst outcome there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from training_backend.errors import UserError
from training_backend.export import adapter_changes, changes
from training_backend.export.bfloat16_sums import rows_of_sum
from training_backend.export.changes import (
    Base,
    Change,
    Changes,
    Expert,
    Fused,
    Shift,
    Tokens,
    Update,
    Whole,
    misfit,
)
from training_backend.export.shards import OutTensor, Rows, row_blocks
from training_backend.export.tensor_file import (
    DTYPES,
    FLOATS,
    WIDTHS,
    Array,
    TensorFile,
    TensorInfo,
    from_float32,
    is_finite,
    is_within,
    row_count,
)
from training_backend.models.adapters import WEIGHTS, Adapter

SAMPLED_ROWS = 4  # of every merged tensor, recomputed from the written files
SAMPLED_SEEN = 12  # tensors that training saw otherwise; each has to be made as a whole

Values = Callable[[slice], Array]  # some rows as numbers; called by several threads
# How weights of a base are made as training saw them, by the names in its files.
Seen = Mapping[str, Callable[[TensorFile, TensorInfo], Values]]


class Merge:
    """What a merge will write. Use as a context manager.

    `tensors` is the whole result, in the base's order; `config` what becomes otherwise in
    config.json; `changed` the number of weights that are not the base's.
    """

    def __init__(
        self,
        base: list[Path],
        adapter: Adapter,
        config: Mapping[str, Any],
        *,
        dtype: str | None = None,
        seen: Seen | None = None,
    ) -> None:
        """
        Args:
            base: the base model's safetensors files.
            config: the base model's `config.json`.
            dtype: that of the result, as a config names it; None: every tensor as in the base.
            seen: the weights of the base that training saw otherwise than they are.

        Raises `UserError` for an adapter that does not fit, or a damaged file.
        """
        self._open = ExitStack()
        try:
            self._adapter = self._open.enter_context(TensorFile(adapter.folder / WEIGHTS))
            self._files = [self._open.enter_context(TensorFile(path)) for path in base]
            self._of = {tensor.name: (file, tensor) for file in self._files
                        for tensor in file.tensors}  # fmt: skip
            self._seen = seen or {}
            self._read_b = lru_cache(maxsize=2)(self._adapter.read)  # experts share one
            self._dtype = DTYPES[dtype] if dtype else None
            tensors = {name: tensor for name, (_, tensor) in self._of.items()}
            halves = {tensor.name: tensor for tensor in self._adapter.tensors}
            self.changes: Changes = adapter_changes.find(
                halves, adapter.config, Base(tensors, config), self._hold_the_same
            )
            self.tensors = self._planned()
        except BaseException:
            self._open.close()
            raise
        self.config = dict(self.changes.config)
        self.changed = len(self.changes.of) + len(self.changes.added)

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def check_sample(self, written: list[Path]) -> float:
        """Recompute some rows of every merged tensor from the files themselves.

        Returns the largest deviation, in units of the result's own rounding step: one half is
        perfect rounding. Raises `UserError` when one is further off than a whole step, or is
        not there.
        """
        worst = 0.0
        with ExitStack() as stack:
            files = [stack.enter_context(TensorFile(path)) for path in written]
            found = {tensor.name: (file, tensor) for file in files for tensor in file.tensors}
            of_seen = 0
            for name, source, change in self._all_changes():
                if name not in found:
                    raise _wrong(name, math.inf)
                of_seen += source in self._seen
                if source in self._seen and of_seen > SAMPLED_SEEN:
                    continue
                file, tensor = found[name]
                rows = row_count(tensor.shape)
                exact = self._values(source, change)
                for row in _sampled(rows, change):
                    got = file.read_rows(tensor, slice(row, row + 1)).astype(np.float64)
                    off = _steps_off(got, exact(slice(row, row + 1)).astype(np.float64),
                                     tensor.dtype)  # fmt: skip
                    if not off <= 1.0:
                        raise _wrong(name, off)
                    worst = max(worst, off)
        return worst

    # --- what is written ------------------------------------------------------------------

    def _planned(self) -> list[OutTensor]:
        changed = {name: (source, change) for name, source, change in self._all_changes()}
        places = {tensor.name: file for file in self._files for tensor in file.tensors}
        places |= {name: self._files[-1] for name in changed if name not in places}
        planned = []
        for name, file in places.items():
            source, change = changed.get(name, (name, None))
            planned.append(self._planned_tensor(name, self._of[source][1], file, change))
        return planned

    def _planned_tensor(
        self, name: str, tensor: TensorInfo, file: TensorFile, change: Change | None
    ) -> OutTensor:
        is_number = tensor.dtype in FLOATS
        dtype = self._dtype if self._dtype and is_number else tensor.dtype
        shape = changes.result_shape(change, tensor)
        size = WIDTHS[dtype] * math.prod(shape) if is_number else tensor.size
        opened = partial(self._rows, name, tensor, change, dtype)
        return OutTensor(name, dtype, shape, size, file.path.name, opened)

    def _rows(self, name: str, tensor: TensorInfo, change: Change | None, dtype: str) -> Rows:
        file, _ = self._of[tensor.name]
        if tensor.dtype not in FLOATS:
            return partial(file.read_row_bytes, tensor)
        if change is None and tensor.name not in self._seen and dtype == tensor.dtype:
            return partial(_copied, file, tensor)
        refusal = misfit(f"{name} would not be a finite number")
        if dtype != tensor.dtype:
            refusal = _too_large(name, dtype)
        elif change is None:
            refusal = _not_finite(name, file.path)
        if tensor.dtype == dtype == "BF16" and self._is_plain(change, tensor):
            factors = self._factors(change, tensor.shape[0])
            return rows_of_sum(file, tensor, *factors, refusal)
        return partial(_stored, self._values(tensor.name, change), dtype, refusal)

    def _is_plain(self, change: Change | None, tensor: TensorInfo) -> TypeGuard[Update]:
        """Whether the stored weight is to become itself + B A and nothing else."""
        if not isinstance(change, Update) or tensor.name in self._seen:
            return False
        if change.lengths is not None or change.start is not None:
            return False
        return len(tensor.shape) == 2 and tensor.shape[1] % 2 == 0

    def _all_changes(self) -> list[tuple[str, str, Change | None]]:
        return [
            *((name, name, change) for name, change in self.changes.of.items()),
            *((name, source, change) for name, (source, change) in self.changes.added.items()),
        ]

    def _hold_the_same(self, one: TensorInfo, other: TensorInfo) -> bool:
        """Of two tensors of the adapter, of the same type and shape."""
        read = self._adapter.read_row_bytes
        return all(read(one, rows) == read(other, rows) for rows in row_blocks(one.shape))

    # --- what is computed -----------------------------------------------------------------

    def _values(self, source: str, change: Change | None) -> Values:
        """The rows of a weight after its change."""
        file, tensor = self._of[source]
        base: Values = partial(file.read_rows, tensor)
        if source in self._seen and not isinstance(change, Whole):
            base = self._seen[source](file, tensor)
        match change:
            case None:
                return base
            case Whole(whole, expert):
                first = 0 if expert is None else expert.index * whole.shape[1] + expert.first_row
                return partial(_shifted, partial(self._adapter.read_rows, whole), first)
            case Tokens(trained, rows, start):
                if start is not None:
                    base = partial(self._adapter.read_rows, start)
                return partial(_with_rows, base, rows, self._adapter.read(trained))
            case Shift(bias, scale):
                added = self._adapter.read(bias).astype(np.float64) * scale
                return partial(_plus, base, added)
            case Update():
                if change.start is not None:
                    base = partial(self._adapter.read_rows, change.start)
                return self._updated(base, tensor.shape, change)
            case Fused(experts):
                count = tensor.shape[1]  # rows of one expert
                return partial(_of_experts, count, [
                    self._updated(partial(_shifted, base, number * count), tensor.shape[1:], one)
                    for number, one in enumerate(experts)
                ])  # fmt: skip

    def _updated(self, base: Values, shape: tuple[int, ...], update: Update) -> Values:
        left, right = self._factors(update, shape[0])
        summed = partial(_with_update, base, left, right)
        if update.lengths is None:
            return summed
        lengths = self._adapter.read(update.lengths).astype(np.float64)
        if not update.transposed:
            return partial(_with_row_lengths, summed, lengths)
        squares = np.zeros(right.shape[1])
        for rows in row_blocks((left.shape[0], right.shape[1])):
            squares += np.square(summed(rows)).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):  # refused, as not finite
            return partial(_times, summed, lengths / np.sqrt(squares))

    def _factors(self, update: Update, rows: int) -> tuple[Array, Array]:
        """scale * B A as a product of two for the weight as it is stored, in float64."""
        expert = update.expert or Expert(0, 1)
        rank = update.a.shape[0] // expert.count
        of_a = slice(expert.index * rank, (expert.index + 1) * rank)
        a = self._adapter.read_rows(update.a, of_a).astype(np.float64)
        b = self._read_b(update.b).reshape(-1, rank, expert.count)[:, :, expert.index]
        if update.transposed:
            return a.T, b.T.astype(np.float64) * update.scale
        if update.expert is not None:
            b = b[expert.first_row : expert.first_row + rows]
        return b.astype(np.float64) * update.scale, a


# --- rows --------------------------------------------------------------------------------


def _shifted(values: Values, first: int, rows: slice) -> Array:
    return values(slice(rows.start + first, rows.stop + first))


def _with_rows(base: Values, replaced: tuple[int, ...], trained: Array, rows: slice) -> Array:
    values = np.array(base(rows))
    for number, row in enumerate(replaced):
        if rows.start <= row < rows.stop:
            values[row - rows.start] = trained[number]
    return values


def _plus(base: Values, added: Array, rows: slice) -> Array:
    values: Array = base(rows) + added[rows]
    return values


def _with_update(base: Values, left: Array, right: Array, rows: slice) -> Array:
    values = left[rows] @ right
    values += base(rows)
    return values


def _with_row_lengths(summed: Values, lengths: Array, rows: slice) -> Array:
    values = summed(rows)
    with np.errstate(invalid="ignore", divide="ignore"):  # refused, as not finite
        values *= (lengths[rows] / np.linalg.norm(values, axis=1))[:, None]
    return values


def _times(summed: Values, factors: Array, rows: slice) -> Array:
    values = summed(rows)
    values *= factors
    return values


def _of_experts(count: int, experts: list[Values], rows: slice) -> Array:
    """Rows that may be of several experts, each of so many rows."""
    parts = []
    first = rows.start
    while first < rows.stop:
        expert, inside = divmod(first, count)
        taken = min(count - inside, rows.stop - first)
        parts.append(experts[expert](slice(inside, inside + taken)))
        first += taken
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# --- as they are stored ------------------------------------------------------------------


def _copied(file: TensorFile, tensor: TensorInfo, rows: slice) -> bytes:
    data = file.read_row_bytes(tensor, rows)
    if not is_finite(data, tensor.dtype):
        raise _not_finite(tensor.name, file.path)
    return data


def _stored(values: Values, dtype: str, refusal: UserError, rows: slice) -> Array:
    with np.errstate(over="ignore"):  # refused, as not finite
        numbers = np.asarray(values(rows), np.float32)
    if not is_within(numbers, dtype):
        raise refusal
    return from_float32(numbers, dtype)


def _steps_off(got: Array, exact: Array, dtype: str) -> float:
    """The largest distance in rounding steps of `dtype` at the value's own magnitude."""
    mantissa, smallest = {"BF16": (8, -126), "F16": (11, -14), "F32": (24, -126)}[dtype]
    exponent = np.maximum(np.frexp(np.abs(exact))[1] - 1, smallest)
    return float((np.abs(got - exact) / np.ldexp(1.0, exponent - mantissa + 1)).max())


def _sampled(rows: int, change: Change | None) -> list[int]:
    """Some rows of so many, from the first to the last, and such as are certain to be changed."""
    spread = np.linspace(0, rows - 1, SAMPLED_ROWS).astype(int).tolist()
    trained = change.rows[:SAMPLED_ROWS] if isinstance(change, Tokens) else ()
    return sorted({*spread, *trained})


def _wrong(name: str, steps: float) -> UserError:
    return UserError(
        "merge_wrong",
        "The merged weight {name} differs from base + adapter by {steps} rounding steps.",
        "Try again; if it stays so, the disk or the memory may be faulty.",
        name=name,
        steps=f"{steps:.3g}",
    )


def _not_finite(name: str, path: Path) -> UserError:
    return UserError(
        "weights_not_finite",
        "{name} in {path} holds numbers that are none.",
        "Download the base model again.",
        field="run",
        name=name,
        path=path,
    )


def _too_large(name: str, dtype: str) -> UserError:
    return UserError(
        "too_large_for_type",
        "{name} holds numbers that are none, or too large for {dtype}.",
        "Choose bfloat16, or leave the type as the base model's.",
        field="dtype",
        name=name,
        dtype={"F16": "float16", "BF16": "bfloat16", "F32": "float32"}[dtype],
    )
