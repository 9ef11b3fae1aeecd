"""A run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle.checkpoints import COMPLETE
from training_backend.runs import Run

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def demanding_job(job_document: Any) -> dict[str, Any]:
    """Everything that draws random numbers; an epoch is 9 steps."""
    job: dict[str, Any] = job_document(
        lora={"lora_dropout": 0.2},
        training={"max_steps": 12, "save_steps": 3, "save_total_limit": 10},
        evaluation={"held_out_fraction": 0.25, "eval_steps": 2, "prompts": ["Hi"],
                    "max_new_tokens": 2},
    )  # fmt: skip
    return job


def _numbers(events: list[Any]) -> dict[tuple[str, int], tuple[Any, ...]]:
    """What the journal says of each step; a later attempt supersedes an earlier one."""
    told: dict[tuple[str, int], tuple[Any, ...]] = {}
    for event in events:
        if event.type == "MetricsLogged":
            told["train", event.step] = (
                event.loss, event.grad_norm, event.learning_rate, event.epoch
            )  # fmt: skip
        elif event.type == "EvaluationLogged":
            told["evaluation", event.step] = (event.loss, event.epoch)
    return told


def _weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


def _go_back_to(run: Run, step: int) -> None:
    """Make the run look as if it had been killed after `step`, and then restarted."""
    shutil.rmtree(run.adapter)
    for folder in run.checkpoints.iterdir():
        if int(folder.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(folder)
    journal = run.folder / "events.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))


@pytest.mark.parametrize(
    ("step", "in_4bit", "training"),
    [
        pytest.param(6, True, {}, id="within an epoch"),
        pytest.param(9, True, {}, id="between epochs"),
        pytest.param(6, False, {}, id="16-bit"),
        pytest.param(6, True, {"gradient_accumulation_steps": 2}, id="accumulation"),
        pytest.param(6, True, {"packing": True}, id="packing"),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one(
    do: Any, demanding_job: dict[str, Any], step: int, in_4bit: bool, training: dict[str, Any]
) -> None:
    job = {
        **demanding_job,
        "quantization": {"load_in_4bit": in_4bit},
        "training": {**demanding_job["training"], **training},
    }
    whole = do(job)
    assert whole.exit_code == 0
    expected, weights = _numbers(whole.events), _weights(whole.run)
    assert len(expected) == 12 + 6

    _go_back_to(whole.run, step)
    resumed = do(whole.run)
    assert resumed.exit_code == 0
    assert resumed.of("RunStarted")[-1].resumed_from_step == step
    began = resumed.events.index(resumed.of("RunStarted")[-1])
    again = _numbers(resumed.events[began:])
    assert again == {key: told for key, told in expected.items() if key[1] > step}
    assert _weights(whole.run) == weights


@pytest.mark.slow
def test_a_run_killed_in_the_middle_and_resumed_equals_the_uninterrupted_one(
    do: Any, command_line: Any, demanding_job: dict[str, Any], tmp_path: Path
) -> None:
    whole = do(demanding_job)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(demanding_job), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "training_backend", "train", file],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    run = _killed_after(5, process)
    printed, told = process.communicate()
    assert process.returncode == 1
    assert printed.splitlines()[-1] == str(run.folder)
    assert "ended by SIGKILL" in told and "Traceback" not in told
    assert run.state() == "interrupted" and not run.adapter.exists()

    # Of these none is a checkpoint: one that looks finished but is not, one with a flipped
    # byte, and one in the making.
    newest = max(run.checkpoints.iterdir(), key=lambda folder: int(folder.name[11:]))
    sound = int(newest.name[11:])
    half = shutil.copytree(newest, run.checkpoints / "checkpoint-98")
    (half / COMPLETE).unlink()
    flipped = shutil.copytree(newest, run.checkpoints / "checkpoint-99") / "optimizer.pt"
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    shutil.copytree(newest, run.folder / "staging" / "checkpoint-11")

    answer = command_line("resume", run.id)
    assert answer.returncode == 0, answer.stderr
    assert f"Going on from step {sound}." in answer.stderr
    assert run.state() == "completed"
    kinds = [event.type for event in run.events()]
    assert [k for k in kinds if k.startswith("Run")] == [
        "RunStarted",
        "RunInterrupted",
        "RunStarted",
        "RunCompleted",
    ]
    assert [event.seq for event in run.events()] == list(range(len(kinds)))
    assert _numbers(run.events()) == _numbers(whole.events)
    assert _weights(run) == _weights(whole.run)
    assert {p.name for p in (run.folder / "damaged").iterdir()} == {
        "checkpoint-98",
        "checkpoint-99",
    }


def _killed_after(step: int, process: subprocess.Popen[str]) -> Run:
    """Kill the worker, without a warning, once it has said that it did `step`."""
    while process.poll() is None:
        for folder in runs.runs_dir().glob("*"):
            run = Run(folder)
            steps = [e.step for e in run.events() if e.type == "MetricsLogged"]
            worker = run.worker()
            if steps and steps[-1] >= step and worker is not None:
                os.kill(worker.pid, signal.SIGKILL)
                return run
        time.sleep(0.01)
    pytest.fail(f"it ended before step {step}: {process.communicate()[1]}")


def test_a_run_cut_off_after_its_last_step_only_has_its_adapter_saved(
    do: Any, job_document: Any
) -> None:
    whole = do(job_document())
    weights = _weights(whole.run)
    _go_back_to(whole.run, 3)

    resumed = do(whole.run)
    assert resumed.exit_code == 0
    assert [event.step for event in resumed.of("MetricsLogged")] == [1, 2, 3]
    assert _weights(whole.run) == weights
    assert resumed.terminal.step == 3
    assert resumed.terminal.loss == whole.terminal.loss


def test_a_run_without_a_checkpoint_begins_again(do: Any, job_document: Any) -> None:
    whole = do(job_document())
    weights = _weights(whole.run)
    _go_back_to(whole.run, 0)
    resumed = do(whole.run)
    assert resumed.of("RunStarted")[-1].resumed_from_step is None
    assert _weights(whole.run) == weights  # the same seed and settings give the same run


def test_a_run_resumes_after_its_events_were_cut_in_the_middle_of_a_line(
    do: Any, job_document: Any
) -> None:
    job = parse_job(job_document(training={"save_steps": 1}))
    whole = do(runs.create(job))
    _go_back_to(whole.run, 2)
    journal = whole.run.folder / "events.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    resumed = do(whole.run)
    assert resumed.exit_code == 0
    assert resumed.of("RunStarted")[-1].resumed_from_step == 2
    seqs = [event.seq for event in resumed.events]
    assert seqs == list(range(len(seqs)))


def versions_of_the_base(folder: str) -> list[str | None]:
    """What a new and a resumed run of a Hub model begin with."""
    from pathlib import Path

    from training_backend import train
    from training_backend.job import parse_job
    from training_backend.lifecycle.checkpoints import Checkpoint
    from training_backend.models.adapters import name_base

    name_base(Path(folder))
    document = {"model": {"id": "acme/tiny"}, "dataset": {"path": "demo"}}
    pinned = {"model": {"id": "acme/tiny", "revision": "v1"}, "dataset": {"path": "demo"}}
    checkpoint = Checkpoint(Path(folder), 3)
    return [
        train._revision(parse_job(document), None),
        train._revision(parse_job(document), checkpoint),
        train._revision(parse_job(pinned), checkpoint),
    ]


def test_a_resumed_run_takes_the_version_of_the_base_that_it_began_with(
    backend: Any, tmp_path: Path
) -> None:
    commit = "0123456789" * 4
    cached = f"/somewhere/hub/models--acme--tiny/snapshots/{commit}"
    config = {"peft_type": "LORA", "base_model_name_or_path": cached, "revision": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").touch()
    assert backend(versions_of_the_base, tmp_path) == [None, commit, "v1"]
    named = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (named["base_model_name_or_path"], named["revision"]) == ("acme/tiny", commit)
