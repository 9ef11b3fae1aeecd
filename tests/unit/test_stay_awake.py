"""Staying awake while runs remain: by the desktop, and honest where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from training_backend import preferences
from training_backend.computer.stay_awake import StayAwake
from training_backend.errors import UserError

# A desktop's power manager on a real session bus; it notes down what it is asked.
DESKTOP = """
import sys, threading
from jeepney import DBusAddress, MessageType, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection
from training_backend.computer.stay_awake import StayAwake

asked, told, released = [], [], threading.Event()
connection = open_dbus_connection("SESSION")
connection.send_and_get_reply(message_bus.RequestName("org.freedesktop.PowerManagement"))

def answer():
    while True:
        message = connection.receive()
        if message.header.message_type is MessageType.method_call:
            name = message.header.fields[3]
            asked.append(name)
            body = ("u", (7,)) if name == "Inhibit" else (None, ())
            connection.send(new_method_return(message, *body))
            if name == "UnInhibit":
                released.set()
                return

threading.Thread(target=answer, daemon=True).start()
awake = StayAwake(told.append)
awake.begin()
awake.begin()
while "Inhibit" not in asked and not told:
    threading.Event().wait(0.01)
held = list(asked)
awake.end()
print(held, released.wait(60), asked, told)
"""


@pytest.fixture(autouse=True)
def _no_desktop(lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)


@pytest.mark.skipif(not shutil.which("dbus-run-session"), reason="needs a session bus of D-Bus")
def test_the_desktop_is_asked_once_and_let_go_at_the_end() -> None:
    answer = subprocess.run(
        ["dbus-run-session", "--", sys.executable, "-c", DESKTOP],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    assert answer.stdout.strip() == "['Inhibit'] True ['Inhibit', 'UnInhibit'] []"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a way")
@pytest.mark.parametrize("fake", ["", "1"])
def test_where_it_cannot_that_is_said_once_and_nothing_fails(
    fake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAKEPY_FAKE_SUCCESS", fake)  # what pretends to have worked has not
    told: list[UserError] = []
    said = threading.Event()

    def tell(error: UserError) -> None:
        told.append(error)
        said.set()

    awake = StayAwake(tell)
    awake.begin()
    awake.begin()
    assert said.wait(60)
    awake.end()
    awake.end()
    assert [error.code for error in told] == ["cannot_stay_awake"]
    assert "sleep" in told[0].remedy
    assert "stay-awake" not in {thread.name for thread in threading.enumerate()}


def test_a_person_who_does_not_want_it_is_not_even_told(monkeypatch: pytest.MonkeyPatch) -> None:
    preferences.save(preferences.Preferences(keep_awake=False))
    told: list[UserError] = []
    awake = StayAwake(told.append)
    awake.begin()
    assert "stay-awake" not in {thread.name for thread in threading.enumerate()}
    awake.end()
    assert told == []
