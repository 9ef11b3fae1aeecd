"""Waiting for all that goes on, where a test is about what does not happen."""

from __future__ import annotations

import threading

from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from app.background import WORKERS, run_in_background


def settle(qtbot: QtBot) -> None:
    """Until what was asked in the background is answered, and what those answers asked in turn.

    However busy the computer: the threads meet, each after its work, and their answers are handed
    over in the order in which they came.
    """
    for _ in range(3):
        meet = threading.Barrier(WORKERS)
        met: list[object] = []
        owner = QObject()
        for _ in range(WORKERS):
            run_in_background(meet.wait, met.append, met.append, owner)
        qtbot.waitUntil(lambda met=met: len(met) == WORKERS)
        qtbot.wait(30)  # what is to be done after a moment of quiet
