"""What an earlier window left: a run that goes on without it, one that was cut off, a queue."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from app.background import run_in_background
from app.dialogs.start_dialog import ask_about_cut_off, ask_about_queue
from training_backend import runs
from training_backend.lifecycle import checkpoints, journal
from training_backend.protocol import RunInterrupted, RunStopped, StopReason
from training_backend.runs import Run, RunSummary

if TYPE_CHECKING:
    from app.main_window import MainWindow


@dataclass(frozen=True)
class CutOff:
    """A run that neither came to its end nor was stopped by the person.

    Attributes:
        reason: who stopped it; None where nobody did and its worker is gone.
        step: of its newest checkpoint; None when there is none.
        time: of its last word, in Unix seconds.
    """

    run: Run
    name: str
    reason: StopReason | None
    step: int | None
    time: float


@dataclass(frozen=True)
class Left:
    """What was found in the run store at the start."""

    live: Run | None
    completed: Run | None
    cut_off: CutOff | None


class AtStart(QObject):
    """Follows, asks and shows what is there when the window begins."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window

    def look(self) -> None:
        """Once the window is on screen; nothing starts without asking."""
        since = self._window.settings.told_until()

        def take(left: Left) -> None:
            self._window.queue.refresh(partial(self._take, left))

        run_in_background(lambda: look_around(since), take, lambda _: None, self)

    def _take(self, left: Left) -> None:
        if left.live is not None and not self._window.training.is_busy():
            self._window.training.attach(left.live)
        if left.completed is not None:
            self._window.desk.load_answers(left.completed)
        queue = self._window.queue
        waiting = 0 if queue.state.elsewhere or queue.is_going() else len(queue.state.entries)
        if left.cut_off is not None and not self._window.training.is_busy():
            go_on = partial(self._window.desk.go_on, left.cut_off.run, then_queue=bool(waiting))
            ask_about_cut_off(
                self._window, left.cut_off.name, left.cut_off.reason, left.cut_off.step, waiting,
                go_on,
            )  # fmt: skip
        elif waiting:
            ask_about_queue(
                self._window, waiting, queue.start, under_way=self._window.training.is_busy()
            )


def look_around(since: float | None) -> Left:
    """For a thread.

    Args:
        since: a run cut off before this time (Unix seconds) is known of; None where all are.
    """
    found = runs.list_runs()
    live = next((one.run for one in found if one.state == "running"), None)
    completed = next((one.run for one in found if one.state == "completed"), None)
    cut = [] if since is None else [one for each in found if (one := _cut_off(each, since))]
    return Left(live, completed, max(cut, key=lambda one: one.time, default=None))


def _cut_off(summary: RunSummary, since: float) -> CutOff | None:
    if summary.state not in ("stopped", "interrupted"):
        return None
    last = journal.last_event(summary.run.folder)
    if last is None or last.time <= since:
        return None
    reason: StopReason | None = last.reason if isinstance(last, RunStopped) else None
    if reason == "asked":
        return None
    if isinstance(last, RunInterrupted) and summary.run.requested("end"):
        return None  # ended by the person, by force
    saved = checkpoints.finished(summary.run.checkpoints)
    step = saved[-1].step if saved else None
    return CutOff(summary.run, summary.name, reason, step, last.time)
