"""Base + adapter, one tensor at a time.

W' = W + scale * B A, with scale = alpha / r, or alpha / sqrt(r) for rsLoRA (LoRA,
arXiv:2106.09685; rsLoRA, arXiv:2312.03732). With DoRA every row of that is brought to its
trained length m: W' = m * (W + scale * B A) / |W + scale * B A| (arXiv:2402.09353, equation 5).
A part that was trained in full takes the base's place. Computed in float64 from the 16-bit base,
in blocks of rows, and rounded into the base's dtype at the end: where base and update cancel,
float32 would be off by many steps of the result. `shards` lays the tensors out in files and
writes them, in the memory of a few blocks, whatever the model's size.

Every adapter tensor must find its layer and every result be finite, else the merge fails: a
merge that silently does nothing is the worst outcome there is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from training_backend.errors import UserError
from training_backend.export import shards
from training_backend.export.shards import OutTensor, Rows, row_blocks
from training_backend.export.tensor_file import (
    FLOATS,
    Array,
    TensorFile,
    TensorInfo,
    from_float32,
    is_within,
)
from training_backend.models.adapters import WEIGHTS, Adapter, beyond_known_lora

PREFIX = "base_model.model."
SAMPLES = 12  # merged tensors recomputed from the written files


@dataclass(frozen=True)
class Update:
    """What is added to one weight, scale * b @ a, and with DoRA the length of each row after it."""

    a: TensorInfo
    b: TensorInfo
    scale: float
    lengths: TensorInfo | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.b.shape[0], self.a.shape[1])


Change = Update | TensorInfo  # the latter is a weight that was trained in full


def merge(
    base: list[Path], adapter: Adapter, out: Path, on_progress: Callable[[float], None]
) -> int:
    """Write the merged shards into `out` under the names of the base's.

    Args:
        on_progress: called with the share done, from 0 to 1, after every block; what it
            raises ends the merge.

    Returns the number of weights that were changed. Raises `UserError` for an adapter that
    does not fit or holds numbers that are none, `OSError` when the disk is full.
    """
    with planned(base, adapter) as tensors:
        files = shards.plan(tensors)
        total = sum(file.size for file in files)
        done = 0

        def on_block(size: int) -> None:
            nonlocal done
            done += size
            on_progress(done / total)

        for file in files:
            shards.write(file, out / file.name, on_block)
    with TensorFile(adapter.folder / WEIGHTS) as source:
        return len(_changes(source, adapter.config))


@contextmanager
def planned(base: list[Path], adapter: Adapter) -> Iterator[list[OutTensor]]:
    """The merged model's tensors, in the order of the base's; the files stay open meanwhile.

    Args:
        base: the base model's safetensors files.

    Raises `UserError` for an adapter that does not fit, here or while the rows are made.
    """
    with ExitStack() as open_files:
        source = open_files.enter_context(TensorFile(adapter.folder / WEIGHTS))
        changes = _changes(source, adapter.config)
        unused = set(changes)
        tensors = []
        for path in base:
            shard = open_files.enter_context(TensorFile(path))
            for tensor in shard.tensors:
                change = changes.get(tensor.name)
                unused.discard(tensor.name)
                if change is None:
                    opened = partial(_as_it_is, shard, tensor)
                else:
                    _check_fits(tensor, change)
                    opened = partial(_merged, shard, tensor, change, source)
                tensors.append(
                    OutTensor(
                        tensor.name, tensor.dtype, tensor.shape, tensor.size, path.name, opened
                    )
                )
        if unused:
            raise _misfit(f"there is no weight {min(unused)} in the base model")
        yield tensors


def _as_it_is(shard: TensorFile, tensor: TensorInfo) -> Rows:
    return partial(shard.read_row_bytes, tensor)


def check_sample(base: list[Path], adapter: Adapter, out: Path) -> float:
    """Recompute some merged tensors in float64 from the files themselves.

    Returns the largest deviation, in units of the output dtype's own rounding step: one half
    is perfect rounding. Raises `UserError` when one is further off than a whole step.
    """
    worst = 0.0
    with ExitStack() as open_files:
        source = open_files.enter_context(TensorFile(adapter.folder / WEIGHTS))
        before, after = (
            {tensor.name: (file, tensor) for file in files for tensor in file.tensors}
            for files in (
                [open_files.enter_context(TensorFile(path)) for path in paths]
                for paths in (base, list(out.glob("*.safetensors")))
            )
        )
        changes = _changes(source, adapter.config)
        names = sorted(changes)
        for name in names[:: max(1, len(names) // SAMPLES)]:
            changed = _changed(changes[name], source)
            old, new = before[name], after[name]
            for rows in row_blocks(new[1].shape):
                exact = changed(old[0].read_rows(old[1], rows).astype(np.float64), rows)
                got = new[0].read_rows(new[1], rows).astype(np.float64)
                worst = max(worst, _steps_off(got, exact, new[1].dtype))
    if worst > 1.0:
        raise UserError(
            "merge_wrong",
            "The merged weights differ from base + adapter by {steps} rounding steps.",
            "Try again; if it stays so, the disk or the memory may be faulty.",
            steps=f"{worst:.3g}",
        )
    return worst


def _changes(source: TensorFile, config: dict[str, Any]) -> dict[str, Change]:
    """The change of each base weight by name. Raises `UserError` for what we cannot merge."""
    beyond = beyond_known_lora(config)
    if beyond:
        raise _misfit(f"an adapter that uses {beyond} cannot be merged yet")
    tensors = {tensor.name: tensor for tensor in source.tensors}
    changes: dict[str, Change] = {}
    for name in list(tensors):
        if name.endswith(".lora_A.weight"):
            stem = name.removesuffix(".lora_A.weight")
            module = stem.removeprefix(PREFIX)
            a, b = tensors.pop(name), tensors.pop(f"{stem}.lora_B.weight", None)
            if b is None or not _belong_together(a, b):
                raise _misfit(f"the two halves of {module} do not belong together")
            lengths = tensors.pop(f"{stem}.lora_magnitude_vector", None)
            if bool(config.get("use_dora")) != (lengths is not None):
                raise _misfit(f"it is not clear whether {module} was trained with DoRA")
            if lengths is not None and lengths.shape != (b.shape[0],):
                raise _misfit(f"the lengths of {module} do not belong to it")
            scale = _scale(config, module, a.shape[0])
            changes[f"{module}.weight"] = Update(a, b, scale, lengths)
    for name, tensor in tensors.items():
        if not _is_saved_whole(name, config) or tensor.dtype not in FLOATS:
            raise _misfit(f"it is not known what {name} is for")
        changes[name.removeprefix(PREFIX)] = tensor
    if not changes:
        raise _misfit("it holds no weights")
    return changes


def _is_saved_whole(name: str, config: dict[str, Any]) -> bool:
    """PEFT's rule: a part is trained in full whose name ends with one of `modules_to_save`."""
    names = config.get("modules_to_save")
    if not isinstance(names, list) or not name.startswith(PREFIX) or ".lora_" in name:
        return False
    parts = name.removeprefix(PREFIX).split(".")
    return any(
        ".".join(parts[:length]).endswith(str(wanted))
        for wanted in names
        for length in range(1, len(parts))
    )


