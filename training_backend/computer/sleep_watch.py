"""Hears on Linux that the computer is about to sleep or shut down, and that it woke; holds it back.

systemd-logind says so on the system's D-Bus, and waits a few seconds (`InhibitDelayMaxSec`, five
unless set otherwise) for those who hold a "delay" lock; see "Inhibitor Locks" in the manual of
systemd. Where there is no logind nothing is heard: a computer that sleeps then freezes the
run, which carries on at waking. Light.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jeepney import Message
    from jeepney.io.blocking import DBusConnection

Change = Literal["sleep", "wake", "shutdown"]

ANSWER_SECONDS = 3.0
END_SECONDS = 3.0
NVIDIA_SETTINGS = Path("/proc/driver/nvidia/params")

_NAME = "org.freedesktop.login1"
_PATH = "/org/freedesktop/login1"
_INTERFACE = "org.freedesktop.login1.Manager"
_MOST_AT_ONCE = 100

logger = logging.getLogger(__name__)


class SleepWatch:
    """Listens from `begin` to `end`, and holds the computer back from `hold` to `let_go`.

    Args:
        tell: is given what is heard, from another thread.
    """

    def __init__(self, tell: Callable[[Change], None]) -> None:
        self._tell = tell
        self._wanted = False
        self._ended = False
        self._waker: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Returns at once. Twice is once."""
        if self._thread is None:
            self._waker, woken = socket.socketpair()
            self._thread = threading.Thread(
                target=self._listen, args=(woken,), name="sleep-watch", daemon=True
            )
            self._thread.start()

    def hold(self) -> None:
        """There is something to save before the computer sleeps."""
        self._wanted = True
        self._wake()

    def let_go(self) -> None:
        """It is saved; a computer that waits for that sleeps at once."""
        self._wanted = False
        self._wake()

    def end(self) -> None:
        """The computer need not wait for us any more, and nothing further is told."""
        self._ended = True
        self._wake()
        if self._thread is not None and self._waker is not None:
            self._thread.join(END_SECONDS)
            self._waker.close()

    def _wake(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(OSError):  # the thread has given up
                self._waker.send(b"x")

    # ------------------------------------------------------------------------ in the thread

    def _listen(self, woken: socket.socket) -> None:
        from jeepney.io.blocking import open_dbus_connection

        with woken:
            try:
                with open_dbus_connection("SYSTEM", enable_fds=True) as bus:
                    _Conversation(bus, woken, self._tell).go_on(
                        lambda: self._wanted, lambda: self._ended
                    )
            except Exception as error:  # no bus, one that went away: no training ends for that
                logger.info("nobody tells when the computer sleeps: %s", error)


class _Conversation:
    """With logind, over one connection."""

    def __init__(
        self, bus: DBusConnection, woken: socket.socket, tell: Callable[[Change], None]
    ) -> None:
        from jeepney import DBusAddress

        self._bus = bus
        self._woken = woken
        self._tell = tell
        self._logind = DBusAddress(_PATH, bus_name=_NAME, interface=_INTERFACE)
        self._lock: int | None = None  # a file; the computer waits for as long as it is open

    def go_on(self, wanted: Callable[[], bool], ended: Callable[[], bool]) -> None:
        """Until `ended`. Raises `OSError` when the bus goes away."""
        from jeepney import MatchRule
        from jeepney.bus_messages import message_bus

        signals = {"type": "signal", "interface": _INTERFACE, "path": _PATH}
        heard: deque[Message] = deque(maxlen=_MOST_AT_ONCE)
        try:
            with self._bus.filter(MatchRule(**signals), queue=heard):
                # The bus knows who is logind; everybody else's signals it keeps from us.
                self._ask(message_bus.AddMatch(MatchRule(sender=_NAME, **signals)))
                while not ended():
                    self._hold(wanted())
                    self._read()
                    if not heard:
                        self._wait()
                    while heard:
                        self._note(heard.popleft())
        finally:
            self._hold(False)

    def _note(self, message: Message) -> None:
        from jeepney import HeaderFields

        match message.header.fields.get(HeaderFields.member), message.body:
            case "PrepareForSleep", (True,):
                self._tell("sleep")
            case "PrepareForSleep", (False,):
                self._tell("wake")
            case "PrepareForShutdown", (True,):
                self._tell("shutdown")

    def _hold(self, wanted: bool) -> None:
        if wanted and self._lock is None:
            self._lock = self._take()
        elif not wanted and self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self) -> int | None:
        """The lock; None where it is refused, as it is when the computer is falling asleep."""
        from jeepney import DBusErrorResponse, new_method_call

        words = ("sleep:shutdown", "Lorasmith", "Saves the training under way", "delay")
        try:
            (handle,) = self._ask(new_method_call(self._logind, "Inhibit", "ssss", words))
        except DBusErrorResponse as error:
            logger.info("the computer will not wait before it sleeps: %s", error)
            return None
        lock = int(handle.to_raw_fd())
        os.set_inheritable(
            lock, False
        )  # a worker that had it, too, would keep the computer waiting
        return lock

    def _ask(self, question: Message) -> Any:
        from jeepney.wrappers import unwrap_msg

        return unwrap_msg(self._bus.send_and_get_reply(question, timeout=ANSWER_SECONDS))

    def _read(self) -> None:
        """Take in what has come."""
        with contextlib.suppress(TimeoutError):
            while True:
                self._bus.recv_messages(timeout=0)

    def _wait(self) -> None:
        """Until there is something to read, or to do."""
        ready, _, _ = select([self._bus.sock, self._woken], [], [])
        if self._woken in ready:
            self._woken.recv(_MOST_AT_ONCE)


def card_keeps_memory() -> bool:
    """Whether what lies in a card's memory is sure to be the same after the computer slept.

    NVIDIA's driver for Linux keeps it only if told to; see "Configuring Power Management Support"
    in its manual. A step that was under way must not be trusted otherwise.
    """
    try:
        settings = NVIDIA_SETTINGS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # no such card, or another system, which keeps it
        return True
    return "PreserveVideoMemoryAllocations: 0" not in settings
