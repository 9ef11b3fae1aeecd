"""`python -m training_backend` as people and scripts meet it: exit codes, sentences, JSON.

Training for real by the command line is in test_training.py.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.model_files import safetensors
from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import MetricsLogged, RunCompleted, RunStarted, parse_event
from training_backend.runs import Run

REPOSITORY = Path(__file__).parents[2]
Call = Callable[..., subprocess.CompletedProcess[str]]

JOB: dict[str, Any] = {
    "version": 1,
    "name": "first try",
    "model": {"id": "demo"},
    "dataset": {"path": "demo"},
    "training": {"max_steps": 1},
}


@pytest.fixture
def call(command_line: Call) -> Call:
    """As `command_line`; whatever happens, nobody is shown a traceback."""

    def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        answer = command_line(*arguments)
        assert "Traceback" not in answer.stdout + answer.stderr, answer.stderr
        return answer

    return called


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


WEIGHTS = safetensors({"base_model.model.x.lora_A.weight": (8, 8)}, random.Random(0))


def made_run(name: str = "first try", *, trained: bool = False) -> Run:
    run = runs.create(parse_job({**JOB, "name": name}))
    if trained:
        writer = JournalWriter(run.folder)
        writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
        writer.append(MetricsLogged(step=3, total_steps=20, epoch=0.1, loss=2.5))
        writer.append(RunCompleted(folder=str(run.adapter)))
        writer.close()
        make_adapter(run.adapter)
    return run


def make_adapter(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": "/home/me/models/base", "r": 8}
    write(folder / "adapter_config.json", config)
    (folder / "adapter_model.safetensors").write_bytes(WEIGHTS)
    return folder


def assert_fails(answer: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 1, whole sentences on stderr, nothing on stdout that looks like a result."""
    assert answer.returncode == 1
    assert answer.stdout == ""
    for word in words:
        assert word in answer.stderr
    last = answer.stderr.strip().splitlines()[-1]
    assert last.endswith((".", ")")) or last.startswith("  "), last


# ----------------------------------------------------------------------------------- its use


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["--nothing"],
        ["train"],
        ["train", "a.json", "b.json"],
        ["stop"],
        ["export", "run"],
        ["export", "run", "--format", "zip", "--out", "x"],
        ["runs", "more"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_how_to(call: Call, arguments: list[str]) -> None:
    answer = call(*arguments)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "usage: python -m training_backend" in answer.stderr


def test_help_names_every_command(call: Call) -> None:
    answer = call("--help")
    assert answer.returncode == 0
    named = {line.split()[0] for line in answer.stdout.splitlines() if line.strip()}
    assert named >= {"demo-model", "demo", "train", "resume", "stop", "runs", "export", "doctor"}


# --------------------------------------------------------------------------------- bad jobs


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is not valid JSON", "line 1, column 1"]),
        (b'{\n"a": }', ["line 2, column 6"]),
        (b"[]", ["a job is one JSON object"]),
        (b"\xff\xfe", ["is not text in UTF-8"]),
        (b"[" * 100_000, ["cannot be read"]),
        (b'{"a": ' + b"9" * 5_000 + b"}", ["cannot be read"]),
        (b'{"kind": "export", "run": "a", "out": "b"}', ["is not a training job"]),
    ],
)
def test_a_bad_job_file_is_exit_code_1_with_its_place(
    call: Call, tmp_path: Path, lorasmith_home: Path, content: bytes, words: list[str]
) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(content)
    assert_fails(call("train", path), *words)
    assert not (lorasmith_home / "runs").exists()


def test_every_mistake_of_a_job_is_told_and_no_run_is_made(
    call: Call, tmp_path: Path, lorasmith_home: Path
) -> None:
    job = {**JOB, "model": {}, "lora": {"r": -1, "alpha": 3}, "name": "x" * 10_000}
    answer = call("train", "--json", write(tmp_path / "job.json", job))
    assert_fails(answer, "The job cannot be run:", "  model.id: is missing")
    assert "  lora.r: input should be greater than or equal to 1, not -1" in answer.stderr
    assert "  lora.alpha: unknown key; did you mean lora_alpha?" in answer.stderr
    assert "  name: " in answer.stderr
    assert len(answer.stderr) < 1_000
    assert not (lorasmith_home / "runs").exists()


def test_model_and_data_are_checked_together_before_a_run_is_made(
    call: Call, tmp_path: Path, lorasmith_home: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": }\n')
    job = {**JOB, "model": {"id": "./no/model"}, "dataset": {"path": "rows.jsonl"}}
    answer = call("train", write(tmp_path / "job.json", job))
    assert_fails(answer, "  model.id: No model folder at ", "  dataset.path: rows.jsonl, line 2")
    assert list((lorasmith_home / "runs").iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 10_000, "~nobody-here/x", "a\0b", "/", "..", "{0}", " "])
