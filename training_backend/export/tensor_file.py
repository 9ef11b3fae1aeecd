"""safetensors files, one tensor at a time, with numpy and plain reads.

A file is an 8-byte little-endian header length, a JSON header, then the tensors' bytes. We
read it by hand because a merge must not hold more than one tensor: memory-mapped pages count
as ours, and the library writes whole files from memory only. bfloat16, which numpy lacks, is
the upper half of a float32.

Format: https://huggingface.co/docs/safetensors (section "Format").
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from training_backend.errors import UserError

FLOATS = ("BF16", "F16", "F32")
WIDTHS = {"BF16": 2, "F16": 2, "F32": 4}
_EXPONENTS: dict[str, tuple[Any, int]] = {
    "BF16": (np.uint16, 0x7F80), "F16": (np.uint16, 0x7C00), "F32": (np.uint32, 0x7F800000),
}  # fmt: skip
LARGEST = {"BF16": 3.3895313892515355e38, "F16": 65504.0, "F32": 3.4028234663852886e38}
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorInfo:
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # byte offset in the file
    size: int  # bytes


# As a model's config names them.
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


class TensorFile:
    """An open safetensors file. Use as a context manager.

    Raises `UserError` when the header or the length of the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("rb")
        self._lock = threading.Lock()
        try:
            self.head = self._file.read(8)
            length = int.from_bytes(self.head, "little")
            if length > 100_000_000:
                raise ValueError("header too long")
            raw = self._file.read(length)
            self.head += raw
            entries = json.loads(raw)
            entries.pop("__metadata__", None)
            data = 8 + length
            self.tensors = sorted(
                (
                    TensorInfo(
                        name,
                        entry["dtype"],
                        tuple(entry["shape"]),
                        data + entry["data_offsets"][0],
                        entry["data_offsets"][1] - entry["data_offsets"][0],
                    )
                    for name, entry in entries.items()
                ),
                key=lambda tensor: tensor.start,
            )
            end = data
            for tensor in self.tensors:
                width = WIDTHS.get(tensor.dtype)
                if tensor.start != end or (
                    width and tensor.size != width * math.prod(tensor.shape)
                ):
                    raise ValueError(f"{tensor.name} is not where its head says")
                end += tensor.size
            if path.stat().st_size != end:
                raise ValueError("the file is cut short")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._file.close()
            raise _damaged(path, error) from None

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_bytes(self, tensor: TensorInfo) -> bytes:
        return self._read_at(tensor.start, tensor.size)

    def read_row_bytes(self, tensor: TensorInfo, rows: slice) -> bytes:
        """Some rows of a tensor, as `row_count` counts them, as they are stored."""
        count = row_count(tensor.shape)
        first, end, _ = rows.indices(count)
        # By the share: some types take less than a byte for a value.
        start, stop = (row * tensor.size // max(1, count) for row in (first, end))
        return self._read_at(tensor.start + start, stop - start)

    def read(self, tensor: TensorInfo) -> Array:
        """The tensor as float32, shaped. Only for the dtypes in `FLOATS`."""
        return to_float32(self.read_bytes(tensor), tensor.dtype).reshape(tensor.shape)

    def read_rows(self, tensor: TensorInfo, rows: slice) -> Array:
        """Some rows of `read`, and nothing else from the disk; as many axes as a row has."""
        values = to_float32(self.read_row_bytes(tensor, rows), tensor.dtype)
        return values.reshape(-1, tensor.shape[-1]) if len(tensor.shape) > 1 else values

    def _read_at(self, place: int, size: int) -> bytes:
        """May be called by several threads at once."""
        pieces: list[bytes] = []
        while size:  # one call reads 2 GB at the most
            if sys.platform == "win32":
                with self._lock:
                    self._file.seek(place)
                    piece = self._file.read(size)
            else:
                piece = os.pread(self._file.fileno(), size, place)
            if not piece:
                raise _damaged(self.path, "it was cut short while it was read")
            place, size = place + len(piece), size - len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def row_count(shape: tuple[int, ...]) -> int:
    """A row is one run along the last axis; of a tensor with one axis or none, one value."""
    return math.prod(shape[:-1]) if len(shape) > 1 else math.prod(shape)


def _damaged(path: Path, reason: object) -> UserError:
    return UserError(
        "weights_damaged",
        "{path} is damaged ({reason}).",
        "Download or train it again.",
        path=path,
        reason=reason,
    )


def to_float32(data: bytes, dtype: str) -> Array:
    match dtype:
        case "BF16":
            bits = np.frombuffer(data, np.uint16).astype(np.uint32)
            bits <<= np.uint32(16)
            return bits.view(np.float32)
        case "F16":
            return np.frombuffer(data, np.float16).astype(np.float32)
        case "F32":
            return np.frombuffer(data, np.float32)
    raise ValueError(f"{dtype} holds no plain floats")


def from_float32(values: Array, dtype: str) -> Array:
    """Rounded to nearest, ties to even, as torch does; the values must be finite.

    Returns the stored bytes as an array of 2 or 4 bytes an element.
    """
    values = np.ascontiguousarray(values, np.float32)
    match dtype:
        case "BF16":
            bits = values.view(np.uint32)
            rounded: Array = bits >> np.uint32(16)
            rounded &= np.uint32(1)
            rounded += np.uint32(0x7FFF)
            rounded += bits
            rounded >>= np.uint32(16)
            return rounded.astype(np.uint16)
        case "F16":
            return values.astype(np.float16)
        case "F32":
            return values
    raise ValueError(f"{dtype} holds no plain floats")


def is_within(values: Array, dtype: str) -> bool:
    """Whether all values are numbers that the type can hold."""
    if not values.size:
        return True
    with np.errstate(invalid="ignore"):
        return bool(max(values.max(), -values.min()) <= LARGEST[dtype])


def is_finite(data: bytes, dtype: str) -> bool:
    """Whether stored floats are all numbers: an exponent of ones only is infinity, or none."""
    kind, exponent = _EXPONENTS[dtype]
    bits = np.frombuffer(data, kind) & kind(exponent)
    return not bits.size or bool(bits.max() < exponent)
