"""The one icon in the desktop's tray: while the window is hidden there, and for a notice."""

from __future__ import annotations

import sys

from PySide6.QtCore import QObject, QTimer, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QSystemTrayIcon, QWidget

from app.desktop.icon import sign

SHOWN_MILLISECONDS = 15_000
LONGEST_TIP = 120  # characters; Windows cuts off after 127


class Tray(QObject):
    """There is no icon but from `stay` to `leave`, and as long as a notice is shown."""

    show_requested = Signal()
    stop_requested = Signal()
    quit_requested = Signal()

    def __init__(self, window: QWidget) -> None:
        super().__init__(window)
        self._window = window
        self._icon: QSystemTrayIcon | None = None
        self._menu: QMenu | None = None
        self._stays = False
        self._training = False
        self._status = ""
        self._stop = QAction(self.tr("Stop and save"), self)
        self._stop.triggered.connect(self.stop_requested)
        self._quit = QAction(self)
        self._quit.triggered.connect(self.quit_requested)
        self._over = QTimer(self, singleShot=True, interval=SHOWN_MILLISECONDS)
        self._over.timeout.connect(self._tidy)
        self.set_training(False)

    @staticmethod
    def is_available() -> bool:
        """Whether this desktop has a tray; many a Linux desktop has none."""
        return QSystemTrayIcon.isSystemTrayAvailable()

    def stay(self) -> None:
        """Be there for as long as the window is hidden."""
        self._stays = True
        self._show()

    def leave(self) -> None:
        """The window is back, or gone."""
        self._stays = False
        self._over.stop()
        self._tidy()

    def set_status(self, text: str) -> None:
        """How training goes, for the tool tip."""
        self._status = text
        if self._icon is not None:
            tip = f"Lorasmith: {text}" if text else "Lorasmith"
            self._icon.setToolTip(tip[:LONGEST_TIP])

    def set_training(self, training: bool) -> None:
        """Whether there is a run to stop."""
        self._stop.setEnabled(training)
        self._quit.setText(self.tr("Stop, save and quit") if training else self.tr("Quit"))

    def set_stopping(self) -> None:
        """It has been asked for; once is enough."""
        self._stop.setEnabled(False)

    def tell(self, title: str, text: str) -> None:
        """Show a notice; the icon that it needs stays for as long as the notice."""
        icon = self._show()
        icon.showMessage(title, text, QSystemTrayIcon.MessageIcon.Information, SHOWN_MILLISECONDS)
        self._over.start()

    def _show(self) -> QSystemTrayIcon:
        if self._icon is None:
            self._menu = QMenu(self._window)
            self._menu.addAction(self.tr("Show Lorasmith"), self.show_requested.emit)
            self._menu.addSeparator()
            self._menu.addActions([self._stop, self._quit])
            self._icon = QSystemTrayIcon(sign(), self)
            self._icon.setContextMenu(self._menu)
            self._icon.activated.connect(self._on_activated)
            self._icon.messageClicked.connect(self.show_requested)
            self.set_status(self._status)
            self._icon.show()
        return self._icon

    def _tidy(self) -> None:
        if self._stays or self._icon is None or self._menu is None:
            return
        self._icon.hide()
        self._icon.deleteLater()
        self._menu.deleteLater()
        self._icon = self._menu = None

    def _on_activated(self, reason: QSystemTrayIcon.ActivationReason) -> None:
        kinds = QSystemTrayIcon.ActivationReason
        # On macOS a click opens the menu.
        if reason in (kinds.Trigger, kinds.DoubleClick) and sys.platform != "darwin":
            self.show_requested.emit()