def test_names_that_cannot_be_are_mistakes_like_others(
    call: Call, tmp_path: Path, name: str
) -> None:
    job = {**JOB, "model": {"id": name}, "dataset": {"path": name}}
    (tmp_path / "no data" / "here").mkdir(parents=True)  # .. may be a folder of data otherwise
    answer = call("train", write(tmp_path / "no data" / "here" / "job", job))
    assert_fails(answer, "  model.id: ", "  dataset.path: ")


@pytest.mark.parametrize("path", ["none.json", ".", "x" * 5_000])
def test_a_job_file_that_is_not_there_is_exit_code_1(call: Call, path: str) -> None:
    assert_fails(call("train", path), path[:100])


# ------------------------------------------------------------------------------------- runs


def test_no_runs_is_no_mistake(call: Call) -> None:
    assert call("runs").stdout == "No runs yet.\n"
    assert json.loads(call("runs", "--json").stdout) == []


def test_runs_are_listed_in_words_and_as_json(call: Call) -> None:
    older = made_run("Größe / 👋", trained=True)
    newer = made_run("second")
    (made_run("damaged").folder / "job.json").write_text("{")
    answer = call("runs", "--json")
    assert answer.returncode == 0 and answer.stderr == ""
    rows = {row["id"]: row for row in json.loads(answer.stdout)}
    assert rows.keys() == {older.id, newer.id}
    assert all({"id", "name", "state", "folder"} <= row.keys() for row in rows.values())
    assert rows[older.id]["name"] == "Größe / 👋"
    assert rows[older.id]["state"] == "completed"
    assert rows[older.id]["folder"] == str(older.folder)
    assert rows[newer.id]["state"] == "queued"
    words = call("runs")
    assert f"{older.id} " in words.stdout and "step 3 of 20, loss 2.500" in words.stdout


@pytest.mark.parametrize(
    "reference", ["no-such-run", "/nowhere", "..", "", "~nobody-here", "x" * 10_000, "\udcff"]
)
def test_unknown_runs_are_exit_code_1(call: Call, tmp_path: Path, reference: str) -> None:
    for arguments in (["stop"], ["resume"], ["export", "--out", str(tmp_path / "out")]):
        if arguments[0] == "export" and reference in ("", ".."):
            continue  # folders that there are
        assert_fails(call(*arguments, reference))
    assert not (tmp_path / "out").exists()


def test_what_does_not_run_cannot_be_stopped(call: Call) -> None:
    run = made_run()
    assert_fails(call("stop", run.id), f"Run {run.id} is not running.")
    assert not run.requested("stop")


def test_a_live_run_is_asked_to_stop_by_id_or_folder(call: Call) -> None:
    run = made_run()
    with run.worker_lock().acquire():
        answer = call("stop", run.id)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert run.requested("stop")
        run.clear_requests()
        assert json.loads(call("stop", "--json", run.folder).stdout)["id"] == run.id
        assert run.requested("stop")
        assert_fails(call("resume", run.id), "is running")


def test_a_completed_run_cannot_be_resumed(call: Call) -> None:
    run = made_run(trained=True)
    before = (run.folder / "events.jsonl").read_bytes()
    assert_fails(call("resume", run.folder), f"Run {run.id} is completed")
    assert (run.folder / "events.jsonl").read_bytes() == before


def test_a_run_with_a_damaged_job_cannot_be_resumed(call: Call) -> None:
    run = made_run()
    (run.folder / "job.json").write_text('{"version": 1}')
    assert_fails(call("resume", run.id), "model: is missing")


# ----------------------------------------------------------------------------------- export


def test_an_adapter_is_exported_in_words_and_as_events(call: Call, tmp_path: Path) -> None:
    run = made_run(trained=True)
    out = tmp_path / "out"
    answer = call("export", run.id, "--format", "adapter", "--out", out)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"{out}\n"
    assert (out / "adapter_model.safetensors").read_bytes().endswith(WEIGHTS[-128:])
    assert "/home/me" not in (out / "adapter_config.json").read_text()

    empty = tmp_path / "empty"
    empty.mkdir()
    answer = call("export", "--json", run.adapter, "--format", "adapter", "--out", empty)
    assert answer.returncode == 0, answer.stderr
    events = [parse_event(line) for line in answer.stdout.splitlines()]
    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunCompleted)
    assert events[-1].folder == str(empty)
    assert Run(Path(events[0].folder)).events() == events


