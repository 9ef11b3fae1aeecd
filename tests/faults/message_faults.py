"""What a worker says that comes by half, not at all, or is no event."""

from __future__ import annotations

from tests.faults.lab import Lab, expect, newest_sound, sentence
from tests.faults.window_faults import PRESS, STEPS_SHOWN, Window, open_window
from training_backend import runs
from training_backend.protocol import MetricsLogged, RunCompleted, RunInterrupted
from training_backend.runs import Run

START = """
from tests.faults import planted
from training_backend import worker
from training_backend.job import parse_job
worker.main = planted.{worker}
window.training.start(parse_job({job!r}))
"""
MEND = """
import importlib
from training_backend import worker
importlib.reload(worker)
"""
SPLIT_LINE = """
import os, signal
from training_backend.lifecycle.journal import JournalWriter
_write = JournalWriter._write
def write(self, data):
    if {sign!r} in data:
        _write(self, data[:len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    _write(self, data)
JournalWriter._write = write
"""


def killed_in_mid_message(lab: Lab) -> str:
    """Half a message is in the pipe: the window does not wait for the rest, and Resume works."""
    words = ""
    with open_window(lab) as window:
        window.until('answer = window.is_built("navRuns")')
        for kind in (
            "killed_within_the_length", "killed_after_the_length", "killed_within_the_message",
        ):  # fmt: skip
            run = _started(lab, window, kind)
            window.until("answer = window.training.is_busy()", False)
            end = run.events()[-1]
            expect(isinstance(end, RunInterrupted) and end.exit_code == -9, f"ended as {end}")
            window.until(STEPS_SHOWN, _steps(run))  # also the one whose message came by half
            words = sentence(end)
            before = newest_sound(run)
            window.do(MEND)
            window.do(PRESS.format(name="resumeButton"))
            window.until("answer = window.training.is_busy()")
            window.until("answer = window.training.is_busy()", False)
            end = run.events()[-1]
            expect(isinstance(end, RunCompleted), f"{kind}: from {before} it ended as {end}")
            lab.equals_undisturbed(run)
        window.do("window.close()")
        expect(window.end() == 0, "the window ended with an error")
    return words


def bad_events(lab: Lab) -> str:
    """Of a wrong type, huge, unpicklable, unreadable: the window passes over them."""
    with open_window(lab) as window:
        window.until('answer = window.is_built("navRuns")')
        run = _started(lab, window, "talks_nonsense")
        window.until("answer = window.training.is_busy()", False)
        end = run.events()[-1]
        expect(isinstance(end, RunCompleted), f"ended as {end}")
        window.until(STEPS_SHOWN, _steps(run))
        expect("Can't pickle" in run.log_path.read_text(encoding="utf-8"), "none was said")
        window.do("window.close()")
        expect(window.end() == 0, "the window ended with an error")
    lab.equals_undisturbed(run)
    return f"{sentence(end)} (passed over)"


def killed_in_mid_line(lab: Lab) -> str:
    """Half a line is in the journal: of a step, of a checkpoint, of the very end."""
    words = ""
    for sign in (b'"MetricsLogged","step":5,', b'"CheckpointSaved","step":6,', b'"RunCompleted"'):
        run, end = lab.train(SPLIT_LINE.format(sign=sign))
        expect(isinstance(end, RunInterrupted), f"ended as {end}")
        whole = run.folder / "events.jsonl"
        expect(whole.read_bytes().count(b"\n") == len(run.events()) + 1, "events were lost")
        words = sentence(end)
        lab.nothing_lost(run)
    return words


def _started(lab: Lab, window: Window, worker: str) -> Run:
    window.do(START.format(worker=worker, job=lab.job()))
    window.until("answer = window.training.active() is not None")
    return Run(runs.runs_dir() / window.do("answer = window.training.active().id"))


def _steps(run: Run) -> list[int]:
    return sorted({event.step for event in run.events() if isinstance(event, MetricsLogged)})
