"""An adapter as a GGUF file, which llama.cpp puts over the base model's (`--lora`).

The file holds the halves A and B of every update, and llama.cpp adds alpha / r * B A to what each
layer computes. llama.cpp lays out some weights otherwise than transformers: the rows of a Llama's
queries and keys are in another order. The converter that writes the base model knows which; it is
given numbered rows here, and what it does to them is done to B. What is not a reordering of rows
cannot be expressed so and is refused.

Format: https://github.com/ggml-org/llama.cpp/blob/master/convert_lora_to_gguf.py
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training_backend.errors import UserError
from training_backend.export import changes, gguf_export, gguf_tools, merge
from training_backend.export.changes import Update
from training_backend.export.model_files import base_config, base_weights, find_base
from training_backend.export.tensor_file import TensorFile
from training_backend.models.adapters import WEIGHTS, Adapter
from training_backend.paths import require_free
from training_backend.worker import Reporter

RANK_STEP = 8


@dataclass(frozen=True)
class Layer:
    """The update of one weight: scale * B A.

    Attributes:
        weight: its name in the base model's files.
        a, b: the names of the adapter's tensors.
        shape: outputs, inputs.
    """

    weight: str
    a: str
    b: str
    rank: int
    scale: float
    shape: tuple[int, int]

    @property
    def padded(self) -> int:
        """The rank in the file: some engines compute nonsense with one that is no multiple of 8."""
        return -(-self.rank // RANK_STEP) * RANK_STEP


def write(adapter: Adapter, out: Path, name: str, reporter: Reporter) -> None:
    """Write the adapter into the folder `out`. Raises `UserError`; `StopRequested`.

    Args:
        name: what programs show, and the file is called.
    """
    base = find_base(adapter, reporter)
    layers = _layers(adapter, base)
    require_free(out, 2 * (adapter.folder / WEIGHTS).stat().st_size + 50_000_000, "the adapter")
    reporter.phase("converting", detail="the adapter")
    target = out / f"{name}-LoRA.gguf"
    gguf_export.in_tools_process(
        convert, str(adapter.folder), str(base), str(target), name, layers,
        meanwhile=reporter.check_stop,
    )  # fmt: skip
    reporter.log(f"{len(layers)} updates written; put it on a GGUF file of the base model itself.")


def _layers(adapter: Adapter, base: Path) -> list[Layer]:
    """Every update. Raises `UserError` for what has no place in a file."""
    with merge.Merge(base_weights(base), adapter, base_config(base)) as merged:
        found = merged.changes  # each fits its weight
    if found.added:
        raise _refused(f"it changes {min(found.added)}, which is tied to another weight")
    layers = []
    for name, change in found.of.items():
        update = _plain(name, change)
        (rank, inputs), outputs = update.a.shape, update.b.shape[0]
        layers.append(
            Layer(name, update.a.name, update.b.name, rank, update.scale, (outputs, inputs))
        )
    return layers


def _plain(name: str, change: changes.Change) -> Update:
    """An update that is B A and nothing else. Raises `UserError` with the reason."""
    match change:
        case Update(lengths=None, transposed=False, expert=None, start=None):
            return change
        case Update(lengths=lengths) if lengths is not None:
            raise _refused("it was trained with DoRA")
        case changes.Shift():
            raise _refused(f"it changes biases ({name})")
        case changes.Whole() | changes.Tokens():
            raise _refused(f"{name} was trained in full")
        case _:
            raise _refused(f"it changes {name}, which no such file can hold")


def _refused(reason: str) -> UserError:
    return UserError(
        "gguf_adapter_refused",
        "This adapter cannot be a GGUF adapter: {reason}.",
        "Export the whole model as a GGUF file instead.",
        field="format",
        reason=reason,
    )


# --- in a process of its own, with torch ------------------------------------------------


def convert(adapter: str, base: str, target: str, name: str, layers: list[Layer]) -> None:
    """Write the file. Raises `UserError`.

    Args:
        adapter, base: folders; of the base only what is beside the weights is read.
    """
    with gguf_tools.converter(Path(base), target, "f16", name) as family:
        places = _Places(family)
        placed = {layer: places.find(layer) for layer in layers}
    import gguf

    # One number for the whole file; where a layer has another, B makes up for it.
    alpha = Counter(layer.scale * layer.padded for layer in layers).most_common(1)[0][0]
    writer = gguf.GGUFWriter(target, gguf.MODEL_ARCH_NAMES[family.model_arch])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    with TensorFile(Path(adapter) / WEIGHTS) as file:
        halves = {tensor.name: tensor for tensor in file.tensors}
        for layer, (place, _) in placed.items():
            outputs, inputs = layer.shape
            for end, shape in (("a", (layer.padded, inputs)), ("b", (outputs, layer.padded))):
                size = 4 * shape[0] * shape[1]
                writer.add_tensor_info(f"{place}.lora_{end}", shape, np.dtype(np.float32), size)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for layer, (_, order) in placed.items():
            a, b = file.read(halves[layer.a]), file.read(halves[layer.b])[order]
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise _refused(f"the update of {layer.weight} holds numbers that are none")
            more = layer.padded - layer.rank
            b = b * np.float32(layer.scale * layer.padded / alpha if alpha else 0)
            writer.write_tensor_data(np.pad(a, ((0, more), (0, 0))))
            writer.write_tensor_data(np.pad(b, ((0, 0), (0, more))))
    writer.close()


class _Places:
    """Where the converter of a family of models puts each weight."""

    def __init__(self, family: Any) -> None:
        self._family = family
        self._orders: dict[tuple[str, tuple[int, int]], npt.NDArray[np.int64]] = {}

    def find(self, layer: Layer) -> tuple[str, npt.NDArray[np.int64]]:
        """What llama.cpp calls a weight, and which of its rows each row becomes.

        Raises `UserError` where the converter does more to it than put its rows in order.
        """
        import torch

        number = re.search(r"\.(\d+)\.", layer.weight)
        block = int(number[1]) if number else None
        kind = re.sub(r"\d+", "", layer.weight), layer.shape
        try:
            if kind not in self._orders:
                self._orders[kind] = self._order(layer, block)
            nothing = torch.zeros(layer.shape[0], 1)
            [(name, _)] = self._family.modify_tensors(nothing, layer.weight, block)
        except (ValueError, RuntimeError, LookupError, AssertionError) as error:
            raise _refused(f"llama.cpp holds {layer.weight} in another way") from error
        return name, self._orders[kind]

    def _order(self, layer: Layer, block: int | None) -> npt.NDArray[np.int64]:
        """All layers of a kind are alike, so one of each is looked at."""
        import torch

        outputs, inputs = layer.shape
        rows = torch.arange(outputs, dtype=torch.float32)[:, None].expand(outputs, inputs)
        columns = torch.arange(inputs, dtype=torch.float32).expand(outputs, inputs)
        [(_, by_row)] = self._family.modify_tensors(rows, layer.weight, block)
        [(_, by_column)] = self._family.modify_tensors(columns, layer.weight, block)
        order = by_row[:, 0].long()
        if not (
            by_row.shape == by_column.shape == layer.shape
            and torch.equal(order.sort().values, torch.arange(outputs))
            and torch.equal(by_row, by_row[:, :1].expand(outputs, inputs))
            and torch.equal(by_column, columns)
        ):
            raise ValueError("not an order of rows")
        return order.numpy()
