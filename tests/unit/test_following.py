"""What a terminal is told of a training that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_backend import runs
from training_backend.commands import following
from training_backend.commands.console import ConsoleReport
from training_backend.job import ExportJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import MetricsLogged, RunFailed, RunStarted
from training_backend.runs import Run


def _failed(run: Run) -> Run:
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(MetricsLogged(step=12, total_steps=90, epoch=0.1, loss=1.25, grad_norm=0.5))
    writer.append(RunFailed(code="x", message="It failed."))
    writer.close()
    return run


def _told(run: Run, capsys: pytest.CaptureFixture[str]) -> str:
    with ConsoleReport() as report:
        following._tell_what_is_known(run, report)
    return capsys.readouterr().err


def test_the_last_numbers_and_how_to_go_on(
    lorasmith_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}})
    run = _failed(runs.create(job))
    told = _told(run, capsys)
    assert "Last step: 12 of 90, loss 1.250, gradient norm 0.5" in told
    assert "Saved: nothing" in told and "resume" not in told
    assert f"report {run.id} --out report.zip" in told
    (run.checkpoints / "checkpoint-10").mkdir(parents=True)
    told = _told(run, capsys)
    assert "everything up to step 10" in told
    assert f"python -m training_backend resume {run.id}" in told


def test_an_export_that_failed_cannot_go_on(
    lorasmith_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _failed(runs.create(ExportJob(run="a", out="/b")))
    assert _told(run, capsys).strip() == ""
