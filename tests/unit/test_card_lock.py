"""Two trainings do not fight over one card."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from training_backend import runs
from training_backend.computer.devices import Device
from training_backend.errors import StopRequested
from training_backend.job import parse_job
from training_backend.lifecycle import card_lock
from training_backend.protocol import Event, PhaseChanged
from training_backend.runs import Run
from training_backend.worker import Reporter

REPOSITORY = Path(__file__).parents[2]
CARD = Device("cuda", "A card", 24 * 2**30, uuid="GPU-11/22")
HOLDER = """
import queue, sys, time
from pathlib import Path
from training_backend.lifecycle import card_lock
from training_backend.computer.devices import Device
from training_backend.runs import Run
from training_backend.worker import Reporter
reporter = Reporter(Run(Path(sys.argv[1])), queue.Queue())
card_lock.hold(Device("cuda", "A card", 1, uuid="GPU-11/22"), "the first <b>run</b>", reporter)
print("held", flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def _run() -> Run:
    return runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that has the card."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(_run().folder)],
        cwd=REPOSITORY,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def reporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reporter]:
    monkeypatch.setattr(card_lock, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(card_lock, "_held", {})
    made = Reporter(_run(), queue.Queue())
    yield made
    made.close()
    for lock in card_lock._held.values():
        lock.release()


def _waits(reporter: Reporter) -> list[Event]:
    return [e for e in reporter.run.events() if isinstance(e, PhaseChanged)]


def test_a_free_card_is_taken_at_once_and_stays_this_processs(reporter: Reporter) -> None:
    card_lock.hold(CARD, "a run", reporter)
    card_lock.hold(CARD, "its trial", reporter)
    assert not _waits(reporter)


def test_a_run_waits_until_the_one_that_has_the_card_is_gone_however_it_ended(
    holder: subprocess.Popen[str], reporter: Reporter
) -> None:
    waiting = threading.Thread(target=card_lock.hold, args=(CARD, "the second", reporter))
    waiting.start()
    while not _waits(reporter):
        waiting.join(0.02)
        assert waiting.is_alive()
    waiting.join(0.1)
    assert waiting.is_alive()
    assert [(e.phase, e.detail) for e in _waits(reporter) if isinstance(e, PhaseChanged)] == [
        ("waiting", "“the first <b>run</b>” is using it")
    ]
    holder.kill()
    waiting.join(60)
    assert not waiting.is_alive() and card_lock._held


def test_another_card_is_not_waited_for(holder: subprocess.Popen[str], reporter: Reporter) -> None:
    card_lock.hold(Device("cuda", "Another", 1, uuid="GPU-33"), "a run", reporter)
    assert not _waits(reporter)


def test_a_waiting_run_can_be_stopped(holder: subprocess.Popen[str], reporter: Reporter) -> None:
    reporter.run.request("stop")
    with pytest.raises(StopRequested):
        card_lock.hold(CARD, "the second", reporter)
    assert not card_lock._held
