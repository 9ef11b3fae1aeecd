"""Hears that the system ends the program: SIGTERM, a terminal that is closed, Ctrl+C."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys

from PySide6.QtCore import QObject, QSocketNotifier, Signal

# Windows has none of them for a program with a window; there the end of the session is told by Qt.
SIGNALS = () if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class EndSignals(QObject):
    """Emits `asked` from the event loop. The second signal of a kind ends the process at once.

    Python notes a signal down and handles it when it runs next, which in an idle window may be
    never; the byte that it writes to a socket wakes Qt.
    """

    asked = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._ours, self._pythons = socket.socketpair()
        for end in (self._ours, self._pythons):
            end.setblocking(False)
        self._notifier = QSocketNotifier(self._ours.fileno(), QSocketNotifier.Type.Read, self)
        self._notifier.activated.connect(self._on_byte)
        self._woken_before = signal.set_wakeup_fd(self._pythons.fileno(), warn_on_full_buffer=False)
        # Who starts a program with nohup has one of them ignored, and means it.
        self._before = {
            number: signal.signal(number, _once)
            for number in SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN
        }

    def release(self) -> None:
        """Leave the signals as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        signal.set_wakeup_fd(self._woken_before)
        self._notifier.setEnabled(False)
        self._ours.close()
        self._pythons.close()

    def _on_byte(self) -> None:
        told: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            told = set(self._ours.recv(64))
        if told & set(self._before):
            self.asked.emit()


def _once(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_DFL)
