"""A bound on every rendering of a chat template, also of those that behaved when they were tried.

A template may look at what a row says and only then run for ever, or double a text until the
memory is full. So while one renders in this process a thread looks on; after too long, or when the
process has grown too much, it has an exception raised in the thread that renders. That comes
between two instructions of Python, which templates are compiled to. Light.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from training_backend.data import safe_template
from training_backend.data.safe_template import CHOOSE_ANOTHER, FIELD
from training_backend.errors import UserError

LOOKS_EVERY = 0.25  # seconds
IDLE_SECONDS = 5.0  # then the thread that looks on ends, until it is needed again


class _Exceeded(Exception):
    """Raised from outside in the thread that renders."""


@dataclass
class _Rendering:
    began: float
    bytes_before: int | None = None  # of the process, once it has lasted a look
    reason: str = ""  # why it was ended


_lock = threading.Lock()
_renderings: dict[int, _Rendering] = {}  # by the thread's number
_watcher: threading.Thread | None = None


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Render a chat template inside, once.

    Raises:
        UserError: `template_refused`: it does not come to an end, or asks for too much memory.
    """
    thread = threading.get_ident()
    rendering = _begin(thread)
    try:
        try:
            yield
        finally:
            _end(thread, rendering)
    except _Exceeded:
        raise UserError(
            "template_refused",
            "The chat template of this model {clause}.",
            CHOOSE_ANOTHER,
            field=FIELD,
            clause=rendering.reason,
        ) from None


def _begin(thread: int) -> _Rendering:
    global _watcher
    rendering = _Rendering(time.monotonic())
    with _lock:
        _renderings[thread] = rendering
        if _watcher is None:
            _watcher = threading.Thread(target=_look_on, name="template-bound", daemon=True)
            _watcher.start()
    return rendering


def _end(thread: int, rendering: _Rendering) -> None:
    with _lock:
        _renderings.pop(thread, None)
        if rendering.reason:  # it may have come to its end by itself just before
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


def _look_on() -> None:
    global _watcher
    idle_since = time.monotonic()
    while True:
        time.sleep(LOOKS_EVERY)
        now = time.monotonic()
        with _lock:
            if _renderings:
                idle_since = now
            elif now - idle_since > IDLE_SECONDS:
                _watcher = None
                return
            for thread, rendering in _renderings.items():
                if now - rendering.began > LOOKS_EVERY and not rendering.reason:
                    rendering.reason = _excess(rendering, now)
                    if rendering.reason:
                        ctypes.pythonapi.PyThreadState_SetAsyncExc(
                            ctypes.c_ulong(thread), ctypes.py_object(_Exceeded)
                        )


def _excess(rendering: _Rendering, now: float) -> str:
    """What is too much of it; "" for nothing."""
    seconds = safe_template.MAX_SECONDS
    if now - rendering.began > seconds:
        return f"does not come to an end within {seconds:.0f} seconds"
    here = int(psutil.Process().memory_info().rss)
    if rendering.bytes_before is None:
        rendering.bytes_before = here
    if here - rendering.bytes_before > safe_template.MAX_BYTES:
        return "asks for more memory than a template may"
    return ""
