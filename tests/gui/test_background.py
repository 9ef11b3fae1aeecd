"""Work off the GUI thread comes back on it, and never to somebody who is gone."""

from __future__ import annotations

import threading

from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot
from shiboken6 import delete

from app import background
from app.background import run_in_background


def test_result_arrives_on_the_gui_thread(qtbot: QtBot) -> None:
    seen: list[tuple[int, bool]] = []
    owner = QObject()
    main = threading.main_thread()

    def done(value: int) -> None:
        seen.append((value, threading.current_thread() is main))

    run_in_background(lambda: 3, done, lambda error: None, owner)
    qtbot.waitUntil(lambda: bool(seen))
    assert seen == [(3, True)]


def test_error_arrives_as_error(qtbot: QtBot) -> None:
    errors: list[Exception] = []
    owner = QObject()
    run_in_background(lambda: 1 // 0, lambda value: None, errors.append, owner)
    qtbot.waitUntil(lambda: bool(errors))
    assert isinstance(errors[0], ZeroDivisionError)


def test_nothing_is_called_for_a_destroyed_owner(qtbot: QtBot) -> None:
    go = threading.Event()
    called: list[object] = []
    owner = QObject()
    run_in_background(go.wait, called.append, called.append, owner)
    delete(owner)
    go.set()
    background.shutdown()
    qtbot.wait(50)
    assert called == []
