"""One way off the GUI thread.

Whatever touches the disk for more than a moment, or the network, runs in a small pool of
threads; what comes of it is handed over on the GUI thread. Two answers may come in either order:
where a question can be asked anew before it is answered, `Latest` asks it.
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
WORKERS = 4

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
        _pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="background")
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


class Latest:
    """Asks as `run_in_background` does; of several questions only the newest is answered.

    Use one for each thing that is asked about.

    Args:
        owner: nothing is called once it is destroyed.
        same: it is the same question every time, such as what a folder holds now. An older answer
            is then taken while no newer one is there: one that takes longer than the time between
            two questions would else never be.
    """

    def __init__(self, owner: QObject, *, same: bool = False) -> None:
        self._owner = owner
        self._same = same
        self._asked = 0  # questions so far
        self._wanted = 1  # from this question on answers are taken

    def ask(
        self,
        fn: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        """Call `fn` in a thread; what is under way is no longer waited for."""
        if not self._same:
            self.forget()
        self._asked += 1
        number = self._asked
        run_in_background(
            fn,
            lambda answer: self._hand_over(number, partial(on_done, answer)),
            lambda error: self._hand_over(number, partial(on_error, error)),
            self._owner,
        )

    def forget(self) -> None:
        """Take no answer to what was asked so far: it is about something else by now."""
        self._wanted = self._asked + 1

    def _hand_over(self, number: int, answer: Callable[[], None]) -> None:
        if number >= self._wanted:
            self._wanted = number + 1
            answer()


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
