"""A window that is killed, closed, ended by the system or started twice, while a run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from tests.fake_logind import IS_HERE as fake_logind_is_here
from tests.fake_logind import fake_logind
from tests.faults.disk_faults import NotHere
from tests.faults.lab import (
    PATIENCE_SECONDS,
    REPOSITORY,
    Lab,
    Lost,
    expect,
    newest_sound,
    sentence,
)
from training_backend import runs
from training_backend.protocol import (
    CheckpointSaved,
    LogLine,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunInterrupted,
    RunStopped,
)
from training_backend.runs import Run

START = (sys.executable, "-m", "tests.faults.window")
# Two seconds of steps; a pause in between is as long as it takes.
LONG: dict[str, dict[str, Any]] = {
    "training": {"max_steps": 240, "save_steps": 40},
    "evaluation": {"eval_steps": 40},
}

# What stands in the loss chart, and in the question of a window that is closed.
STEPS_SHOWN = """
from app.widgets.charts.plot import Plot
lines = window.findChild(Plot, "lossChart").listDataItems()
answer = sorted({round(x) for line in lines if line.xData is not None for x in line.xData})
"""
CLOSE = """
from PySide6.QtWidgets import QMessageBox
window.close()
box = window.findChild(QMessageBox, "closeDialog")
answer = f"{box.text()}. {box.informativeText()}"
"""
ANSWER = """
from PySide6.QtWidgets import QMessageBox
box = window.findChild(QMessageBox, "closeDialog")
next(b for b in box.buttons() if b.text().replace("&", "") == {text!r}).click()
"""
PRESS = """
from PySide6.QtWidgets import QPushButton
window.findChild(QPushButton, {name!r}).click()
"""
WITH_TRAY = """
from PySide6.QtWidgets import QSystemTrayIcon
QSystemTrayIcon.isSystemTrayAvailable = staticmethod(lambda: True)
"""
ICONS = """
from PySide6.QtWidgets import QSystemTrayIcon
answer = [icon.toolTip() for icon in window.tray.findChildren(QSystemTrayIcon)]
"""

STANDS_STILL = """
card = window.page("navTrain").standstill
answer = not card.isHidden()
"""
STANDSTILL_WORDS = """
from PySide6.QtWidgets import QLabel
card = window.page("navTrain").standstill
text = ". ".join(label.text().rstrip(".") for label in card.findChildren(QLabel) if label.text())
answer = {part!r} in text if {part!r} else text + "."
"""


class Window:
    """A window's process.

    Args:
        warm: it has workers ready ahead of time, as it mostly does.
        more: of its environment.
    """

    def __init__(self, lab: Lab, *, warm: bool = False, **more: str) -> None:
        self.environment = {
            **lab.environment, "QT_QPA_PLATFORM": "offscreen", "HF_HUB_OFFLINE": "1",
            **({} if warm else {"LORASMITH_NO_WARM_UP": "1"}), **more,
        }  # fmt: skip
        self.process = subprocess.Popen(
            START,
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def do(self, source: str) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(source) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Lost("the window has ended")
        return json.loads(line)

    def until(self, source: str, expected: Any = True) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := self.do(source)) != expected:
            if time.monotonic() > deadline:
                raise Lost(f"the window shows {answer}, not {expected}")
            time.sleep(0.1)

    def train(self, lab: Lab) -> Run:
        """Start a run and wait until it has done a step, after which it is paused."""
        self.until('answer = window.is_built("navRuns")')
        job = lab.job(**LONG)
        self.do(
            f"from training_backend.job import parse_job\nwindow.training.start(parse_job({job!r}))"
        )
        self.until("answer = window.training.active() is not None")
        run = Run(runs.runs_dir() / self.do("answer = window.training.active().id"))
        _pause(run)
        return run

    def end(self) -> int:
        """Wait until it has ended; its exit code."""
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise Lost("the window does not end") from None


@contextlib.contextmanager
def open_window(lab: Lab, *, warm: bool = False, **more: str) -> Iterator[Window]:
    made = Window(lab, warm=warm, **more)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        # Not `communicate`: what the worker brought along holds the other end of the pipe.
        for pipe in (made.process.stdin, made.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _until_step(run: Run, step: int) -> None:
    _until(run, lambda e: isinstance(e, MetricsLogged) and e.step >= step)


def _until(run: Run, seen: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(seen(event) for event in run.events()):
        if time.monotonic() > deadline:
            raise Lost(f"the run did not come to that point: {run.events()[-1]}")
        time.sleep(0.02)


def _pause(run: Run) -> None:
    before = len(run.events())
    run.request("pause")
    _until(run, lambda e: e.seq >= before and isinstance(e, PhaseChanged) and e.phase == "paused")


def _stopped(run: Run) -> str:
    """What the person reads of a run that has saved and stopped; its worker is gone."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while run.is_alive():
        if time.monotonic() > deadline:
            raise Lost("the worker does not end")
        time.sleep(0.05)
    end = run.events()[-1]
    expect(isinstance(end, RunStopped) and end.checkpoint is not None, f"ended as {end}")
    return sentence(end)


