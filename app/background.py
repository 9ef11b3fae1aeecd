"""One way off the GUI thread.

Whatever touches the disk for more than a moment, or the network, runs in a small pool of
threads; what comes of it is handed over on the GUI thread.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

from PySide6.QtCore import QObject, Signal, Slot
from shiboken6 import isValid

T = TypeVar("T")

# So soon a busy thread gives way. Painting a table asks hundreds of times for the interpreter:
# with Python's own 5 ms that would be a stall of 200 ms.
SWITCH_SECONDS = 0.0005

_pool: ThreadPoolExecutor | None = None


def run_in_background(
    fn: Callable[[], T],
    on_done: Callable[[T], None],
    on_error: Callable[[Exception], None],
    owner: QObject,
) -> None:
    """Call `fn` in a thread, then `on_done` or `on_error` on the GUI thread.

    Nothing is called once `owner` is destroyed. Call it from the GUI thread.
    """
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="background")
        sys.setswitchinterval(SWITCH_SECONDS)
    courier = _courier()

    def work() -> None:
        answer: Callable[[], None]
        try:
            answer = partial(on_done, fn())
        except Exception as error:
            answer = partial(on_error, error)
        courier.arrived.emit(owner, answer)

    _pool.submit(work)


def shutdown() -> None:
    """Wait for what runs and forget what waits; for the end of the application."""
    global _pool
    if _pool is not None:
        _pool.shutdown(wait=True, cancel_futures=True)
        _pool = None


class _Courier(QObject):
    """Lives on the GUI thread, so that what threads send it is queued to there."""

    arrived = Signal(object, object)

    def __init__(self) -> None:
        super().__init__()
        self.arrived.connect(self._hand_over)

    @Slot(object, object)
    def _hand_over(self, owner: QObject, answer: Callable[[], None]) -> None:
        if isValid(owner):
            answer()


@cache
def _courier() -> _Courier:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_in_background is for the GUI thread")
    return _Courier()
