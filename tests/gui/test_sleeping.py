"""Before the computer sleeps the run is saved; when it wakes the run goes on by itself."""

from __future__ import annotations

import ctypes
import ctypes.wintypes
from collections.abc import Iterator
from typing import cast

import pytest
from PySide6.QtCore import QByteArray, QObject
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.desks.queue_controller import QueueController
from app.desktop import sleeping
from app.desktop.sleeping import (
    PBT_APMRESUMEAUTOMATIC,
    PBT_APMSUSPEND,
    WM_POWERBROADCAST,
    PowerMessages,
    Sleeping,
)
from app.main_window import MainWindow
from app.run_controller import RunController
from tests.fake_logind import IS_HERE, fake_logind
from tests.gui.settling import settle
from training_backend import runs
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
    Terminal,
)
from training_backend.queueing import run_queue
from training_backend.runs import Run
from training_backend.starting_points.demo import demo_job

SAVED = RunStopped(step=3, checkpoint="x", reason="sleep")


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that the window let go on; none of them gets a worker."""
    found: list[Run] = []
    monkeypatch.setattr(RunController, "resume", lambda self, run: found.append(run))
    monkeypatch.setattr(sleeping, "GO_ON_AFTER_MS", 0)
    return found


class Window(QObject):
    """What `Sleeping` needs of the window, with the real training and queue."""

    def __init__(self) -> None:
        super().__init__()
        self.training = RunController(self)
        self.queue = QueueController(self.training, self)
        self.told: list[tuple[str, str]] = []
        self.notifier = self
        self.sleeping = Sleeping(cast(MainWindow, self))

    def tell(self, title: str, text: str) -> None:
        self.told.append((title, text))


@pytest.fixture
def window(qapp: QApplication, resumed: list[Run]) -> Iterator[Window]:
    made = Window()
    yield made
    made.queue.shutdown()
    made.sleeping.shutdown()
    made.training.shutdown()


@pytest.fixture
def whole_window(qtbot: QtBot, resumed: list[Run]) -> Iterator[MainWindow]:
    made = MainWindow()
    qtbot.addWidget(made)
    made.show()
    qtbot.waitUntil(lambda: made.is_built("navRuns"))
    yield made
    made.closing.close_now()


def _open(window: Window | MainWindow, run: Run) -> None:
    window.training._run = run
    window.training._stop_asked = False
    window.training.run_opened.emit(run)


def _end(window: Window | MainWindow, run: Run, terminal: Terminal) -> None:
    window.training._run = None
    window.training.run_ended.emit(run, terminal)


@pytest.fixture
def run(window: Window) -> Run:
    """Under way, for all that the window knows."""
    made = runs.create(demo_job())
    _open(window, made)
    return made


def _sleep(window: Window | MainWindow) -> None:
    window.sleeping.hear("sleep")


def _wake(qtbot: QtBot, window: Window | MainWindow) -> None:
    window.sleeping.hear("wake")
    qtbot.wait(30)


def test_a_run_saved_before_the_sleep_goes_on_after_it_and_says_so(
    qtbot: QtBot,
    window: Window,
    run: Run,
    resumed: list[Run],
) -> None:
    _sleep(window)
    assert run.requests.stop_reason() == "sleep"
    _end(window, run, SAVED)
    qtbot.wait(30)
    assert not resumed and not window.told  # it sleeps
    _wake(qtbot, window)
    assert resumed == [run]
    ((title, text),) = window.told
    assert title == "Training goes on"
    assert text.endswith("goes on from where it was.")


def test_no_page_is_taken_away_by_a_run_that_goes_on(
    qtbot: QtBot, whole_window: MainWindow
) -> None:
    window = whole_window
    run = runs.create(demo_job())
    _open(window, run)
    _sleep(window)
    _end(window, run, SAVED)
    window.go_to("navSettings")
    _wake(qtbot, window)
    _open(window, run)
    assert window.page("navSettings").isVisible()
    _end(window, run, RunStopped(step=5, checkpoint="y"))
    _open(window, run)  # as the person resumes it
    assert window.page("navTrain").isVisible()


def test_a_run_that_could_not_save_in_time_goes_on_once_it_has(
    qtbot: QtBot, window: Window, run: Run, resumed: list[Run]
) -> None:
    _sleep(window)
    _wake(qtbot, window)
    assert not resumed
    _end(window, run, SAVED)
    qtbot.waitUntil(lambda: resumed == [run])


@pytest.mark.parametrize(
    "terminal",
    [
        RunInterrupted(cause="signal", detail="The worker was ended by SIGSEGV."),
        RunFailed(code="card_lost", message="The card is no longer there."),
    ],
)
def test_a_run_that_did_not_survive_the_sleep_goes_on_from_its_checkpoint_once(
    qtbot: QtBot, window: Window, run: Run, resumed: list[Run], terminal: Terminal
) -> None:
    _sleep(window)
    _wake(qtbot, window)
    _end(window, run, terminal)
    qtbot.waitUntil(lambda: resumed == [run])
    _open(window, run)
    _end(window, run, terminal)
    qtbot.wait(30)
    assert resumed == [run]


@pytest.mark.parametrize(
    "terminal", [RunCompleted(folder="x"), RunFailed(code="disk_full", message="No room.")]
)
def test_what_ended_for_a_reason_of_its_own_does_not_go_on(
    qtbot: QtBot, window: Window, run: Run, resumed: list[Run], terminal: Terminal
) -> None:
    _sleep(window)
    _end(window, run, terminal)
    _wake(qtbot, window)
    assert not resumed


def test_what_the_person_stopped_stays_stopped(
    qtbot: QtBot, window: Window, run: Run, resumed: list[Run]
) -> None:
    window.training.stop()
    _sleep(window)
    assert run.requests.stop_reason() == "asked"
    _end(window, run, RunStopped(step=3, checkpoint="x"))
    _wake(qtbot, window)
    assert not resumed


def test_who_stops_it_while_it_is_being_saved_is_obeyed(
    qtbot: QtBot, window: Window, run: Run, resumed: list[Run]
) -> None:
    _sleep(window)
    window.training.stop()
    assert run.requests.stop_reason() == "asked"
    _end(window, run, SAVED)  # the worker was faster
    _wake(qtbot, window)
    assert not resumed


@pytest.mark.parametrize("keeps", [True, False])
def test_a_paused_run_is_left_paused_where_its_memory_is_kept_and_stopped_where_not(
    qtbot: QtBot,
    window: Window,
    run: Run,
    resumed: list[Run],
    keeps: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sleeping, "card_keeps_memory", lambda: keeps)
    run.request("pause")
    _sleep(window)
    assert run.requested("stop") is not keeps
    _wake(qtbot, window)
    assert not resumed


@pytest.mark.parametrize("keeps", [True, False])
def test_a_step_whose_memory_the_card_forgot_is_not_saved(
    qtbot: QtBot, window: Window, run: Run, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleeping, "card_keeps_memory", lambda: keeps)
    ended: list[bool] = []
    monkeypatch.setattr(RunController, "end", lambda _: ended.append(True))
    _sleep(window)
    _wake(qtbot, window)
    assert bool(ended) is not keeps


def test_a_run_that_begins_while_the_computer_falls_asleep_is_saved_too(
    window: Window,
) -> None:
    _sleep(window)
    late = runs.create(demo_job())
    _open(window, late)
    assert late.requests.stop_reason() == "sleep"


def test_who_never_hears_of_the_waking_goes_on_after_a_while(
    qtbot: QtBot, window: Window, run: Run, resumed: list[Run]
) -> None:
    window.sleeping._surely_awake.setInterval(50)
    _sleep(window)
    _end(window, run, SAVED)
    qtbot.waitUntil(lambda: resumed == [run])


def test_the_queue_waits_for_a_run_that_the_sleep_stopped(
    qtbot: QtBot, window: Window, resumed: list[Run]
) -> None:
    first, second = run_queue.add([demo_job(), demo_job()])
    window.queue.start()
    qtbot.waitUntil(lambda: resumed == [first])
    _open(window, first)
    _write_end(first, SAVED)
    _sleep(window)
    _end(window, first, SAVED)
    settle(qtbot)
    assert resumed == [first]
    assert window.queue.is_going()
    _wake(qtbot, window)
    assert resumed == [first, first]
    _open(window, first)
    _write_end(first, RunCompleted(folder="x"))
    _end(window, first, RunCompleted(folder="x"))
    qtbot.waitUntil(lambda: resumed == [first, first, second])


def _write_end(run: Run, terminal: Terminal) -> None:
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(terminal)
    writer.close()


def test_the_end_of_the_session_lets_no_other_run_of_the_queue_begin(
    qtbot: QtBot, whole_window: MainWindow, resumed: list[Run]
) -> None:
    window = whole_window
    first, second = run_queue.add([demo_job(), demo_job()])
    window.queue.start()
    qtbot.waitUntil(lambda: resumed == [first])
    _open(window, first)
    window.sleeping.hear("shutdown")
    assert first.requests.stop_reason() == "system"
    end = RunStopped(step=3, checkpoint="x", reason="system")
    _write_end(first, end)
    _end(window, first, end)
    settle(qtbot)
    assert resumed == [first]
    assert [entry.run for entry in run_queue.entries()] == [second]


@pytest.mark.skipif(not IS_HERE, reason="needs D-Bus")
def test_the_computer_waits_for_a_run_under_way_and_for_nothing_else(
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
    window: Window,
    resumed: list[Run],
) -> None:
    with fake_logind() as (address, logind):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        run = runs.create(demo_job())
        assert not logind.asked
        _open(window, run)
        logind.until_held(True)
        logind.goes_to_sleep()
        qtbot.waitUntil(lambda: run.requests.stop_reason() == "sleep")
        assert logind.is_held()
        _end(window, run, SAVED)
        logind.until_held(False)
        logind.wakes()
        qtbot.waitUntil(lambda: resumed == [run])
        window.sleeping.shutdown()


def _message(number: int, what: int) -> ctypes.wintypes.MSG:
    made = ctypes.wintypes.MSG()
    made.message = number
    made.wParam = what
    return made


def test_what_windows_tells_every_window_is_heard_once(qapp: QApplication) -> None:
    told: list[str] = []
    messages = PowerMessages(told.append)

    def tell(number: int, what: int, kind: bytes = b"windows_generic_MSG") -> None:
        message = _message(number, what)
        assert messages.nativeEventFilter(QByteArray(kind), ctypes.addressof(message)) == (False, 0)

    tell(WM_POWERBROADCAST, PBT_APMRESUMEAUTOMATIC)  # of a sleep before we began
    tell(WM_POWERBROADCAST, PBT_APMSUSPEND, b"xcb_generic_event_t")
    tell(0x0100, PBT_APMSUSPEND)
    assert told == []
    for _ in range(2):
        for what in (PBT_APMSUSPEND, PBT_APMSUSPEND, PBT_APMRESUMEAUTOMATIC, 7):
            tell(WM_POWERBROADCAST, what)
    assert told == ["sleep", "wake", "sleep", "wake"]


def test_windows_is_made_to_wait_for_a_run_that_saves_quickly_and_not_for_a_slow_one(
    window: Window, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(sleeping, "wait_for_end", lambda _, seconds: waited.append(seconds))
    window.sleeping._on_message("sleep")
    window.sleeping._on_message("wake")
    (seconds,) = waited
    assert seconds < 2  # as long as Windows waits
