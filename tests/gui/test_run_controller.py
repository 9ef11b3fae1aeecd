"""The controller against real workers: jobs that fail at once, workers that are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.run_controller import RunController
from training_backend import preferences, runs
from training_backend.errors import JobError
from training_backend.job import parse_job
from training_backend.lifecycle import launch
from training_backend.lifecycle.journal import JournalWriter
from training_backend.preferences import Preferences
from training_backend.protocol import (
    MetricsLogged,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
)


def _job(model: Path, data: Path) -> Any:
    data.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    return parse_job(
        {"version": 1, "name": "try", "model": {"id": str(model)}, "dataset": {"path": str(data)}}
    )


@pytest.fixture
def controller(qtbot: QtBot) -> Any:
    made = RunController()
    yield made
    made.shutdown()


def test_refuses_what_the_checks_find_before_there_is_a_run(
    qtbot: QtBot, controller: RunController, tmp_path: Path
) -> None:
    with qtbot.waitSignal(controller.refused) as refusal:
        controller.start(_job(tmp_path / "missing", tmp_path / "rows.jsonl"))
    assert isinstance(refusal.args[0], JobError)
    assert refusal.args[0].problems[0].field == "model.id"
    assert not controller.is_busy()
    assert runs.list_runs() == []


def test_a_worker_that_fails_is_followed_to_its_terminal_event(
    qtbot: QtBot, controller: RunController, tmp_path: Path
) -> None:
    # The folder goes away after the checks, as a pulled-out drive would.
    run = runs.create(_job(tmp_path / "missing", tmp_path / "rows.jsonl"))
    events: list[Any] = []
    controller.event_arrived.connect(events.append)
    with (
        qtbot.waitSignal(controller.run_opened) as opened,
        qtbot.waitSignal(controller.run_ended) as ended,
    ):
        controller.resume(run)
    assert opened.args == [run]
    assert ended.args[0] == run
    assert isinstance(ended.args[1], RunFailed)
    assert isinstance(events[0], RunStarted)
    assert events[-1] == ended.args[1]
    assert [event.seq for event in events] == list(range(len(events)))
    assert controller.active() is None
    assert not controller.is_busy()


@pytest.mark.skipif(os.name == "nt", reason="no signals")
def test_a_killed_worker_is_told_by_name(
    qtbot: QtBot, controller: RunController, tmp_path: Path
) -> None:
    run = runs.create(_job(tmp_path / "missing", tmp_path / "rows.jsonl"))

    def kill_once(event: Any) -> None:
        if isinstance(event, RunStarted):
            os.kill(event.pid, signal.SIGKILL)

    controller.event_arrived.connect(kill_once)
    with qtbot.waitSignal(controller.run_ended) as ended:
        controller.resume(run)
    assert isinstance(ended.args[1], RunInterrupted)
    assert "SIGKILL" in ended.args[1].detail
    assert run.state() == "interrupted"


def test_one_run_at_a_time(qtbot: QtBot, controller: RunController, tmp_path: Path) -> None:
    run = runs.create(_job(tmp_path / "missing", tmp_path / "rows.jsonl"))
    controller.resume(run)
    with qtbot.waitSignal(controller.refused) as refusal:
        controller.resume(run)
    assert refusal.args[0].code == "busy"
    with qtbot.waitSignal(controller.run_ended):
        pass


def test_attaches_to_a_live_run_and_catches_up(
    qtbot: QtBot, controller: RunController, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.create(_job(tmp_path / "missing", tmp_path / "rows.jsonl"))
    ended_by_force: list[runs.Run] = []
    monkeypatch.setattr(launch, "kill", ended_by_force.append)
    lock = run.worker_lock()
    lock.acquire()
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    for step in range(1, 501):
        writer.append(MetricsLogged(step=step, total_steps=500, epoch=1.0, loss=1.0))
    events: list[Any] = []
    controller.event_arrived.connect(events.append)
    controller.attach(run)
    qtbot.waitUntil(lambda: len(events) == 501)
    controller.stop()
    controller.stop()  # as from the page and from the closing window: no reason to end it
    assert run.requested("stop")
    assert ended_by_force == []
    with qtbot.waitSignal(controller.run_ended) as ended:
        writer.append(RunStopped(step=500, checkpoint=None))
        writer.close()
        lock.release()
    assert isinstance(ended.args[1], RunStopped)


def test_leaving_lets_go_of_an_idle_worker(qtbot: QtBot) -> None:
    controller = RunController()
    controller.warm_up()
    qtbot.waitUntil(lambda: controller._warm is not None)
    worker = controller._warm
    assert isinstance(worker, launch.Worker)
    controller.shutdown()
    qtbot.waitUntil(lambda: not worker.is_alive())


def test_a_worker_that_began_with_other_preferences_is_let_go(
    qtbot: QtBot, controller: RunController
) -> None:
    controller.warm_up()
    qtbot.waitUntil(lambda: controller._warm is not None)
    stale = controller._warm
    assert stale is not None and stale.is_ready()
    preferences.save(Preferences(gpu="GPU-1"))
    assert not stale.is_ready()
    assert controller.take_warm() is None
    qtbot.waitUntil(lambda: not stale.is_alive())


def test_resuming_a_run_that_lives_already_follows_it(
    qtbot: QtBot, controller: RunController, tmp_path: Path
) -> None:
    run = runs.create(_job(tmp_path / "missing", tmp_path / "rows.jsonl"))
    with run.worker_lock().acquire():
        writer = JournalWriter(run.folder)
        with qtbot.waitSignal(controller.run_opened) as opened:
            controller.resume(run)
        with qtbot.waitSignal(controller.event_arrived):
            writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
        writer.close()
    assert opened.args == [run]
    with qtbot.waitSignal(controller.run_ended):
        pass


def test_a_run_that_can_no_longer_be_read_does_not_keep_the_window_from_another(
    qtbot: QtBot,
    controller: RunController,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = runs.create(_job(tmp_path / "missing", tmp_path / "rows.jsonl"))
    started = RunStarted(run_id=run.id, folder=str(run.folder), pid=1, seq=0)

    def on_a_failing_disk(_: runs.Run) -> Any:
        yield started
        raise OSError("Input/output error")

    monkeypatch.setattr(launch, "tail", on_a_failing_disk)
    with (
        qtbot.waitSignal(controller.event_arrived) as first,
        qtbot.waitSignal(controller.run_ended) as ended,
    ):
        controller.attach(run)
    assert first.args == [started]
    assert ended.args == [run, None]
    assert not controller.is_busy()
    assert "Input/output error" in caplog.text
