"""A model's layers in 4 bits, by bitsandbytes, in a process that may import torch.

Which layers, and every number of them, as transformers makes it when it loads the model with a
`BitsAndBytesConfig` (NF4, double quantisation) and saves it again. NF4: each value of a block of
64 becomes one of 16 levels between minus and plus the block's largest (QLoRA, arXiv:2305.14314,
section 3); the blocks' largest become 8-bit numbers, in blocks of 256. Memory is one layer in
4 bits, and half a million numbers in work by each thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export.child import Tell
from training_backend.export.shards import INDEX
from training_backend.export.tensor_file import FLOATS, TensorFile, TensorInfo
from training_backend.models.model_folder import dtype_name, read_model_config, weight_files
from training_backend.models.model_kinds import without_code

BLOCK, NESTED_BLOCK = 64, 256
CHUNK_VALUES = 1 << 19  # quantised at once by a thread, about
MOST_THREADS = 8
M_MMAP_THRESHOLD = -3  # of malloc.h
COPY_BYTES = 1 << 24
TOLD_SECONDS = 0.5

_TORCH_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True)
class Plan:
    """What a model in 4 bits will be.

    Attributes:
        layers: the names of the weights that get 4 bits; True for those that are stored
            transposed.
        size: bytes of all weights, within a thousandth.
        settings: what `config.json` says of it, under `quantization_config`.
    """

    layers: dict[str, bool]
    size: int
    settings: dict[str, Any]


def plan(model: str, tensors: list[TensorInfo]) -> Plan:
    """Look what a model will be in 4 bits, before its weights are there.

    Args:
        model: a folder with the model's `config.json`.
        tensors: the weights that it will have.

    Raises `UserError`.
    """
    import bitsandbytes as bnb
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

    config = without_code(read_model_config(Path(model), alone=True))
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_compute_type(config),
    )
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(
            CONFIG_MAPPING[config["model_type"]].from_dict(config), trust_remote_code=False
        )
    Bnb4BitHfQuantizer(settings, pre_quantized=False).preprocess_model(skeleton, device_map=None)
    layers = {
        f"{name}.weight": issubclass(module.source_cls, Conv1D)
        for name, module in skeleton.named_modules()
        if isinstance(module, bnb.nn.Linear4bit)
    }
    _check(layers, tensors)
    size = sum(_planned_bytes(tensor, tensor.name in layers) for tensor in tensors)
    return Plan(layers, size, json.loads(settings.to_json_string(use_diff=False)))


def quantise(tell: Tell, model: str, out: str, planned: Plan, shard_bytes: int) -> None:
    """Write the weights of a model folder with its layers in 4 bits.

    Args:
        model: a folder with safetensors of 16 or 32 bits.
        out: a folder that is there; gets `model.safetensors`, or several and their index.
        planned: of this model, as by `plan`.
        shard_bytes: a file becomes no larger, unless one weight alone is.

    Raises `UserError`, `OSError`.
    """
    _give_memory_back()
    files = weight_files(Path(model))
    tensors = [(path, tensor) for path in files for tensor in read_tensors(path)]
    _check(planned.layers, [tensor for _, tensor in tensors])
    shards = list(_shards(tensors, planned.layers, shard_bytes))
    total = sum(tensor.size for _, tensor in tensors)
    done, told = 0, 0.0
    names: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        target = Path(out, file if len(shards) > 1 else "model.safetensors")
        with ExitStack() as stack:
            sources = {path: stack.enter_context(TensorFile(path)) for path, _ in shard}
            writer = stack.enter_context(_Shard(target, [t for _, t in shard], planned.layers))
            for path, tensor in shard:
                if tensor.name in planned.layers:
                    parts = _quantised(sources[path], tensor, planned.layers[tensor.name])
                    for suffix, part in parts.items():
                        writer.put(tensor.name + suffix, part)
                else:
                    writer.copy(path, tensor)
                done += tensor.size
                if time.monotonic() - told > TOLD_SECONDS:
                    told = time.monotonic()
                    tell(done / total, "")
            names.update(dict.fromkeys(writer.finish(), target.name))
    if len(shards) > 1:
        index = {"metadata": {"total_size": planned.size}, "weight_map": names}
        Path(out, INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _give_memory_back() -> None:
    """glibc keeps what was freed, for every thread; large pieces are to go back at once."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1_000_000)


