"""Runs one after the other, unattended, by the real command line and on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.protocol import parse_event
from training_backend.queueing import queue_file, run_queue, sweeps

REPOSITORY = Path(__file__).parents[2]
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(command_line: Call) -> Call:
    """As `command_line`; whatever happens, nobody is shown a traceback."""

    def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        answer = command_line(*arguments)
        assert "Traceback" not in answer.stdout + answer.stderr, answer.stderr
        return answer

    return called


@pytest.fixture
def job_file(job_document: Any, tmp_path: Path) -> Callable[..., Path]:
    """A job file of this name; sections are changed as by `job_document`."""

    def write(name: str, **sections: dict[str, Any]) -> Path:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps({**job_document(**sections), "name": name}), encoding="utf-8")
        return path

    return write


def states() -> dict[str, str]:
    return {summary.name: summary.state for summary in runs.list_runs()}


@pytest.mark.slow
def test_a_queue_with_a_failing_run_and_a_sweep_of_three_ranks_end_unattended(
    call: Call, job_file: Callable[..., Path]
) -> None:
    good, bad = job_file("good"), job_file("bad", dataset={"path": "no/such/rows.jsonl"})
    added = call("queue", "--later", good, bad)
    assert added.returncode == 0 and "good" in added.stdout
    assert states() == {"good": "queued", "bad": "queued"}

    job = job_file("try", evaluation={"held_out_fraction": 0.25, "eval_steps": 3})
    answer = call("sweep", job, "--vary", "lora.r=2,4,8", "--json")

    assert answer.returncode == 1, answer.stderr  # one failed, yet all were tried
    ranks = {f"try, rank {r}": "completed" for r in (2, 4, 8)}
    assert states() == {"good": "completed", "bad": "failed", **ranks}
    assert run_queue.entries() == []

    document = json.loads(answer.stdout)
    rows = document["runs"]
    assert [row["values"] for row in rows] == [{"lora.r": r} for r in (2, 4, 8)]
    for row in rows:
        assert row["state"] == "completed" and row["cause"] is None
        assert row["train_loss"] > 0 and row["held_out_loss"] > 0
        assert row["seconds"] > 0 and row["tokens_per_second"] > 0 and row["peak_bytes"] > 1e6
    best = min(rows, key=lambda row: row["held_out_loss"])
    assert [row["best"] for row in rows] == [row is best for row in rows]
    assert document["verdict"]["by"] == "held_out" and "seed" in document["verdict"]["text"]

    listed = call("queue")
    assert "no/such/rows.jsonl" in listed.stdout and "Nothing waits." in listed.stdout
    shown = call("sweep", "--show", document["id"])
    assert "completed, best" in shown.stdout and document["verdict"]["text"] in shown.stdout
    assert "lora.r=2,4,8" in call("sweep").stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to one process")
def test_ctrl_c_stops_the_run_under_way_and_what_waits_behind_it_stays(
    job_file: Callable[..., Path], lorasmith_home: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "training_backend", "queue", "--json",
         str(job_file("first")), str(job_file("second"))],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline()  # RunStarted; now the worker imports torch
    process.send_signal(signal.SIGINT)
    # `communicate` would pass over what came together with the first line.
    out, err = process.stdout.read(), process.stderr.read()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    assert process.returncode == 3, err
    types = [parse_event(line).type for line in [first, *out.splitlines()]]
    assert (types[0], types[-1]) == ("RunStarted", "RunStopped")
    assert states() == {"first": "stopped", "second": "queued"}
    assert run_queue.is_paused() and not queue_file.is_worked_on()
    assert "1 run was stopped; 1 is waiting." in err and "Traceback" not in err


# ------------------------------------------------------------------- what needs no training


def test_the_queue_is_listed_in_words_and_as_json(call: Call, job_file: Any) -> None:
    assert call("queue").stdout == "Nothing waits.\n"
    answer = call("queue", "--later", "--json", job_file("first"), job_file("[red]second"))
    document = json.loads(answer.stdout)
    assert [entry["name"] for entry in document["waiting"]] == ["first", "[red]second"]
    assert document["paused"] is document["worked_on"] is False
    assert "[red]second" in call("queue").stdout
    first = document["waiting"][0]["id"]
    left = json.loads(call("queue", "--remove", first, "--json").stdout)["waiting"]
    assert [entry["name"] for entry in left] == ["[red]second"]
    assert not Path(document["waiting"][0]["folder"]).exists()


def test_a_mistake_in_one_job_file_adds_none_of_them(call: Call, job_file: Any) -> None:
    answer = call("queue", job_file("good"), job_file("bad", lora={"r": 0}))
    assert answer.returncode == 1 and answer.stdout == ""
    assert "lora.r" in answer.stderr and "bad.json" in answer.stderr
    assert run_queue.entries() == [] and runs.list_runs() == []


def test_with_nothing_to_do_it_is_done(call: Call) -> None:
    answer = call("queue", "--run")
    assert answer.returncode == 0
    assert "No run has ended." in answer.stderr


def test_what_another_program_works_through_is_left_to_it(call: Call, job_file: Any) -> None:
    with run_queue.working():
        added = call("queue", job_file("first"))
        assert added.returncode == 0 and "Another program" in added.stderr
        refused = call("queue", "--run")
        assert refused.returncode == 1 and "Another program" in refused.stderr
    assert [entry.name for entry in run_queue.entries()] == ["first"]


@pytest.mark.parametrize(
    ("varied", "words"),
    [
        (["lora.r=0,8"], "lora.r: 0: "),
        (["lora.r=8"], "two values or more"),
        ([], "two values or more"),
        (["colour=1,2"], "colour: cannot be varied"),
        (["training.learning_rate=NaN,1e-4"], "learning_rate"),
        (["lora.r=1,2,3,4,5", "seed=1,2,3,4,5"], "25 runs"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_made(
    call: Call, job_file: Any, varied: list[str], words: str
) -> None:
    answer = call("sweep", job_file("try"), *(part for one in varied for part in ("--vary", one)))
    assert answer.returncode == 1 and answer.stdout == ""
    assert words in answer.stderr
    assert run_queue.entries() == [] and sweeps.list_sweeps() == []


def test_a_sweep_of_a_model_that_is_not_there_is_refused_at_once(call: Call, job_file: Any) -> None:
    job = job_file("try", model={"id": "/no/such/model"})
    answer = call("sweep", job, "--vary", "lora.r=2,4")
    assert answer.returncode == 1 and "model.id" in answer.stderr
    assert run_queue.entries() == []


@pytest.mark.parametrize("arguments", [["--vary", "lora.r"], ["--vary"], ["a.json", "b.json"]])
def test_wrong_usage_of_sweep_is_exit_code_2(call: Call, arguments: list[str]) -> None:
    answer = call("sweep", *arguments)
    assert answer.returncode == 2 and "usage:" in answer.stderr
