"""Tells the desktop that training has ended, while the person works in another window.

On Linux through the desktop's own notifications (org.freedesktop.Notifications), elsewhere
through the tray. Where neither is to be had the taskbar entry
asks for attention, as it does in any case.
"""

from __future__ import annotations

import html
import sys
from typing import Any

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QApplication, QWidget

from app.background import run_in_background
from app.desktop.tray import SHOWN_MILLISECONDS, Tray
from app.settings import Settings

ANSWER_SECONDS = 3.0


class Notifier(QObject):
    """Speaks for `window`, and only while none of the program's windows is the active one."""

    def __init__(self, window: QWidget, settings: Settings, tray: Tray) -> None:
        super().__init__(window)
        self._window = window
        self._settings = settings
        self._tray = tray

    def tell(self, title: str, text: str) -> None:
        """Show a short notice in plain text, if it is wanted and the person is elsewhere."""
        if QApplication.activeWindow() is not None or not self._settings.notify():
            return
        QApplication.alert(self._window)
        if sys.platform == "linux":
            run_in_background(
                lambda: send_to_desktop(title, text), lambda _: None, lambda _: None, self
            )
        elif self._tray.is_available():
            self._tray.tell(title, text)


def send_to_desktop(title: str, text: str) -> None:
    """Ask a Linux desktop to show a notice; see the Desktop Notifications Specification, 1.2.

    For a thread. Raises when nobody there shows notices. QtDBus is of no use for this: from
    Python it cannot send the unsigned number that the call begins with.
    """
    # It comes with wakepy on Linux, which talks to the same bus.
    from jeepney import DBusAddress, Message, new_method_call
    from jeepney.io.blocking import open_dbus_connection
    from jeepney.wrappers import unwrap_msg

    desktop = DBusAddress(
        "/org/freedesktop/Notifications",
        bus_name="org.freedesktop.Notifications",
        interface="org.freedesktop.Notifications",
    )
    with open_dbus_connection(bus="SESSION") as bus:

        def ask(question: Message) -> Any:
            return unwrap_msg(bus.send_and_get_reply(question, timeout=ANSWER_SECONDS))

        (able,) = ask(new_method_call(desktop, "GetCapabilities"))
        body = html.escape(text, quote=False) if "body-markup" in able else text
        values: tuple[Any, ...] = ("Lorasmith", 0, "", title, body, [], {}, SHOWN_MILLISECONDS)
        ask(new_method_call(desktop, "Notify", "susssasa{sv}i", values))
