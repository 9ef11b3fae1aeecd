"""What the computer is about to do is heard, and it waits until all is saved."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_logind import IS_HERE, FakeLogind, fake_logind
from training_backend.computer import sleep_watch
from training_backend.computer.sleep_watch import SleepWatch, card_keeps_memory

needs_a_bus = pytest.mark.skipif(not IS_HERE, reason="needs D-Bus")
SECONDS = 60.0


@pytest.fixture
def logind(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLogind]:
    with fake_logind() as (address, made):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield made


@pytest.fixture
def heard() -> queue.Queue[str]:
    return queue.Queue()


@pytest.fixture
def watch(heard: queue.Queue[str]) -> Iterator[SleepWatch]:
    made = SleepWatch(heard.put)
    yield made
    made.end()
    assert "sleep-watch" not in {thread.name for thread in threading.enumerate()}


@needs_a_bus
def test_the_computer_waits_while_there_is_something_to_save_and_no_longer(
    logind: FakeLogind, watch: SleepWatch, heard: queue.Queue[str]
) -> None:
    watch.begin()
    watch.begin()
    watch.hold()
    logind.until_held(True)
    assert logind.asked == [
        ("sleep:shutdown", "Lorasmith", "Saves the training under way", "delay")
    ]
    logind.goes_to_sleep()
    assert heard.get(timeout=SECONDS) == "sleep"
    assert logind.is_held()
    watch.let_go()
    logind.until_held(False)
    logind.wakes()
    assert heard.get(timeout=SECONDS) == "wake"
    assert not logind.is_held()
    watch.hold()
    logind.until_held(True)
    assert len(logind.asked) == 2


@needs_a_bus
def test_who_could_not_save_in_time_is_waited_for_the_next_time_too(
    logind: FakeLogind, watch: SleepWatch, heard: queue.Queue[str]
) -> None:
    watch.hold()
    watch.begin()
    logind.until_held(True)
    logind.goes_to_sleep()
    logind.wakes()
    logind.shuts_down()
    assert [heard.get(timeout=SECONDS) for _ in range(3)] == ["sleep", "wake", "shutdown"]
    assert logind.is_held()


@needs_a_bus
def test_a_lock_that_was_refused_while_falling_asleep_is_taken_at_waking(
    logind: FakeLogind, watch: SleepWatch, heard: queue.Queue[str]
) -> None:
    logind.refuses = True
    watch.begin()
    watch.hold()
    logind.until_asked()
    logind.goes_to_sleep()
    assert heard.get(timeout=SECONDS) == "sleep"
    assert not logind.is_held()
    logind.refuses = False
    logind.wakes()
    assert heard.get(timeout=SECONDS) == "wake"
    logind.until_held(True)


@needs_a_bus
def test_a_bus_that_goes_away_ends_the_watch_without_a_word(
    monkeypatch: pytest.MonkeyPatch, watch: SleepWatch, heard: queue.Queue[str]
) -> None:
    with fake_logind() as (address, logind):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        watch.begin()
        watch.hold()
        logind.until_held(True)
    watch.let_go()
    assert heard.empty()


def test_without_a_bus_nothing_is_heard_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watch: SleepWatch, heard: queue.Queue[str]
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'none'}")
    watch.begin()
    watch.hold()
    watch.let_go()
    assert heard.empty()


@pytest.mark.parametrize(
    ("settings", "keeps"),
    [
        (None, True),
        ("ResmanDebugLevel: 4294967295\nPreserveVideoMemoryAllocations: 0\n", False),
        ('PreserveVideoMemoryAllocations: 1\nTemporaryFilePath: "/var/tmp"\n', True),
    ],
)
def test_only_a_driver_that_says_so_forgets_what_lay_in_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str | None, keeps: bool
) -> None:
    file = tmp_path / "params"
    monkeypatch.setattr(sleep_watch, "NVIDIA_SETTINGS", file)
    if settings is not None:
        file.write_text(settings)
    assert card_keeps_memory() is keeps