def _compute_type(config: dict[str, Any]) -> str:
    """Numbers are computed as the model's other weights are; in 16 bits where those have 32."""
    name = dtype_name(config)
    return name if name in ("bfloat16", "float16") else "bfloat16"


def read_tensors(path: Path) -> list[TensorInfo]:
    """What a safetensors file holds. Raises `UserError` for a damaged one."""
    with TensorFile(path) as file:
        return file.tensors


def _check(layers: dict[str, bool], tensors: list[TensorInfo]) -> None:
    known = {tensor.name: tensor for tensor in tensors}
    missing = sorted(set(layers) - set(known))
    if not layers or missing:
        found = f"there is no weight {missing[0]} in its files" if missing else "it has no layers"
        raise refused(f"{found} that bitsandbytes could quantise")
    for name in layers:
        if known[name].dtype not in FLOATS or len(known[name].shape) != 2:
            raise refused(f"{name} is {known[name].dtype} of shape {list(known[name].shape)}")


def _shards(
    tensors: list[tuple[Path, TensorInfo]], layers: dict[str, bool], most: int
) -> Iterator[list[tuple[Path, TensorInfo]]]:
    """The tensors in their order, in groups of so many bytes when they are written."""
    group: list[tuple[Path, TensorInfo]] = []
    size = 0
    for path, tensor in tensors:
        planned = _planned_bytes(tensor, tensor.name in layers)
        if group and size + planned > most:
            yield group
            group, size = [], 0
        group.append((path, tensor))
        size += planned
    yield group


def _planned_bytes(tensor: TensorInfo, in_4_bits: bool) -> int:
    if not in_4_bits:
        return tensor.size
    parts = _parts(tensor.shape).values()
    return sum(math.prod(shape) * width for _, shape, width in parts) + _STATE_BYTES


_STATE_BYTES = 200  # about; a little JSON with the layer's shape and one number


