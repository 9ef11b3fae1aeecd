"""Time in which a run stood still is told apart from time in which it trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle.pauses import Pauses
from training_backend.protocol import (
    Event,
    Heartbeat,
    PhaseChanged,
    RunInterrupted,
    RunStarted,
    RunStopped,
)
from training_backend.summaries import run_facts


def told(*events: Event) -> Pauses:
    pauses = Pauses()
    for event in events:
        pauses.take(event)
    return pauses


def began(elapsed: float = 0.0) -> RunStarted:
    return RunStarted(run_id="x", folder="x", pid=1, elapsed=elapsed)


def phase(name: str, elapsed: float) -> PhaseChanged:
    return PhaseChanged.model_validate({"phase": name, "elapsed": elapsed})


def test_a_pause_lasts_until_the_training_goes_on_whatever_lies_between() -> None:
    pauses = told(began(), phase("training", 5), phase("paused", 10), phase("sampling", 20),
                  phase("paused", 30))  # fmt: skip
    assert pauses.is_on and pauses.seconds == 0
    pauses.take(phase("training", 110))
    assert not pauses.is_on and pauses.seconds == 100
    assert pauses.worked(5.0) == 5 and pauses.worked(120.0) == 20
    assert list(pauses.worked(np.array([5.0, 10.0, 110.0, 120.0]))) == [5, 10, 10, 20]


def test_waiting_for_room_on_the_disk_counts_alike() -> None:
    assert told(began(), phase("no_room", 10), phase("training", 25)).seconds == 15


def test_waiting_for_a_card_ends_with_whatever_comes_next() -> None:
    pauses = told(began(), phase("waiting", 1), phase("waiting", 300), phase("loading", 601))
    assert not pauses.is_on and pauses.seconds == 600
    pauses.take(phase("training", 640))
    assert pauses.seconds == 600 and pauses.worked(650.0) == 50


def test_pauses_of_several_attempts_add_up() -> None:
    pauses = told(
        began(), phase("paused", 10), RunStopped(elapsed=40),
        began(), phase("paused", 5), phase("training", 6), phase("paused", 8), phase("training", 9),
    )  # fmt: skip
    assert pauses.seconds == 32
    assert pauses.worked(20.0) == 18  # those of the earlier attempt do not matter to this one


@pytest.mark.parametrize("by_event", [True, False])
def test_a_paused_worker_that_died_was_paused_for_as_long_as_it_was_heard_of(
    by_event: bool,
) -> None:
    pauses = told(began(), phase("paused", 10))
    if by_event:
        pauses.take(Heartbeat(elapsed=70))
    else:
        pauses.reach(70)
    pauses.take(RunInterrupted(cause="vanished", detail="", elapsed=0.0))
    assert pauses.seconds == 60


def test_a_sweep_compares_runs_without_their_pauses(lorasmith_home: Path) -> None:
    run = runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))
    events = [
        began(), phase("training", 10), phase("paused", 20), phase("training", 3_620),
        RunStopped(step=1, checkpoint=None, elapsed=3_650),
    ]  # fmt: skip
    lines = [event.model_copy(update={"seq": n}) for n, event in enumerate(events)]
    text = "".join(line.model_dump_json() + "\n" for line in lines)
    (run.folder / "events.jsonl").write_text(text, encoding="utf-8")
    assert run_facts.read(run).seconds == 50
