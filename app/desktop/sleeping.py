"""Saves the run before the computer sleeps, and lets it go on when it wakes.

On Linux systemd-logind tells of it and waits a few seconds; Windows tells its windows, and waits
for two. A run whose step takes longer saves right after waking. macOS tells it to no program that
has only Qt: there, as wherever nothing is heard, the run stands still with the computer and
carries on with it.
"""

from __future__ import annotations

import ctypes.wintypes
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from PySide6.QtCore import QAbstractNativeEventFilter, QCoreApplication, QObject, Qt, QTimer, Signal

from training_backend.computer.sleep_watch import Change, SleepWatch, card_keeps_memory
from training_backend.errors import UserError
from training_backend.lifecycle.sleeping import ended_by_sleep
from training_backend.protocol import Terminal
from training_backend.runs import Run

if TYPE_CHECKING:
    from PySide6.QtCore import QByteArray

    from app.main_window import MainWindow

# Drivers and drives on the network need a moment.
GO_ON_AFTER_MS = 2_000
# By a clock that stands still in a sleep: for who never hears of the waking.
SURELY_AWAKE_AFTER_MS = 60_000
WINDOWS_WAITS_SECONDS = 1.5

WM_POWERBROADCAST = 0x0218
PBT_APMSUSPEND = 0x0004
PBT_APMRESUMEAUTOMATIC = 0x0012


class Sleeping(QObject):
    """Follows the window's training from its first run on."""

    _heard = Signal(str)  # a Change, from the watch's thread

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._training = window.training
        self._asleep = False
        self._saved: Run | None = None  # for this sleep; it goes on after it
        self._gone_on: Run | None = None
        self._watch = SleepWatch(self._heard.emit)
        self._messages: PowerMessages | None = None
        self._heard.connect(self.hear, Qt.ConnectionType.QueuedConnection)
        self._pause = QTimer(self, singleShot=True, interval=GO_ON_AFTER_MS)
        self._pause.timeout.connect(self._go_on)
        self._surely_awake = QTimer(self, singleShot=True, interval=SURELY_AWAKE_AFTER_MS)
        self._surely_awake.timeout.connect(self._wake)
        self._training.run_opened.connect(self._on_opened)
        self._training.run_ended.connect(self._on_ended)

    def hear(self, change: Change) -> None:
        """What the computer is about to do, or has done."""
        match change:
            case "sleep":
                self._asleep = True
                self._surely_awake.start()
                self._save()
            case "wake":
                self._wake()
            case "shutdown":
                self._window.closing.prepare_for_end()

    def is_own(self, run: Run) -> bool:
        """Whether it was let go on after a sleep, and nobody asked for it since."""
        return run == self._gone_on

    def shutdown(self) -> None:
        self._pause.stop()
        self._surely_awake.stop()
        if self._messages is not None:
            self._application().removeNativeEventFilter(self._messages)
            self._messages = None
        self._watch.end()

    def _on_opened(self, _: Run) -> None:
        if sys.platform == "linux":
            self._watch.begin()
            self._watch.hold()
        elif sys.platform == "win32" and self._messages is None:
            self._messages = PowerMessages(self._on_message)
            self._application().installNativeEventFilter(self._messages)
        if self._asleep:  # it was on its way when the computer was
            self._save()

    def _save(self) -> None:
        run = self._training.active()
        if run is None or run == self._saved or self._training.stop_was_asked():
            return
        if not run.requested("pause"):
            self._saved = run
            self._training.stop_for("sleep")
        elif not card_keeps_memory():  # it is saved, and waits for the person, not for us
            self._training.stop()

    def _on_ended(self, run: Run | None, terminal: Terminal | None) -> None:
        self._watch.let_go()
        self._gone_on = None
        if run is None or run != self._saved:
            return
        if self._training.stop_was_asked() or not ended_by_sleep(terminal):
            self._saved = None
        elif not self._asleep:
            self._pause.start()

    def _wake(self) -> None:
        self._asleep = False
        self._surely_awake.stop()
        if self._saved is None:
            return
        if self._training.active() != self._saved:
            self._pause.start()
        elif not card_keeps_memory():  # what the step under way computes is worth nothing now
            self._training.end()

    def _go_on(self) -> None:
        run, self._saved = self._saved, None
        if run is None or self._asleep or self._training.is_busy():
            return
        self._gone_on = run
        self._training.resume(run)
        try:
            name = run.training_job().name
        except UserError:  # damaged meanwhile
            name = run.id
        self._window.notifier.tell(
            self.tr("Training goes on"),
            self.tr("The computer has slept. {name} goes on from where it was.").format(name=name),
        )

    def _on_message(self, change: Change) -> None:
        """Windows waits until this returns, for two seconds at most."""
        self.hear(change)
        run = self._training.active()
        if change == "sleep" and run is not None and run == self._saved:
            wait_for_end(run, WINDOWS_WAITS_SECONDS)

    def _application(self) -> QCoreApplication:
        application = QCoreApplication.instance()
        assert application is not None
        return application


class PowerMessages(QAbstractNativeEventFilter):
    """Reads what Windows tells every window about the computer's sleep (WM_POWERBROADCAST)."""

    def __init__(self, tell: Callable[[Change], None]) -> None:
        super().__init__()
        self._tell = tell
        self._asleep = False  # it is told once for each window, the hidden ones included

    def nativeEventFilter(
        self, kind: QByteArray | bytes | bytearray | memoryview[int], message: int
    ) -> object:
        if kind == b"windows_generic_MSG":
            told = ctypes.wintypes.MSG.from_address(int(message))
            if told.message == WM_POWERBROADCAST:
                self._read(told.wParam)
        return False, 0  # others read it, too

    def _read(self, what: int) -> None:
        if what == PBT_APMSUSPEND and not self._asleep:
            self._asleep = True
            self._tell("sleep")
        elif what == PBT_APMRESUMEAUTOMATIC and self._asleep:
            self._asleep = False
            self._tell("wake")


def wait_for_end(run: Run, seconds: float) -> None:
    """Hold up the window, which is about to be stopped, until the run has ended."""
    deadline = time.monotonic() + seconds
    while run.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
