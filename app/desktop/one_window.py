"""One window for one home folder: a second start brings the first one to the front.

The lock file tells whether there is a window already, and is free again when that one was
killed; the local socket carries the wish to be shown. Training runs have locks of their own.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from PySide6.QtCore import QLockFile, QObject, Qt, Signal
from PySide6.QtNetwork import QLocalServer, QLocalSocket
from PySide6.QtWidgets import QWidget

ANSWER_MILLISECONDS = 3_000

logger = logging.getLogger(__name__)


class OneWindow(QObject):
    """Claims the home folder for this process's window.

    Args:
        home: the folder that all state lives in; other homes have windows of their own.
    """

    show_requested = Signal()

    def __init__(self, home: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lock = QLockFile(str(home / "window.lock"))
        self._lock.setStaleLockTime(0)  # never by age: a training may last for days
        # Not the folder itself: a socket's path may be no longer than 107 bytes.
        digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:24]
        self._name = f"lorasmith-{digest}"
        self._server = QLocalServer(self)
        self._server.setSocketOptions(QLocalServer.SocketOption.UserAccessOption)
        self._server.newConnection.connect(self._on_connection)

    def claim(self) -> bool:
        """Whether this is the only window; from then on it listens for a second start.

        Where no lock can be written (a read-only home) it is taken for the only one: what cannot
        be kept there is said when it is needed.
        """
        if not self._lock.tryLock(0) and self._lock.error() is QLockFile.LockError.LockFailedError:
            return False
        QLocalServer.removeServer(self._name)  # what a killed window left
        if not self._server.listen(self._name):
            logger.warning("a second start will not find us: %s", self._server.errorString())
        return True

    def show_other(self) -> bool:
        """Ask the window that has the claim to come to the front; whether it took the wish."""
        socket = QLocalSocket()
        socket.connectToServer(self._name)
        if not socket.waitForConnected(ANSWER_MILLISECONDS):
            return False
        answered = socket.waitForReadyRead(ANSWER_MILLISECONDS)
        socket.abort()
        return answered

    def release(self) -> None:
        """Let the next start have the claim."""
        self._server.close()
        self._lock.unlock()

    def _on_connection(self) -> None:
        """The answer comes from the event loop: a window that hangs does not give it."""
        while (socket := self._server.nextPendingConnection()) is not None:
            socket.disconnected.connect(socket.deleteLater)
            socket.write(b"shown\n")
            socket.disconnectFromServer()
            self.show_requested.emit()


def bring_to_front(window: QWidget) -> None:
    """Show a window that may be hidden, minimised or behind others."""
    window.setWindowState(window.windowState() & ~Qt.WindowState.WindowMinimized)
    window.show()
    window.raise_()
    window.activateWindow()
