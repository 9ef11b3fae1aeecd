"""A computer that can be put to sleep: a stand-in for systemd-logind on a D-Bus of its own.

The bus is a real one, and so is the lock: a file handle whose closing is seen at the other end.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from jeepney import (
    DBusAddress,
    HeaderFields,
    MessageType,
    new_error,
    new_method_return,
    new_signal,
)
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import DBusConnection, open_dbus_connection

IS_HERE = shutil.which("dbus-daemon") is not None
PATIENCE_SECONDS = 60.0

_NAME = "org.freedesktop.login1"
_MANAGER = DBusAddress(
    "/org/freedesktop/login1", bus_name=None, interface="org.freedesktop.login1.Manager"
)


class FakeLogind:
    """Answers "Inhibit" as the real one does, and sends what a test has it send.

    Attributes:
        asked: the words of each "Inhibit".
        refuses: whether it gives no locks, as while it goes to sleep.
    """

    def __init__(self, bus: DBusConnection) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.refuses = False
        self._bus = bus
        self._sending = threading.Lock()
        self._locks: list[socket.socket] = []
        self._thread = threading.Thread(target=self._answer, name="fake-logind", daemon=True)
        self._thread.start()

    def goes_to_sleep(self) -> None:
        self._say("PrepareForSleep", True)

    def wakes(self) -> None:
        self._say("PrepareForSleep", False)

    def shuts_down(self) -> None:
        self._say("PrepareForShutdown", True)

    def is_held(self) -> bool:
        """Whether somebody holds the computer back now."""
        return any(_is_open(lock) for lock in self._locks)

    def until_held(self, held: bool) -> None:
        _until(lambda: self.is_held() == held, f"held: {not held}")

    def until_asked(self) -> None:
        """Until somebody asked to be waited for."""
        _until(lambda: bool(self.asked), "nobody asks to be waited for")

    def _say(self, signal: str, value: bool) -> None:
        with self._sending:
            self._bus.send(new_signal(_MANAGER, signal, "b", (value,)))

    def _answer(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # its bus has ended
            while True:
                message = self._bus.receive()
                if message.header.message_type is not MessageType.method_call:
                    continue
                assert message.header.fields[HeaderFields.member] == "Inhibit"
                self.asked.append(message.body)
                with self._sending:
                    if self.refuses:
                        refusal = f"{_NAME}.OperationInProgress"
                        self._bus.send(new_error(message, refusal, "s", ("It is under way.",)))
                    else:
                        ours, theirs = socket.socketpair()
                        with theirs:
                            self._bus.send(new_method_return(message, "h", (theirs,)))
                        self._locks.append(ours)


def _until(true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def _is_open(lock: socket.socket) -> bool:
    """Whether the other end is."""
    try:
        return lock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


@contextlib.contextmanager
def fake_logind() -> Iterator[tuple[str, FakeLogind]]:
    """The bus's address, for `DBUS_SYSTEM_BUS_ADDRESS`, and who answers on it."""
    # Not in a test's own folder: a socket's path may be no longer than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="bus-", dir="/tmp") as folder:
        yield from _bus(f"unix:path={folder}/system")


def _bus(address: str) -> Iterator[tuple[str, FakeLogind]]:
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}",
         "--print-address=1"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert daemon.stdout is not None
        assert daemon.stdout.readline().startswith(b"unix:"), "it does not start"
        bus = open_dbus_connection(address, enable_fds=True)
        bus.send_and_get_reply(message_bus.RequestName(_NAME))
        logind = FakeLogind(bus)
        yield address, logind
    finally:
        daemon.kill()  # which ends the thread that answers
        daemon.wait()
        daemon.stdout.close()
    logind._thread.join(PATIENCE_SECONDS)
    bus.close()
    for lock in logind._locks:
        lock.close()
