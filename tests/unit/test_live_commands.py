"""What the terminal asks of a training under way, as the worker will find it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training_backend import preferences, runs
from training_backend.__main__ import main
from training_backend.job import parse_job
from training_backend.lifecycle.run_requests import read_question
from training_backend.runs import Run

JOB: dict[str, Any] = {"model": {"id": "demo"}, "dataset": {"path": "demo"}}


@pytest.fixture(autouse=True)
def this_environment_stays(monkeypatch: pytest.MonkeyPatch, lorasmith_home: Path) -> None:
    monkeypatch.setattr(preferences, "apply_to_environment", lambda: None)


@pytest.fixture
def run(lorasmith_home: Path) -> Run:
    return runs.create(parse_job(JOB))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize("command", ["stop", "checkpoint", "sample", "pause", "go-on"])
def test_a_run_that_does_not_run_is_asked_nothing(
    capsys: pytest.CaptureFixture[str], run: Run, command: str
) -> None:
    assert f"Run {run.id} is not running." in refusal(capsys, command, run.id)
    assert "There is no run nowhere." in refusal(capsys, command, "nowhere")
    assert run.requests.pending() == []


def test_a_live_run_is_asked_by_id_or_folder(capsys: pytest.CaptureFixture[str], run: Run) -> None:
    with run.worker_lock().acquire():
        assert main(["pause", run.id]) == 0
        assert main(["checkpoint", str(run.folder)]) == 0
        assert main(["sample", run.id, "--prompt", " Who are you? "]) == 0
        assert run.requests.pending() == ["checkpoint", "pause", "question"]
        (question,) = run.requests.questions()
        assert read_question(question) == "Who are you?"
        capsys.readouterr()
        assert main(["go-on", "--json", run.id]) == 0
        assert json.loads(capsys.readouterr().out) == {"id": run.id, "requested": "go-on"}
        assert run.requests.pending() == ["checkpoint", "question"]
        assert f"Run {run.id} is not paused." in refusal(capsys, "go-on", run.id)


def test_a_question_must_be_one(capsys: pytest.CaptureFixture[str], run: Run) -> None:
    with run.worker_lock().acquire():
        told = refusal(capsys, "sample", run.id)
        assert "has no questions to try. Give one with --prompt." in told
        assert "The question is empty." in refusal(capsys, "sample", run.id, "--prompt", " ")
        told = refusal(capsys, "sample", run.id, "--prompt", "x" * 4_001)
        assert "4,001 characters; at most 4,000" in told
        assert run.requests.pending() == []


def test_an_export_cannot_be_paused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, lorasmith_home: Path
) -> None:
    export = runs.create(parse_job({"kind": "export", "run": "x", "out": str(tmp_path / "out")}))
    with export.worker_lock().acquire():
        assert "is not a training run" in refusal(capsys, "pause", str(export.folder))
        assert main(["stop", str(export.folder)]) == 0


def test_an_extension_says_by_how_much(capsys: pytest.CaptureFixture[str], run: Run) -> None:
    for wrong in ([], ["--epochs", "0"], ["--epochs", "nan"], ["--steps", "-1"],
                  ["--epochs", "1", "--steps", "1"]):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            main(["extend", run.id, *wrong])
    capsys.readouterr()
    told = refusal(capsys, "extend", run.id, "--epochs", "1")
    assert f"Run {run.id} is queued; only a run that has completed or was stopped" in told
    assert run.revisions() == 0
