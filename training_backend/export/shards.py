"""A model's weight files, written tensor by tensor, block by block, in bounded memory.

The caller says what each tensor of the result is called and how some of its rows are made; here
they are laid out in files, and made and written by a few threads side by side. Memory is a few
blocks, whatever the size of the model or of its largest tensor. A file is on the disk, read again,
and its hash noted, before it counts as whole.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

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
    row_count,
)
from training_backend.files import write_json_atomic

INDEX = "model.safetensors.index.json"
# Made at once by one thread. With fewer the threads wait for one another in Python, with more
# what is made on the way leaves the processor's cache.
BLOCK_VALUES = 512 * 1024
PIECE_BLOCKS = 8  # written by one thread, one after the other
PIECES_AHEAD = 8  # what waits may hold a tensor each
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
    """The rows of a tensor, as `OutTensor` counts them, so many at a time as are made at once.

    Rows without a value are none.
    """
    count = row_count(shape) if math.prod(shape) else 0
    width = shape[-1] if len(shape) > 1 else 1
    step = max(1, BLOCK_VALUES // max(1, width))
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def write(shard: Shard, path: Path, on_piece: Callable[[int], None]) -> str:
    """Writes a file, has it on the disk and reads it again.

    Args:
        on_piece: called with the bytes that were added, now and then; what it raises ends the
            writing.

    Returns the file's hash, as `hash_file` gives it. Raises what making a row raises, `OSError`
    when the disk is full, and `UserError` when something else is read than was written.
    """
    # Where glibc never had a large block back it returns every one of a few megabytes to the
    # system, and asks for the next one page by page: a third of the time.
    np.empty(24 * 2**20, np.uint8)
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    head = shard.head()
    with (
        path.open("wb", buffering=0) as file,
        _Follower(path, file, head) as follower,
        ThreadPoolExecutor(threads, "rows") as makers,
    ):
        _take_room(file, shard.size)
        target = _Target(file)
        written = len(head)
        for piece in _in_order(makers, _pieces(shard, target, len(head)), PIECES_AHEAD):
            follower.add(piece)
            written += piece.size
            on_piece(piece.size)
        if written != shard.size:
            raise RuntimeError(f"{written} bytes were made for {path.name}, not {shard.size}")
        # The head comes last: until then no program takes the file for a whole one.
        target.write(0, [head])
        os.fsync(file.fileno())
        return follower.whole()


def _take_room(file: FileIO, size: int) -> None:
    """Set the room for a file aside: it is written quicker, and a full disk shows at once.

    On Linux, and on drives that can: `os.posix_fallocate` would write zeros on the others.
    """
    if sys.platform == "linux":
        taken = ctypes.CDLL(None, use_errno=True).fallocate
        taken.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if taken(file.fileno(), 0, 0, size) and ctypes.get_errno() == errno.ENOSPC:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True)
class _Piece:
    """Bytes that were written, and their XXH3."""

    size: int
    digest: bytes


class _Target:
    """A new file that several threads write, each at its own place."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, start: int, blocks: Iterable[bytes | Array]) -> _Piece:
        digest = xxhash.xxh3_128()
        place = start
        for block in blocks:
            left = memoryview(block).cast("B")  # type: ignore[arg-type]
            digest.update(left)
            while left:
                written = self._write_at(place, left)
                place, left = place + written, left[written:]
        return _Piece(place - start, digest.digest())

    def _write_at(self, place: int, data: memoryview) -> int:
        if sys.platform != "win32":
            return os.pwrite(self._file.fileno(), data, place)
        with self._lock:
            self._file.seek(place)
            return self._file.write(data)


class _Follower:
    """Has a growing file on the disk, and reads what is there of it, in a thread of its own.

    The head is expected to come last.
    """

    def __init__(self, path: Path, written: FileIO, head: bytes) -> None:
        self._written = written
        self._head = head
        self._file = path.open("rb", buffering=0)
        self._file.seek(len(head))
        self._digest = xxhash.xxh3_128(head)
        self._pool = ThreadPoolExecutor(1, "flush")
        self._under_way: Future[None] | None = None
        self._ahead: list[_Piece] = []  # not followed yet
        self._bytes_ahead = 0

    def __enter__(self) -> _Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._file.close()

    def add(self, piece: _Piece) -> None:
        """The next bytes of the file are there. Raises what was wrong with earlier ones."""
        self._ahead.append(piece)
        self._bytes_ahead += piece.size
        is_idle = self._under_way is None or self._under_way.done()
        if is_idle and self._bytes_ahead >= FLUSH_BYTES:
            self._follow()

    def whole(self) -> str:
        """The hash of the file, which is on the disk. Raises `OSError`, or `UserError`."""
        self._wait()
        self._read_again(self._ahead)
        self._file.seek(0)
        if self._file.read(len(self._head)) != self._head:
            raise self._wrong()
        return self._digest.hexdigest()

    def _follow(self) -> None:
        self._wait()
        self._under_way = self._pool.submit(self._catch_up, self._ahead)
        self._ahead, self._bytes_ahead = [], 0

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _catch_up(self, pieces: list[_Piece]) -> None:
        # On the handle that wrote: Windows flushes no other.
        (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(self._written.fileno())
        self._read_again(pieces)

    def _read_again(self, pieces: list[_Piece]) -> None:
        room = memoryview(bytearray(max((piece.size for piece in pieces), default=0)))
        for piece in pieces:
            data = room[: self._read_into(room[: piece.size])]
            self._digest.update(data)
            if xxhash.xxh3_128_digest(data) != piece.digest:
                raise self._wrong()

    def _read_into(self, room: memoryview) -> int:
        """As much as there is, and there is room for."""
        size = 0
        while read := self._file.readinto(room[size:]):
            size += read
        return size

    def _wrong(self) -> UserError:
        return UserError(
            "written_wrong",
            "The file {name} was read otherwise than it was written.",
            "Try again; if it stays so, the disk or the memory may be faulty.",
            name=Path(self._file.name).name,
        )


def hash_file(path: Path) -> str:
    """XXH3 of a file, 128 bits in hex: against damage, not against malice."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(shard: Shard, target: _Target, start: int) -> Iterator[Callable[[], _Piece]]:
    """What makes and writes the file's bytes from `start` on, piece by piece."""
    for tensor in shard.tensors:
        rows = tensor.open()
        blocks = list(row_blocks(tensor.shape))
        for first in range(0, len(blocks), PIECE_BLOCKS):
            some = blocks[first : first + PIECE_BLOCKS]
            place = start + some[0].start * tensor.size // row_count(tensor.shape)
            yield partial(target.write, place, map(rows, some))
        start += tensor.size


def _in_order(
    pool: ThreadPoolExecutor, tasks: Iterator[Callable[[], _Piece]], ahead: int
) -> Iterator[_Piece]:
    """The tasks' results in the tasks' order, some of them made ahead."""
    waiting: deque[Future[_Piece]] = deque()
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
