"""Base + adapter, one tensor at a time.

W' = W + scale * B A, with scale = alpha / r, or alpha / sqrt(r) for rsLoRA (LoRA,
arXiv:2106.09685; rsLoRA, arXiv:2312.03732). With DoRA every row of that is brought to its
trained length m: W' = m * (W + scale * B A) / |W + scale * B A| (arXiv:2402.09353, equation 5).
A part that was trained in full takes the base's place. Computed in float64 from the 16-bit base,
in blocks of rows, and rounded into the base's dtype at the end: where base and update cancel,
float32 would be off by many steps of the result. An output shard has the header of the base's
shard, so it is written in one pass; memory is one tensor as it is stored and one block,
whatever the model's size.

Every adapter tensor must find its layer and every result be finite, else the merge fails: a
merge that silently does nothing is the worst outcome there is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training_backend.errors import UserError
from training_backend.export.tensor_file import (
    FLOATS,
    LARGEST,
    Array,
    TensorFile,
    TensorInfo,
    from_float32,
    to_float32,
)
from training_backend.models.adapters import WEIGHTS, Adapter, beyond_known_lora

PREFIX = "base_model.model."
SAMPLES = 12  # merged tensors recomputed from the written files
BLOCK_VALUES = 2_000_000  # of a weight in work at once, as float64


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
        base: the base model's safetensors files.
        on_progress: called with the share done, from 0 to 1, after every tensor; what it
            raises ends the merge.

    Returns the number of weights that were changed. Raises `UserError` for an adapter that
    does not fit or holds numbers that are none, `OSError` when the disk is full.
    """
    with ExitStack() as open_files:
        source = open_files.enter_context(TensorFile(adapter.folder / WEIGHTS))
        changes = _changes(source, adapter.config)
        unused = set(changes)
        total = sum(path.stat().st_size for path in base)
        done = 0
        for path in base:
            with TensorFile(path) as shard, (out / path.name).open("wb") as target:
                target.write(shard.head)
                for tensor in shard.tensors:
                    data = shard.read_bytes(tensor)
                    change = changes.get(tensor.name)
                    if change is not None:
                        unused.discard(tensor.name)
                        data = _merged(data, tensor, change, source)
                    target.write(data)
                    done += tensor.size
                    on_progress(min(1.0, done / total))
        if unused:
            raise _misfit(f"there is no weight {min(unused)} in the base model")
    return len(changes)


def check_sample(base: list[Path], adapter: Adapter, out: Path) -> float:
    """Recompute some merged tensors in float64 from the files themselves.

    Returns the largest deviation, in units of the output dtype's own rounding step: one half
    is perfect rounding. Raises `UserError` when one is further off than a whole step.
    """
    worst = 0.0
    with ExitStack() as open_files:
        source = open_files.enter_context(TensorFile(adapter.folder / WEIGHTS))
        changes = _changes(source, adapter.config)
        names = sorted(changes)
        sample = set(names[:: max(1, len(names) // SAMPLES)])
        for path in base:
            with TensorFile(path) as before, TensorFile(out / path.name) as after:
                written = {tensor.name: tensor for tensor in after.tensors}
                for tensor in before.tensors:
                    if tensor.name in sample:
                        exact = before.read(tensor).astype(np.float64)
                        exact = _changed(exact, changes[tensor.name], source, slice(None))
                        got = after.read(written[tensor.name]).astype(np.float64)
                        worst = max(worst, _steps_off(got, exact, tensor.dtype))
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


def _merged(data: bytes, tensor: TensorInfo, change: Change, source: TensorFile) -> bytes:
    if tensor.dtype not in FLOATS:
        raise _misfit(f"{tensor.name} of the base model is {tensor.dtype}; a 16-bit base is needed")
    if tensor.shape != change.shape:
        raise _misfit(f"{tensor.name} has another shape in this base model")
    stored = np.frombuffer(data, np.uint8).reshape(tensor.shape[0], -1)
    rows = max(1, BLOCK_VALUES // math.prod(tensor.shape[1:]))
    blocks = []
    for first in range(0, tensor.shape[0], rows):
        block = slice(first, first + rows)
        values = to_float32(stored[block].tobytes(), tensor.dtype).astype(np.float64)
        values = _changed(values.reshape(-1, *tensor.shape[1:]), change, source, block)
        if not (np.abs(values) <= LARGEST[tensor.dtype]).all():  # catches NaN too
            raise _misfit(f"{tensor.name} would not be a finite number")
        blocks.append(from_float32(values.astype(np.float32), tensor.dtype))
    return b"".join(blocks)


def _changed(base: Array, change: Change, source: TensorFile, rows: slice) -> Array:
    """The given rows of a weight after the change, in float64; `base` holds these rows alone."""
    if isinstance(change, TensorInfo):
        whole: Array = source.read_rows(change, rows).astype(np.float64)
        return whole
    values = base + _delta(change, source, rows)
    if change.lengths is not None:
        wanted: Array = source.read_rows(change.lengths, rows).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # refused, as not finite
            values *= (wanted / np.linalg.norm(values, axis=1))[:, None]
    return values


def _delta(update: Update, source: TensorFile, rows: slice) -> Array:
    """The given rows of scale * B A, in float64."""
    a: Array = source.read(update.a).astype(np.float64)
    b: Array = source.read_rows(update.b, rows).astype(np.float64)
    return (b @ a) * update.scale


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
