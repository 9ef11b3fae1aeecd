"""Keeps the computer from falling asleep while runs remain; the screen may go dark.

By the system's own means, through `wakepy`: the power manager of the desktop on Linux,
`caffeinate` on macOS, `SetThreadExecutionState` on Windows. None of them outlives its process,
and none keeps a notebook awake whose lid is closed. Light.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

from training_backend import preferences
from training_backend.errors import UserError

END_SECONDS = 3.0

logger = logging.getLogger(__name__)


class StayAwake:
    """Holds the computer awake from `begin` to `end`, where it can and the person wants it.

    Args:
        tell: is given what to say, once, where it cannot: called from another thread. For
            those who were promised nothing there is nothing to say.
    """

    def __init__(self, tell: Callable[[UserError], None] = lambda _: None) -> None:
        self._tell = tell
        self._over: threading.Event | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Returns at once, since a desktop may take its time to answer. Twice is once."""
        if self._over is None and preferences.load().keep_awake:
            self._over = threading.Event()
            self._thread = threading.Thread(
                target=self._hold, args=(self._over,), name="stay-awake", daemon=True
            )
            self._thread.start()

    def end(self, patience: float = END_SECONDS) -> None:
        """Let the computer sleep again; waits as long as `patience` says, in seconds."""
        if self._over is not None and self._thread is not None:
            self._over.set()
            self._thread.join(patience)
        self._over = self._thread = None

    def _hold(self, over: threading.Event) -> None:
        """Begin and end belong into one thread: Windows keeps the wish with its thread."""
        from wakepy import keep  # 0.04 s

        try:
            with keep.running(on_fail="pass") as mode:
                if not mode.result.real_success:
                    self._tell(_cannot())
                over.wait()
        except Exception:  # a desktop may answer anything; no training ends for that
            logger.exception("staying awake failed")
            if not over.is_set():
                self._tell(_cannot())


def _cannot() -> UserError:
    reason = "the system refused"
    if sys.platform == "linux":
        reason = "no desktop answered"
    return UserError(
        "cannot_stay_awake",
        "The computer could not be told to stay awake: {reason}.",
        "Turn automatic sleep off in the system's settings while runs remain.",
        reason=reason,
    )
