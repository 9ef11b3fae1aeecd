"""A run that does not move is noticed; one that is slow, sleeps or waits is not taken for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.protocol import (
    Event,
    Heartbeat,
    MemorySampled,
    MetricsLogged,
    Phase,
    PhaseChanged,
    RunStarted,
    RunStopped,
)
from training_backend.runs import Run
from training_backend.watching import standstill
from training_backend.watching.standstill import Notices, Standstill, Watch

SAMPLE = MemorySampled(device="cpu", process_bytes=1, device_used_bytes=1, device_total_bytes=2)


def step(number: int, elapsed: float) -> MetricsLogged:
    return MetricsLogged(step=number, total_steps=99, epoch=0.1, loss=1.0, elapsed=elapsed)


def phase(name: Phase, elapsed: float = 0.0) -> PhaseChanged:
    return PhaseChanged(phase=name, elapsed=elapsed)


def watching(*events: Event) -> Watch:
    watch = Watch()
    for event in (RunStarted(run_id="x", folder="x", pid=1), *events):
        watch.take(event)
    return watch


def steps(seconds: float) -> Iterable[Event]:
    """Ten steps of so many seconds each."""
    yield phase("training")
    for number in range(1, 11):
        yield step(number, number * seconds)


def wait(watch: Watch, seconds: float, *, alive: bool = True) -> Standstill | None:
    """Second by second; one that is alive tells its memory."""
    found = None
    for _ in range(round(seconds)):
        if alive:
            watch.take(SAMPLE)
        found = watch.passed(1.0)
    return found


def test_a_worker_that_says_nothing_at_all_is_noticed_after_a_minute() -> None:
    watch = watching(*steps(2.0))
    assert wait(watch, 59, alive=False) is None
    assert wait(watch, 1, alive=False) == Standstill("silent", 60, 2.0, 10)
    watch.take(SAMPLE)
    assert watch.passed(1.0) is None


def test_work_that_stands_still_is_noticed_though_its_worker_says_that_it_lives() -> None:
    watch = watching(*steps(2.0))
    assert wait(watch, 299) is None
    assert wait(watch, 1) == Standstill("still", 300, 2.0, 10)
    watch.take(step(11, 330.0))
    assert wait(watch, 1) is None


def test_slow_steps_are_given_ten_times_their_time() -> None:
    watch = watching(*steps(120.0))
    assert wait(watch, 1_199) is None
    assert wait(watch, 1) is not None


def test_a_long_test_or_step_that_shows_signs_of_life_is_no_standstill() -> None:
    watch = watching(*steps(2.0))
    for _ in range(10):
        assert wait(watch, 250) is None
        watch.take(Heartbeat(working=True))
    assert wait(watch, 250) is None
    watch.take(Heartbeat())  # of the worker, not of its work
    assert wait(watch, 50) is not None


def test_loading_and_the_first_step_are_given_half_an_hour() -> None:
    for events in ([phase("loading")], [phase("loading"), phase("training", 60.0)]):
        watch = watching(*events)
        assert wait(watch, 1_799) is None
        assert wait(watch, 1) is not None


def test_loading_may_keep_the_worker_from_answering_for_longer() -> None:
    watch = watching(phase("loading"))
    assert wait(watch, 179, alive=False) is None
    assert wait(watch, 1, alive=False) is not None


@pytest.mark.parametrize("name", ["paused", "waiting"])
def test_a_run_that_waits_on_purpose_does_not_stand_still(name: Phase) -> None:
    watch = watching(*steps(2.0), phase(name, 21.0))
    assert wait(watch, 5_000) is None
    watch.take(phase("training", 5_021.0))
    watch.take(step(11, 5_023.0))
    assert wait(watch, 299) is None and wait(watch, 1) is not None  # the pause was no long step


def test_on_a_full_disk_a_worker_that_can_write_nothing_is_not_silent() -> None:
    watch = watching(*steps(2.0), phase("no_room", 21.0))
    assert wait(watch, 5_000, alive=False) is None


def test_a_computer_that_slept_is_no_standstill() -> None:
    watch = watching(*steps(2.0))
    assert watch.passed(8 * 3600.0) is None
    assert wait(watch, 40, alive=False) is None


def test_another_attempt_is_measured_anew() -> None:
    watch = watching(*steps(120.0), RunStopped(step=10))
    watch.take(RunStarted(run_id="x", folder="x", pid=2, attempt=2))
    for event in steps(2.0):
        watch.take(event)
    assert wait(watch, 300) == Standstill("still", 300, 2.0, 10)


def test_it_is_said_once_again_when_it_has_doubled_and_when_it_is_over() -> None:
    notices = Notices()
    found = [notices.of(Standstill("still", seconds)) for seconds in (300, 305, 599, 600, 900)]
    assert [one.seconds if isinstance(one, Standstill) else one for one in found] == [
        300, None, None, 600, None,
    ]  # fmt: skip
    assert [notices.of(None), notices.of(None)] == ["moves", None]


def test_a_terminal_is_told_in_a_sentence() -> None:
    assert standstill.sentence(Standstill("silent", 60, 2.0, 10)) == (
        "The worker has not answered for 60 s after step 10."
    )
    assert standstill.sentence(Standstill("still", 300, 2.0, 10)) == (
        "The training has stood still for 5 min after step 10 "
        "(so far no step took longer than 2 s)."
    )


HOLD = """
import sys; from pathlib import Path
from training_backend.runs import Run
run = Run(Path(sys.argv[1]))
with run.worker_lock().acquire():
    run.claim()
    print("held", flush=True)
    sys.stdin.readline()
    while True: pass
"""


@pytest.mark.skipif(os.name == "nt", reason="halts a process by a signal")
def test_what_the_process_does_is_told(lorasmith_home: Path) -> None:
    run = runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))
    assert standstill.doing(run) == "unknown"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        assert standstill.doing(Run(run.folder)) == "waits"
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert standstill.doing(run) == "computes"
        os.kill(process.pid, signal.SIGSTOP)
        assert standstill.doing(run) == "halted"
    finally:
        process.kill()
        process.communicate()
