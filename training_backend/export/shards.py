"""A model's weight files, written tensor by tensor, block by block, in bounded memory.

The caller says what each tensor of the result is called and how some of its rows are made; here
they are laid out in files, made by a few threads side by side, and written in order. Memory is
a few blocks, whatever the size of the model or of its largest tensor. A file is on the disk, and
its hash noted, before it counts as whole.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from training_backend.errors import UserError
from training_backend.export.tensor_file import (
    FLOATS,
    WIDTHS,
    Array,
    TensorFile,
    TensorInfo,
    from_float32,
    is_within,
)
from training_backend.files import write_json_atomic

INDEX = "model.safetensors.index.json"
BLOCK_VALUES = 256 * 1024  # made at once by one thread; its temporaries fit the processor's cache
FLUSH_BYTES = 128 * 2**20  # handed to the disk while more is made
MOST_THREADS = 4

Rows = Callable[[slice], bytes | Array]  # the stored bytes of some rows; called by several threads


@dataclass(frozen=True)
class OutTensor:
    """A tensor of the result.

    A row is one run along the last axis; of a tensor with one axis or none, one value.
    """

    name: str
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    size: int  # bytes
    file: str  # the base's file that it belongs to
    open: Callable[[], Rows]  # called once, when its turn comes


@dataclass(frozen=True)
class Shard:
    """A file to be."""

    name: str
    tensors: tuple[OutTensor, ...]

    @property
    def size(self) -> int:
        return len(self.head()) + sum(tensor.size for tensor in self.tensors)

    def head(self) -> bytes:
        """What precedes the tensors' bytes, padded with spaces to a multiple of 8."""
        entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for tensor in self.tensors:
            entries[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "data_offsets": [offset, offset + tensor.size],
            }
            offset += tensor.size
        head = json.dumps(entries, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        return len(head).to_bytes(8, "little") + head


def converted(file: TensorFile, tensor: TensorInfo, dtype: str) -> OutTensor:
    """A tensor of an open file as it is, but for plain floats, which get another type.

    Its rows raise `UserError` for a value that is no number or too large for that.
    """
    if tensor.dtype not in FLOATS or tensor.dtype == dtype:
        rows: Rows = partial(file.read_row_bytes, tensor)
        dtype, size = tensor.dtype, tensor.size
    else:
        rows = partial(_in_other_type, file, tensor, dtype)
        size = WIDTHS[dtype] * math.prod(tensor.shape)
    return OutTensor(tensor.name, dtype, tensor.shape, size, file.path.name, lambda: rows)


def _in_other_type(file: TensorFile, tensor: TensorInfo, dtype: str, rows: slice) -> Array:
    values = file.read_rows(tensor, rows)
    if not is_within(values, dtype):
        raise UserError(
            "weights_not_finite",
            "{name} in {path} holds numbers that are none, or too large.",
            "Choose an earlier checkpoint.",
            name=tensor.name,
            path=file.path,
        )
    return from_float32(values, dtype)


def plan(tensors: list[OutTensor], max_bytes: int | None = None) -> list[Shard]:
    """Lays tensors out in files, in their order.

    Args:
        max_bytes: the most that a file may hold, unless a single tensor is larger; None: in
            files of the same names as the base's.

    The names are those that transformers gives, and the same for the same tensors.
    """
    groups: list[list[OutTensor]] = []
    for tensor in tensors:
        if groups and _goes_along(tensor, groups[-1], max_bytes):
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
    if max_bytes is None:
        return [Shard(group[0].file, tuple(group)) for group in groups]
    count = len(groups)
    names = [f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]
    names = names if count > 1 else ["model.safetensors"]
    return [Shard(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def _goes_along(tensor: OutTensor, group: list[OutTensor], max_bytes: int | None) -> bool:
    if max_bytes is None:
        return tensor.file == group[-1].file
    return tensor.size + sum(one.size for one in group) <= max_bytes


def write_index(shards: list[Shard], folder: Path) -> None:
    """Which file holds which tensor; one file alone needs none."""
    if len(shards) == 1:
        return
    tensors = [(tensor, shard.name) for shard in shards for tensor in shard.tensors]
    total = sum(tensor.size for tensor, _ in tensors)
    names = {tensor.name: name for tensor, name in tensors}
    write_json_atomic(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": names})


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a tensor, as `OutTensor` counts them, so many at a time as are made at once."""
    count = math.prod(shape[:-1]) if len(shape) > 1 else math.prod(shape)
    width = shape[-1] if len(shape) > 1 else 1
    step = max(1, BLOCK_VALUES // max(1, width))
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def write(shard: Shard, path: Path, on_block: Callable[[int], None]) -> str:
    """Writes a file, has it on the disk and reads it again.

    Args:
        on_block: called with the bytes that were added, after every block; what it raises ends
            the writing.

    Returns the file's hash, as `hash_file` gives it. Raises what making a row raises, `OSError`
    when the disk is full, and `UserError` when something else is read than was written.
    """
    # Where glibc never had a large block back it returns every one of a few megabytes to the
    # system, and asks for the next one page by page: a third of the time.
    np.empty(24 * 2**20, np.uint8)
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    digest = xxhash.xxh3_128()
    with (
        path.open("wb") as file,
        _Follower(path) as follower,
        ThreadPoolExecutor(threads, "rows") as makers,
    ):
        head = shard.head()
        file.write(head)
        digest.update(head)
        since = 0
        for block in _in_order(makers, _blocks(shard), ahead=2 * threads):
            file.write(block)
            digest.update(block)
            since += len(block)
            if since >= FLUSH_BYTES and follower.is_idle():
                file.flush()
                follower.follow()
                since = 0
            on_block(len(block))
        file.flush()
        os.fsync(file.fileno())
        if follower.whole() != digest.hexdigest():
            raise UserError(
                "written_wrong",
                "The file {name} was read otherwise than it was written.",
                "Try again; if it stays so, the disk or the memory may be faulty.",
                name=path.name,
            )
    return digest.hexdigest()


class _Follower:
    """Has a growing file on the disk, and reads what is there of it, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb+")  # Windows flushes no handle that was opened for reading
        self._digest = xxhash.xxh3_128()
        self._pool = ThreadPoolExecutor(1, "flush")
        self._under_way: Future[None] | None = None

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._file.close()

    def is_idle(self) -> bool:
        return self._under_way is None or self._under_way.done()

    def follow(self) -> None:
        """Begin with what was added. Raises `OSError` for what was wrong before."""
        self._wait()
        self._under_way = self._pool.submit(self._catch_up)

    def whole(self) -> str:
        """The hash of the finished file. Raises `OSError`."""
        self._wait()
        _read_into(self._digest, self._file)
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _catch_up(self) -> None:
        (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._file.fileno())
        _read_into(self._digest, self._file)


def hash_file(path: Path) -> str:
    """XXH3 of a file, 128 bits in hex: against damage, not against malice."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        _read_into(digest, file)
    return digest.hexdigest()


def _read_into(digest: xxhash.xxh3_128, file: BinaryIO) -> None:
    while piece := file.read(2**20):
        digest.update(piece)


def _blocks(shard: Shard) -> Iterator[Callable[[], memoryview]]:
    """What makes the file's bytes after its head, piece by piece."""
    for tensor in shard.tensors:
        rows = tensor.open()
        for block in row_blocks(tensor.shape):
            yield partial(_made, rows, block)


def _made(rows: Rows, block: slice) -> memoryview:
    return memoryview(rows(block)).cast("B")  # type: ignore[arg-type]


def _in_order(
    pool: ThreadPoolExecutor, tasks: Iterator[Callable[[], memoryview]], ahead: int
) -> Iterator[memoryview]:
    """The tasks' results in the tasks' order, some of them made ahead."""
    waiting: deque[Future[memoryview]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
