"""How long a run may take is told by one that did the same work, and by no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import RunCompleted, RunStarted, RunStopped, Terminal
from training_backend.summaries import run_times

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def _job(**sections: dict[str, Any]) -> TrainingJob:
    document = {"version": 1, "model": {"id": "demo"}, "dataset": {"path": "demo"}, **sections}
    job = parse_job(document)
    assert isinstance(job, TrainingJob)
    return job


def _done(job: TrainingJob, seconds: float, terminal: Terminal, monkeypatch: Any) -> None:
    run = runs.create(job)
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    monkeypatch.setattr(writer, "_began", writer._began - seconds)
    writer.append(terminal)
    writer.close()


def test_the_newest_completed_run_of_the_same_work_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    rank, rate = _job(lora={"r": 8}), _job(training={"learning_rate": 1e-3, "seed": 7})
    longer = _job(training={"num_train_epochs": 9.0})
    assert run_times.expected_seconds([rank]) == [None]
    _done(_job(), 100, RunCompleted(folder="x"), monkeypatch)
    _done(_job(lora={"r": 64}), 200, RunCompleted(folder="x"), monkeypatch)
    _done(_job(), 300, RunStopped(step=1), monkeypatch)
    (runs.create(_job()).folder / "job.json").write_text("{", encoding="utf-8")
    told = run_times.expected_seconds([rank, longer, rate])
    assert told == [pytest.approx(200, abs=5), None, pytest.approx(200, abs=5)]


def test_no_run_store_is_no_error(lorasmith_home: Path) -> None:
    assert run_times.expected_seconds([]) == []
