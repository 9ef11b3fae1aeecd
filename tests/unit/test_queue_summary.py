"""What one is told in the morning: which runs of the queue ended, how, and why."""

from __future__ import annotations

import time

import pytest

from training_backend import runs
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    Event,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
)
from training_backend.queueing import queue_summary, run_queue
from training_backend.runs import Run
from training_backend.summaries import run_facts

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def job(name: str) -> TrainingJob:
    made = parse_job({"name": name, "model": {"id": "demo"}, "dataset": {"path": "demo"}})
    assert isinstance(made, TrainingJob)
    return made


def write(run: Run, *events: Event) -> Run:
    writer = JournalWriter(run.folder)
    for event in (RunStarted(run_id=run.id, folder=str(run.folder), pid=1), *events):
        writer.append(event)
    writer.close()
    return run


def ended(*endings: Event) -> list[Run]:
    made = run_queue.add([job(f"run {n}") for n in range(len(endings))])
    return [write(run, ending) for run, ending in zip(made, endings, strict=True)]


FAILED = RunFailed(code="x", message="The card ran out of memory.", remedy="Choose less.")


def test_every_run_of_the_queue_that_ended_since_then_is_told_in_the_order_of_their_ends() -> None:
    began = time.time() - 1
    first, second = ended(RunCompleted(folder="x"), FAILED)
    run_queue.add([job("still waiting")])
    found = queue_summary.ended_since(began)
    assert [(one.run, one.state) for one in found] == [(first, "completed"), (second, "failed")]
    assert found[1].cause == "The card ran out of memory. Choose less."
    assert queue_summary.sentence(found, 1) == "1 run came to the end, 1 failed; 1 is waiting."


def test_what_was_told_before_and_what_never_waited_is_left_out() -> None:
    ended(RunCompleted(folder="x"))
    write(runs.create(job("started by hand")), RunCompleted(folder="x"))
    assert [one.name for one in queue_summary.ended_since(0)] == ["run 0"]
    assert queue_summary.ended_since(time.time() + 1) == []


def test_a_run_with_a_damaged_job_goes_by_its_id() -> None:
    (run,) = ended(RunCompleted(folder="x"))
    (run.folder / "job.json").write_text("{")
    assert [one.name for one in queue_summary.ended_since(0)] == [run.id]


@pytest.mark.parametrize(
    ("endings", "waiting", "words"),
    [
        ((), 0, "No run has ended."),
        ((), 2, "No run has ended; 2 are waiting."),
        ((RunCompleted(folder="x"),) * 2, 0, "2 runs came to the end."),
        ((RunStopped(),), 3, "1 run was stopped; 3 are waiting."),
        (
            (RunInterrupted(cause="signal"), RunInterrupted(cause="signal"), FAILED),
            0,
            "1 run failed, 2 were cut off.",
        ),
    ],
)
def test_the_sentence_reads_well(endings: tuple[Event, ...], waiting: int, words: str) -> None:
    ended(*endings)
    assert queue_summary.sentence(queue_summary.ended_since(0), waiting) == words


def test_the_time_of_a_run_is_that_of_all_its_attempts_and_the_last_one_tells_how_it_ended() -> (
    None
):
    (run,) = run_queue.add([job("resumed")])
    step = MetricsLogged(step=1, total_steps=2, epoch=1, loss=2.0)
    write(run, step, RunInterrupted(cause="signal"))
    first = run_facts.read(run).seconds
    write(run, step.model_copy(update={"step": 2, "loss": 1.0}))
    facts = run_facts.read(run)
    assert facts.terminal is None and facts.state == "interrupted"
    write(run, RunCompleted(folder="x"))
    facts = run_facts.read(run)
    assert facts.state == "completed" and facts.cause == "" and facts.seconds >= first
    assert (facts.step, facts.total_steps, facts.train_loss) == (2, 2, 1.5)


def test_the_time_in_which_a_run_waited_or_was_paused_is_not_its_own() -> None:
    (run,) = run_queue.add([job("patient")])
    told: list[tuple[float, Event]] = [
        (0.0, RunStarted(run_id=run.id, folder=str(run.folder), pid=1)),
        (1.0, PhaseChanged(phase="waiting")),
        (600.0, PhaseChanged(phase="loading")),
        (610.0, PhaseChanged(phase="training")),
        (620.0, PhaseChanged(phase="paused")),
        (650.0, PhaseChanged(phase="paused")),
        (700.0, PhaseChanged(phase="training")),
        (705.0, RunInterrupted(cause="signal")),
        (0.0, RunStarted(run_id=run.id, folder=str(run.folder), pid=1, attempt=2)),
        (3.0, RunCompleted(folder="x")),
    ]
    lines = [
        event.model_copy(update={"seq": seq, "elapsed": elapsed}).model_dump_json() + "\n"
        for seq, (elapsed, event) in enumerate(told)
    ]
    (run.folder / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    assert run_facts.read(run).seconds == 1 + 20 + 5 + 3
