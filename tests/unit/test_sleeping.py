"""A run followed at a terminal is saved before the computer sleeps, and goes on after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fake_logind import IS_HERE, FakeLogind, fake_logind
from training_backend import runs
from training_backend.lifecycle import sleeping
from training_backend.protocol import Event, LogLine, RunCompleted, RunInterrupted, RunStopped
from training_backend.runs import Run
from training_backend.starting_points.demo import demo_job

pytestmark = pytest.mark.skipif(not IS_HERE, reason="needs D-Bus")

SAVED = RunStopped(step=3, checkpoint="x", reason="sleep")
DONE = RunCompleted(folder="x")


@pytest.fixture
def logind(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLogind]:
    monkeypatch.setattr(sleeping, "GO_ON_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(sleeping, "LOOK_SECONDS", 0.01)
    with fake_logind() as (address, made):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield made


@pytest.fixture
def run(lorasmith_home: Path) -> Run:
    return runs.create(demo_job())


def _until_asked(run: Run) -> Iterator[None]:
    while not run.requested("stop"):
        yield None


def _followed(run: Run, *attempts: Callable[[], Iterator[Event | None]]) -> list[str]:
    """The types of all events; each attempt is what a worker would say and do."""
    waiting = list(attempts)
    events = sleeping.through_sleeps(run, lambda: waiting.pop(0)())
    return [event.type for event in events if event is not None]


def test_a_run_goes_on_after_each_sleep_to_its_end(logind: FakeLogind, run: Run) -> None:
    def sleeps() -> Iterator[Event | None]:
        logind.until_held(True)
        logind.goes_to_sleep()
        yield from _until_asked(run)
        assert run.requests.stop_reason() == "sleep"
        run.clear_requests()
        logind.wakes()
        yield SAVED

    def ends() -> Iterator[Event | None]:
        logind.until_held(True)
        yield DONE

    assert _followed(run, sleeps, sleeps, ends) == ["RunStopped", "RunStopped", "RunCompleted"]
    logind.until_held(False)


def test_it_waits_for_the_waking_and_holds_the_computer_no_longer(
    logind: FakeLogind, run: Run
) -> None:
    def sleeps() -> Iterator[Event | None]:
        logind.until_held(True)
        logind.goes_to_sleep()
        yield from _until_asked(run)
        run.clear_requests()
        yield SAVED

    def ends() -> Iterator[Event | None]:
        yield DONE

    events = sleeping.through_sleeps(run, lambda: waiting.pop(0)())
    waiting: list[Callable[[], Iterator[Event | None]]] = [sleeps, ends]
    assert next(event for event in events if event is not None) == SAVED
    assert next(events) is None
    logind.until_held(False)
    assert [next(events) for _ in range(20)] == [None] * 20
    logind.wakes()
    assert [event for event in events if event is not None] == [DONE]


def test_what_the_person_stops_while_it_sleeps_stays_stopped(logind: FakeLogind, run: Run) -> None:
    def sleeps() -> Iterator[Event | None]:
        logind.until_held(True)
        logind.goes_to_sleep()
        yield from _until_asked(run)
        run.clear_requests()
        logind.wakes()
        yield SAVED

    events = sleeping.through_sleeps(run, sleeps)
    assert next(event for event in events if event is not None) == SAVED
    run.request("stop")
    assert [event for event in events if event is not None] == []


@pytest.mark.parametrize("wish", ["stop", "pause"])
def test_what_the_person_has_stopped_or_paused_is_let_be(
    logind: FakeLogind, run: Run, wish: str
) -> None:
    def goes_on() -> Iterator[Event | None]:
        logind.until_held(True)
        (run.folder / "requests" / wish).touch()
        logind.goes_to_sleep()
        logind.shuts_down()
        yield from _until_asked(run)
        yield RunStopped(step=3, checkpoint="x", reason=run.requests.stop_reason())

    assert _followed(run, goes_on) == ["RunStopped"]
    assert run.requests.stop_reason() == ("asked" if wish == "stop" else "system")


@pytest.mark.parametrize("keeps", [True, False])
def test_a_step_whose_memory_the_card_forgot_is_ended_and_the_run_goes_on(
    logind: FakeLogind, run: Run, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Run] = []
    monkeypatch.setattr(sleeping, "kill", killed.append)
    monkeypatch.setattr(sleeping, "card_keeps_memory", lambda: keeps)

    def sleeps() -> Iterator[Event | None]:
        logind.until_held(True)
        logind.goes_to_sleep()
        yield from _until_asked(run)
        logind.wakes()
        yield LogLine(message="a slow step")
        for _ in range(200 if keeps else 2_000_000):
            if killed:
                break
            yield None
        run.clear_requests()
        yield SAVED if keeps else RunInterrupted(cause="signal", detail="It was ended.")

    def ends() -> Iterator[Event | None]:
        yield DONE

    assert _followed(run, sleeps, ends)[-1] == "RunCompleted"
    assert bool(killed) is not keeps
