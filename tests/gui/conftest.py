"""Every GUI test has a home of its own, no network, and must leave nothing behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QCoreApplication, QEvent, QTimer
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from shiboken6 import isValid

from app import background, theme
from app.helper_client import HelperClient


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `LORASMITH_HOME` and an empty Hub cache; no worker is spawned ahead of time."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LORASMITH_HOME", str(folder))
    monkeypatch.setenv("LORASMITH_NO_WARM_UP", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # No computer that runs the tests is kept from sleeping by them.
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'no-bus'}")
    return folder


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, qapp: QApplication, home: Path
) -> Iterator[None]:
    """Fails a test that leaks a thread, a running timer or a top-level widget."""
    theme.apply(qapp, "light")
    threads = set(threading.enumerate())
    widgets = set(QApplication.topLevelWidgets())
    timers = set(_running_timers())
    yield
    background.shutdown()
    request.node.funcargs.clear()  # or pytest keeps what the fixtures gave alive
    for _ in range(3):  # deleting may post further deletions
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        QCoreApplication.processEvents()
    gc.collect()
    started = set(threading.enumerate()) - threads
    for thread in started:  # one that has done its work may need a moment to be gone
        thread.join(60)
    leaked = [
        *(thread.name for thread in started if thread.is_alive()),
        *(repr(widget) for widget in set(QApplication.topLevelWidgets()) - widgets),
        *(repr(timer) for timer in set(_running_timers()) - timers),
    ]
    assert not leaked, f"left behind: {', '.join(leaked)}"


@pytest.fixture
def helper_client(qtbot: QtBot) -> Iterator[HelperClient]:
    """The window's link to its helper; the real process starts once it is asked something."""
    made = HelperClient()
    yield made
    made.shutdown()
    qtbot.waitUntil(  # one that is importing takes a moment to see it
        lambda: not any(thread.name.startswith("helper") for thread in threading.enumerate()),
    )


def _running_timers() -> list[QTimer]:
    return [
        thing
        for thing in gc.get_objects()
        # Not `isinstance`: it asks every object there is for its `__class__`, also such as answer
        # that with a warning.
        if issubclass(type(thing), QTimer) and isValid(thing) and thing.isActive()
    ]
