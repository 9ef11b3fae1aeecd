"""Follows what PyTorch's operations allocate, storage by storage. Needs torch."""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import bitsandbytes  # noqa: F401  (it makes torch.ops.bitsandbytes)
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class StorageTracker(TorchDispatchMode):  # type: ignore[misc]
    """Follows every storage that an operation returns until it is freed.

    `live_bytes` and `peak_bytes` count what was made while the mode was on. It serves tensors
    with content just as well. What a kernel takes for itself inside of an operation is not
    seen, but for bitsandbytes' product, which unpacks the whole weight.

    Args:
        on_made: told a number for the storage, its elements and its bytes.
        on_freed: told that number.
    """

    def __init__(
        self,
        on_made: Callable[[int, int, int], None] = lambda number, count, size: None,
        on_freed: Callable[[int], None] = lambda number: None,
    ) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self._on_made, self._on_freed = on_made, on_freed
        self._known: dict[int, int] = {}
        self._numbers = itertools.count(1)
        self._kept: list[Any] = []

    def ignore(self, tensors: Iterable[Any]) -> None:
        """Leave these out, which were there before."""
        for tensor in tensors:
            self._kept.append(tensor.untyped_storage())
            self._known[self._kept[-1]._cdata] = 0

    def number_of(self, tensor: Any) -> int:
        return self._known.get(tensor.untyped_storage()._cdata, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        unpacked = 0
        if func is torch.ops.bitsandbytes.gemm_4bit.default:
            count = math.prod(args[2])
            unpacked = next(self._numbers)
            self._made(unpacked, count, count * args[0].element_size())
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._see(value)
        if unpacked:
            self._freed(0, unpacked, count * args[0].element_size())
        return result

    def _see(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        number = self._known[key] = next(self._numbers)
        weakref.finalize(storage, self._freed, key, number, size)
        self._made(number, size // tensor.element_size(), size)

    def _made(self, number: int, count: int, size: int) -> None:
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self._on_made(number, count, size)

    def _freed(self, key: int, number: int, size: int) -> None:
        self._known.pop(key, None)
        self.live_bytes -= size
        self._on_freed(number)
