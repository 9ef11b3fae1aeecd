"""One window for one home, whatever became of the one before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.desktop.one_window import OneWindow, bring_to_front

REPOSITORY = Path(__file__).parents[2]

HOLDER = """
import sys
from pathlib import Path
from PySide6.QtCore import QCoreApplication
from app.desktop.one_window import OneWindow
app = QCoreApplication([])
only = OneWindow(Path(sys.argv[1]))
print(only.claim(), flush=True)
only.show_requested.connect(lambda: print("asked to show", flush=True))
app.exec()
"""

ASKER = """
import sys
from pathlib import Path
from PySide6.QtCore import QCoreApplication
from app.desktop import one_window
from app.desktop.one_window import OneWindow
one_window.ANSWER_MILLISECONDS = {patience}
app = QCoreApplication([])
only = OneWindow(Path(sys.argv[1]))
print(only.claim(), only.show_other())
"""
PATIENT_ASKER = ASKER.format(patience=60_000)


def _start(code: str, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_start_brings_the_first_window_to_the_front(tmp_path: Path) -> None:
    with _start(HOLDER, tmp_path) as first:
        assert _line(first) == "True"
        with _start(PATIENT_ASKER, tmp_path) as second:
            assert _line(second) == "False True"
        assert _line(first) == "asked to show"
        first.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_window_that_hangs_is_told_from_one_that_answers(tmp_path: Path) -> None:
    with _start(HOLDER, tmp_path) as first:
        assert _line(first) == "True"
        os.kill(first.pid, signal.SIGSTOP)
        with _start(ASKER.format(patience=1_000), tmp_path) as second:
            assert _line(second) == "False False"
        first.kill()


def test_what_a_killed_window_left_does_not_keep_the_next_one_out(
    qtbot: QtBot, tmp_path: Path
) -> None:
    with _start(HOLDER, tmp_path) as first:
        assert _line(first) == "True"
        first.kill()
    only = OneWindow(tmp_path)
    assert only.claim()
    with qtbot.waitSignal(only.show_requested), _start(PATIENT_ASKER, tmp_path) as second:
        qtbot.waitUntil(lambda: second.poll() is not None)
        assert _line(second) == "False True"
    only.release()


def test_other_homes_have_windows_of_their_own(qtbot: QtBot, tmp_path: Path) -> None:
    windows = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        windows.append(OneWindow(tmp_path / name))
    assert all(window.claim() for window in windows)
    for window in windows:
        window.release()


def test_a_minimised_window_is_restored(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    window.showMinimized()
    bring_to_front(window)
    assert window.isVisible() and not window.windowState() & Qt.WindowState.WindowMinimized