def window_killed(lab: Lab) -> str:
    """The worker trains on; the next window shows all of its steps, and Stop works there."""
    with open_window(lab) as first:
        run = first.train(lab)
        worker = run.worker()
        run.requests.done("pause")
        _until_step(run, 3)
        first.process.kill()
        first.end()
    _until_step(run, 20)
    _pause(run)
    expect(worker is not None and run.worker() == worker, "the worker died with its window")
    with open_window(lab) as second:
        second.until(
            'answer = window.is_built("navTrain") and window.training.active() is not None'
        )
        expect(second.do("answer = window.training.active().id") == run.id, "another run is shown")
        steps = [event.step for event in run.events() if isinstance(event, MetricsLogged)]
        second.until(STEPS_SHOWN, steps)
        second.do("window.training.go_on()")
        _until_step(run, steps[-1] + 1)
        second.do(PRESS.format(name="stopButton"))
        words = _stopped(run)
        second.until("answer = window.training.active() is None")
        second.do("window.close()")
        expect(second.end() == 0, "the second window ended with an error")
    lab.nothing_lost(run)
    return words


def window_closed_in_each_of_three_ways(lab: Lab) -> str:
    with open_window(lab) as window:
        run = window.train(lab)
        question = str(window.do(WITH_TRAY + CLOSE))
        window.do(ANSWER.format(text="Stay open"))
        expect(window.do("answer = window.isVisible()"), "it did not stay open")
        window.do(CLOSE)
        window.do(ANSWER.format(text="Keep training in the tray"))
        window.until("answer = window.isVisible()", False)
        expect(len(window.do(ICONS)) == 1, "there is not one icon in the tray")
        expect(run.is_alive(), "the run ended")
        window.do("window.tray.show_requested.emit()")
        window.until("answer = window.isVisible()")
        window.until(ICONS, [])
        window.do(CLOSE)
        window.do(ANSWER.format(text="Stop and save"))
        expect(window.end() == 0, "the window ended with an error")
        words = _stopped(run)
    lab.nothing_lost(run)
    return f"{' '.join(question.split())} {words}"


def window_ended_by_the_system(lab: Lab) -> str:
    """SIGTERM, as when the session ends: no question, the run saves and stops."""
    with open_window(lab) as window:
        run = window.train(lab)
        run.requests.done("pause")
        os.kill(window.process.pid, signal.SIGTERM)
        expect(window.end() == 0, "the window ended with an error")
        words = _stopped(run)
    lab.nothing_lost(run)
    return words


def computer_put_to_sleep(lab: Lab) -> str:
    """It waits for the run to save; when it wakes, the run goes on by itself, to its end."""
    if not fake_logind_is_here:
        raise NotHere("needs D-Bus")
    with (
        fake_logind() as (address, logind),
        open_window(lab, DBUS_SYSTEM_BUS_ADDRESS=address) as window,
    ):
        run = window.train(lab)
        logind.until_held(True)
        run.requests.done("pause")
        logind.goes_to_sleep()
        logind.until_held(False)
        end = run.events()[-1]
        expect(isinstance(end, RunStopped) and end.reason == "sleep", f"ended as {end}")
        expect(newest_sound(run) == end.step, "it did not save where it stopped")
        logind.wakes()
        _until(run, lambda event: isinstance(event, RunCompleted))
        window.until("answer = window.training.active() is None")
        window.do("window.close()")
        expect(window.end() == 0, "the window ended with an error")
    lab.equals_undisturbed(run)
    (told,) = (event.message for event in run.events() if isinstance(event, LogLine))
    return told


def hang_told_by_the_window(lab: Lab) -> str:
    """SIGSTOP: the window says that nothing comes any more, and ends the run when told to."""
    with open_window(lab) as window:
        run = window.train(lab)
        window.do("window.training.go_on()")
        _until(run, lambda e: isinstance(e, CheckpointSaved) and e.step >= 40)
        worker = run.worker()
        assert worker is not None
        worker.suspend()
        window.do("from training_backend.watching import standstill\nstandstill.SILENT_SECONDS = 3")
        window.until(STANDS_STILL, True)
        window.until(STANDSTILL_WORDS.format(part="halted"), True)
        words = str(window.do(STANDSTILL_WORDS.format(part="")))
        window.do(PRESS.format(name="standstillEnd"))
        window.until("answer = window.training.is_busy()", False)
        end = run.events()[-1]
        expect(isinstance(end, RunInterrupted) and end.code == "hung", f"ended as {end}")
        expect(not worker.is_running() or worker.status() == "zombie", "its process is still there")
        window.do("window.close()")
        expect(window.end() == 0, "the window ended with an error")
    run.clear_requests()  # as whoever starts a worker does
    lab.nothing_lost(run)
    return f"{words} {sentence(end)}"


def two_windows(lab: Lab) -> str:
    """The second start shows the first window, which was hidden, and ends."""
    with open_window(lab) as first:
        first.until('answer = window.is_built("navRuns")')
        first.do(WITH_TRAY + "window.closing.keep()")
        first.until("answer = window.isVisible()", False)
        second = subprocess.run(
            START, cwd=REPOSITORY, env=first.environment, stdin=subprocess.DEVNULL,
            capture_output=True, encoding="utf-8", timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        expect(second.returncode == 0, f"the second ended with {second.returncode}")
        first.until("answer = window.isVisible()")
        first.until(ICONS, [])
        first.do("window.close()")
        expect(first.end() == 0, "the first ended with an error")
    return second.stdout.strip()