def test_an_export_never_writes_into_a_folder_that_holds_something(
    call: Call, tmp_path: Path, lorasmith_home: Path
) -> None:
    run = made_run(trained=True)
    (tmp_path / "mine").write_text("mine")
    for out in (tmp_path, tmp_path / "mine"):
        answer = call("export", run.id, "--format", "adapter", "--out", out)
        assert_fails(answer, f"  out: The folder {out} is not empty." if out == tmp_path else "out")
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (lorasmith_home / "export-runs").exists()


def test_a_run_without_an_adapter_cannot_be_exported(call: Call, tmp_path: Path) -> None:
    run = made_run()
    answer = call("export", run.id, "--out", tmp_path / "out")
    assert_fails(answer, f"  run: Run {run.id} has nothing to export yet.")
    answer = call("export", run.id, "--checkpoint", "checkpoint-9", "--out", tmp_path / "out")
    assert_fails(answer, "  checkpoint: ", "checkpoint-9")
    assert not (tmp_path / "out").exists()


def test_both_mistakes_of_an_export_are_told(call: Call, tmp_path: Path) -> None:
    assert_fails(call("export", "nothing", "--out", tmp_path), "There is no run nothing", "  out: ")


@pytest.mark.parametrize("json_too", [True, False])
def test_what_fails_only_in_the_worker_is_told_on_stderr_too(
    call: Call, tmp_path: Path, json_too: bool
) -> None:
    source = make_adapter(tmp_path / "a folder with a long name " / ("of its own " * 9).strip())
    options = ["--json"] if json_too else []
    answer = call("export", *options, source, "--out", tmp_path / "out")
    assert answer.returncode == 1
    # In one line, however narrow the terminal is.
    assert "Failed: The base model /home/me/models/base is no longer there. Put it" in answer.stderr
    if json_too:
        last = json.loads(answer.stdout.splitlines()[-1])
        assert (last["type"], last["code"]) == ("RunFailed", "base_missing")
    assert not (tmp_path / "out").exists()


def test_an_export_to_where_nothing_can_be_written_is_exit_code_1(
    call: Call, tmp_path: Path
) -> None:
    run = made_run(trained=True)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "below", tmp_path / ("x" * 300), Path("/proc/none")):
        answer = call("export", run.id, "--format", "adapter", "--out", out)
        assert answer.returncode == 1
        assert answer.stderr.strip()


# ------------------------------------------------------------------------------ other things


def test_doctor_tells_in_words_and_as_json(call: Call) -> None:
    answer = call("doctor", "--json")
    assert answer.returncode == 0 and answer.stderr == ""
    assert {"python", "hardware", "packages", "works", "problems"} <= json.loads(
        answer.stdout
    ).keys()
    words = call("doctor")
    assert words.returncode == 0 and "What would work here" in words.stdout


def test_the_demo_model_is_prepared_once_and_its_folder_printed(
    call: Call, home_with_demo_model: Path
) -> None:
    folder = home_with_demo_model / "models" / "SmolLM2-135M-Instruct"
    assert call("demo-model").stdout == f"{folder}\n"
    assert json.loads(call("demo-model", "--json").stdout) == {"folder": str(folder)}


def test_a_home_that_cannot_be_made_is_told(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LORASMITH_HOME", str(tmp_path / "file" / "home"))
    for command in ("runs", "doctor", "demo-model", "demo"):
        assert_fails(call(command), "LORASMITH_HOME")


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT to one process")
def test_ctrl_c_stops_the_run_and_is_exit_code_3(lorasmith_home: Path, tmp_path: Path) -> None:
    job = str(write(tmp_path / "job.json", JOB))
    process = subprocess.Popen(
        [sys.executable, "-m", "training_backend", "train", "--json", job],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()  # RunStarted; now the worker imports torch
    process.send_signal(signal.SIGINT)
    # `communicate` would pass over what came together with the first line.
    out, err = process.stdout.read(), process.stderr.read()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    events = [parse_event(line) for line in [first, *out.splitlines()]]
    assert [event.type for event in events if event.type.startswith("RunS")] == [
        "RunStarted",
        "RunStopped",
    ]
    assert [event.seq for event in events] == list(range(len(events)))
    assert process.returncode == 3
    assert "Saving and stopping" in err and "Traceback" not in err


def test_a_reader_that_goes_away_is_no_disaster(lorasmith_home: Path) -> None:
    """As in `runs --json | head -1`."""
    for number in range(3):
        made_run(f"run {number}")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "training_backend", "runs", "--json"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.wait()
    process.stderr.close()
    assert "Traceback" not in err