def _parts(shape: tuple[int, ...]) -> dict[str, tuple[str, list[int], int]]:
    """What a layer consists of but its last part, by suffix: type, shape, bytes of a number."""
    values = math.prod(shape)
    blocks = -(values // -BLOCK)
    return {
        "": ("U8", [(values + 1) // 2, 1], 1),
        ".absmax": ("U8", [blocks], 1),
        ".nested_absmax": ("F32", [-(blocks // -NESTED_BLOCK)], 4),
        ".nested_quant_map": ("F32", [256], 4),
        ".quant_map": ("F32", [16], 4),
    }


def _quantised(file: TensorFile, tensor: TensorInfo, transposed: bool) -> dict[str, bytes]:
    """A layer's parts by suffix.

    bitsandbytes' own way takes ten times the layer's memory; blocks are independent, so we give
    it a few rows at a time, and then do with their largest values as it does.
    """
    import torch
    from bitsandbytes import functional as bnb

    dtype = getattr(torch, _TORCH_TYPES[tensor.dtype])
    height, width = tensor.shape

    def piece(rows: slice) -> tuple[Any, Any]:
        values = torch.frombuffer(bytearray(file.read_row_bytes(tensor, rows)), dtype=dtype)
        if transposed:
            values = values.reshape(height, width).T.contiguous().reshape(-1)
        codes, state = bnb.quantize_4bit(values, blocksize=BLOCK, quant_type="nf4")
        return codes, state.absmax

    step = height if transposed else BLOCK * max(1, CHUNK_VALUES // (BLOCK * width))
    slices = [slice(first, first + step) for first in range(0, height, step)]
    # Each works alone, since so small pieces are not worth sharing out. What this thread computes
    # is shared out as always, which asking fixes: a mean depends on it in its last bit.
    count = min(torch.get_num_threads(), MOST_THREADS)
    with ThreadPoolExecutor(count, "quantise", torch.set_num_threads, (1,)) as threads:
        codes, largest = zip(*threads.map(piece, slices), strict=True)
    absmax = torch.cat(largest)
    offset = absmax.mean()
    nested, nested_state = bnb.quantize_blockwise(absmax - offset, blocksize=NESTED_BLOCK)
    whole = bnb.QuantState(
        absmax=nested,
        shape=torch.Size((width, height) if transposed else (height, width)),
        code=bnb.get_4bit_type("nf4", device="cpu"),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=offset,
        state2=nested_state,
    )
    found = {"": torch.cat(codes)}
    found.update({f".{key}": part for key, part in whole.as_dict(packed=True).items()})
    return {key: part.contiguous().numpy().tobytes() for key, part in found.items()}


class _Shard:
    """A safetensors file whose tensors come in any order. Use as a context manager.

    Wider numbers lie before narrower ones, so that each is aligned to its own width; the one part
    of a layer whose length is not known before it is made comes last. Room for the head is kept.
    """

    def __init__(self, path: Path, tensors: list[TensorInfo], layers: dict[str, bool]) -> None:
        entries: list[tuple[int, str, str, list[int]]] = []  # bytes of a number, name, type, shape
        for tensor in tensors:
            if tensor.name in layers:
                for suffix, (kind, shape, width) in _parts(tensor.shape).items():
                    entries.append((width, tensor.name + suffix, kind, shape))
            else:
                width = tensor.size // max(1, math.prod(tensor.shape))
                entries.append((width, tensor.name, tensor.dtype, list(tensor.shape)))
        self._head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._end = 0
        for width, name, kind, shape in sorted(entries, key=lambda entry: -entry[0]):
            self._add(name, kind, shape, width * math.prod(shape))
        in_4_bits = sum(tensor.name in layers for tensor in tensors)
        longest = max(len(tensor.name) for tensor in tensors)
        room = len(json.dumps(self._head)) + in_4_bits * (longest + 200)
        self._data = 8 + room + -room % 8
        self._last: dict[str, bytes] = {}
        self._file = path.open("wb")

    def __enter__(self) -> _Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def put(self, name: str, data: bytes) -> None:
        """Write a tensor; one that was not planned comes to the end."""
        if name not in self._head:
            self._last[name] = data
            return
        first, end = self._head[name]["data_offsets"]
        if len(data) != end - first:
            raise ValueError(f"{name} has {len(data)} bytes instead of {end - first}")
        self._file.seek(self._data + first)
        self._file.write(data)

    def copy(self, path: Path, tensor: TensorInfo) -> None:
        """Write a tensor as it is in another file."""
        self._file.seek(self._data + self._head[tensor.name]["data_offsets"][0])
        with path.open("rb") as source:
            source.seek(tensor.start)
            left = tensor.size
            while left:
                data = source.read(min(left, COPY_BYTES))
                if not data:
                    raise refused(f"{path.name} is cut short")
                self._file.write(data)
                left -= len(data)

    def finish(self) -> list[str]:
        """Write what is left, and the head; returns the names of all tensors."""
        for name, data in self._last.items():
            self._add(name, "U8", [len(data)], len(data))
            self._file.seek(self._data + self._end - len(data))
            self._file.write(data)
        text = json.dumps(self._head).encode().ljust(self._data - 8)
        assert len(text) == self._data - 8
        self._file.seek(0)
        self._file.write(len(text).to_bytes(8, "little") + text)
        return [name for name in self._head if name != "__metadata__"]

    def _add(self, name: str, kind: str, shape: list[int], size: int) -> None:
        offsets = [self._end, self._end + size]
        self._head[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        self._end += size


def refused(reason: str) -> UserError:
    return UserError(
        "four_bit_refused",
        "This model cannot be written in 4 bits: {reason}.",
        "Export it as a whole model (safetensors) instead.",
        field="format",
        reason=reason,
    )