def _belong_together(a: TensorInfo, b: TensorInfo) -> bool:
    return (
        {a.dtype, b.dtype} <= set(FLOATS)
        and len(a.shape) == len(b.shape) == 2
        and a.shape[0] == b.shape[1] > 0
    )


def _scale(config: dict[str, Any], module: str, rank: int) -> float:
    try:
        alpha = float(_pattern(config.get("alpha_pattern"), module) or config["lora_alpha"])
    except (LookupError, TypeError, ValueError, AttributeError, re.error):
        raise _misfit(f"its settings do not say how strongly {module} is changed") from None
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _pattern(patterns: dict[str, Any] | None, module: str) -> Any:
    """PEFT's rule: a key is a regular expression that matches the end of the module's name."""
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return None


def _check_fits(tensor: TensorInfo, change: Change) -> None:
    if tensor.dtype not in FLOATS:
        raise _misfit(f"{tensor.name} of the base model is {tensor.dtype}; a 16-bit base is needed")
    if tensor.shape != change.shape:
        raise _misfit(f"{tensor.name} has another shape in this base model")


def _merged(shard: TensorFile, tensor: TensorInfo, change: Change, source: TensorFile) -> Rows:
    """What makes rows of a merged weight; the adapter's part of it is read once, here."""
    changed = _changed(change, source)

    def rows(block: slice) -> Array:
        values = changed(shard.read_rows(tensor, block), block)
        if not is_within(values, tensor.dtype):
            raise _misfit(f"{tensor.name} would not be a finite number")
        return from_float32(values, tensor.dtype)

    return rows


def _changed(change: Change, source: TensorFile) -> Callable[[Array, slice], Array]:
    """What turns the given rows of a weight, and their place, into those after the change.

    Both are made of float64 inside, and may be so outside.
    """
    if isinstance(change, TensorInfo):
        return lambda _, rows: source.read_rows(change, rows)
    a: Array = source.read(change.a).astype(np.float64) * change.scale
    b: Array = source.read(change.b).astype(np.float64)
    lengths = None if change.lengths is None else source.read(change.lengths).astype(np.float64)

    def changed(base: Array, rows: slice) -> Array:
        values: Array = b[rows] @ a
        values += base
        if lengths is not None:
            with np.errstate(invalid="ignore", divide="ignore"):  # refused, as not finite
                values *= (lengths[rows] / np.linalg.norm(values, axis=1))[:, None]
        return values

    return changed


def _steps_off(got: Array, exact: Array, dtype: str) -> float:
    """The largest distance in rounding steps of `dtype` at the value's own magnitude."""
    mantissa, smallest = {"BF16": (8, -126), "F16": (11, -14), "F32": (24, -126)}[dtype]
    exponent = np.maximum(np.frexp(np.abs(exact))[1] - 1, smallest)
    return float((np.abs(got - exact) / np.ldexp(1.0, exponent - mantissa + 1)).max())


def _misfit(reason: str) -> UserError:
    return UserError(
        "adapter_does_not_fit",
        "The adapter cannot be merged into this base model: {reason}.",
        "Choose the base model that it was trained on.",
        field="run",
        reason=reason,
    )
