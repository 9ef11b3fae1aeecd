"""The desktop is told, on a bus of the test's own where there is one to be had."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtWidgets import QApplication, QSystemTrayIcon, QWidget
from pytestqt.qtbot import QtBot

from app.desktop import notifier
from app.desktop.notifier import Notifier
from app.desktop.tray import Tray
from app.settings import Settings
from tests.gui.settling import settle

# A desktop that takes notices, in so far as a test needs one; prints what it is asked to show.
DESKTOP = """
import json, threading
from jeepney import HeaderFields, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg
from app.desktop.notifier import send_to_desktop

bus = open_dbus_connection(bus="SESSION")
unwrap_msg(bus.send_and_get_reply(message_bus.RequestName("org.freedesktop.Notifications")))
threading.Thread(target=send_to_desktop, args=("Done", "a <b>bold</b> run & more")).start()
shown = None
while shown is None:
    message = bus.receive(timeout=60)
    fields = message.header.fields
    if fields.get(HeaderFields.member) == "GetCapabilities":
        bus.send(new_method_return(message, "as", (["body", "body-markup"],)))
    elif fields.get(HeaderFields.member) == "Notify":
        shown = [fields[HeaderFields.signature], *message.body[3:5]]
        bus.send(new_method_return(message, "u", (1,)))
print(json.dumps(shown))
"""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(notifier, "send_to_desktop", lambda title, text: found.append(title))
    monkeypatch.setattr(sys, "platform", "linux")
    return found


@pytest.fixture
def window(qtbot: QtBot) -> QWidget:
    made = QWidget()
    qtbot.addWidget(made)
    return made


@pytest.mark.skipif(shutil.which("dbus-run-session") is None, reason="no D-Bus here")
def test_a_linux_desktop_is_told_in_plain_text() -> None:
    answer = subprocess.run(
        ["dbus-run-session", "--", sys.executable, "-c", DESKTOP],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        encoding="utf-8",
    )
    said = '["susssasa{sv}i", "Done", "a &lt;b&gt;bold&lt;/b&gt; run &amp; more"]'
    assert answer.stdout.strip() == said, answer.stderr


def test_a_desktop_that_does_not_answer_is_no_error(
    qtbot: QtBot, window: QWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    with pytest.raises(FileNotFoundError):
        notifier.send_to_desktop("Done", "text")
    if sys.platform == "linux":
        Notifier(window, Settings(), Tray(window)).tell("Done", "text")
        settle(qtbot)


def test_only_who_is_elsewhere_is_told(qtbot: QtBot, window: QWidget, told: list[str]) -> None:
    made = Notifier(window, Settings(), Tray(window))
    window.show()
    window.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is window)
    made.tell("here", "")
    window.hide()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is None)
    made.tell("away", "")
    qtbot.waitUntil(lambda: told == ["away"])


def test_it_can_be_turned_off(qtbot: QtBot, window: QWidget, told: list[str]) -> None:
    settings = Settings()
    settings.set_notify(False)
    Notifier(window, Settings(), Tray(window)).tell("unwanted", "")
    settings.set_notify(True)
    Notifier(window, Settings(), Tray(window)).tell("wanted", "")
    qtbot.waitUntil(lambda: told == ["wanted"])


def test_a_tray_icon_is_there_only_meanwhile(
    qtbot: QtBot, window: QWidget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(QSystemTrayIcon, "isSystemTrayAvailable", lambda: True)
    tray = Tray(window)
    made = Notifier(window, Settings(), tray)
    made.tell("Done", "text")
    made.tell("Done again", "text")
    assert len(tray.findChildren(QSystemTrayIcon)) == 1
    tray._over.start(1)
    qtbot.waitUntil(lambda: not tray.findChildren(QSystemTrayIcon))
