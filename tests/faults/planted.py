"""Spawned workers that break while they talk to the window, in the place of `worker.main`."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from training_backend import worker

SIGN = b'"type":"MetricsLogged","step":5,'


class Unreadable:
    """It goes into the pipe well, and raises where it is read."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return int, ("this is no number",)


def killed_within_the_length(feed: Any, pipe: Connection) -> None:
    """SIGKILL when half of the number is in the pipe that says how long the message is."""
    _killed_in_mid_message(feed, lambda frame: 2)
    worker.main(feed, pipe)


def killed_after_the_length(feed: Any, pipe: Connection) -> None:
    _killed_in_mid_message(feed, lambda frame: 4)
    worker.main(feed, pipe)


def killed_within_the_message(feed: Any, pipe: Connection) -> None:
    _killed_in_mid_message(feed, lambda frame: len(frame) // 2)
    worker.main(feed, pipe)


def talks_nonsense(feed: Any, pipe: Connection) -> None:
    """After the first steps what is no event: of a wrong type, huge, unpicklable, unreadable."""
    send = feed._send_bytes
    nonsense: list[object] = [
        None, 5, b"\x00\xff", ["MetricsLogged"], {"type": "MetricsLogged"}, "", "[" * 100_000,
        '{"type": "LogLine", "message": "' + "x" * 5_000_000 + '", "junk": 1}',
        '{"type": "MetricsLogged", "step": "many"}', lambda: "cannot be pickled", Unreadable(),
    ]  # fmt: skip

    def send_more(data: memoryview) -> None:
        send(data)
        if b"MetricsLogged" in bytes(data) and nonsense:
            send(b"\x80 no pickle at all")
            feed.put(nonsense.pop())

    feed._send_bytes = send_more
    worker.main(feed, pipe)


def _killed_in_mid_message(feed: Any, length: Callable[[bytes], int]) -> None:
    """Multiprocessing sends the length in four bytes, then the pickled message."""
    send = feed._send_bytes

    def send_part(data: memoryview) -> None:
        if SIGN in bytes(data):
            frame = struct.pack("!i", len(data)) + data
            os.write(feed._writer.fileno(), frame[: length(frame)])
            os.kill(os.getpid(), signal.SIGKILL)
        send(data)

    feed._send_bytes = send_part
