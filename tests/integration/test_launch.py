"""Real spawned workers: whatever happens to one, its run ends with exactly one last word.

Exports of a plain adapter folder serve as jobs here, since they need no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.model_files import safetensors
from training_backend import runs
from training_backend.job import ExportJob, parse_job
from training_backend.lifecycle import launch
from training_backend.lifecycle.launch import Worker
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
    parse_event,
)
from training_backend.runs import Run

REPOSITORY = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.usefixtures("lorasmith_home"),
    pytest.mark.skipif(os.name == "nt", reason="ends processes by signals"),
]

Spawn = Callable[[], Worker]


@pytest.fixture
def spawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spawn]:
    """Spawns workers that do not outlive the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made: list[Worker] = []

    def spawned() -> Worker:
        made.append(Worker())
        return made[-1]

    yield spawned
    for worker in made:
        worker.process.kill()
        worker.process.join()
        worker.dismiss()
        launch._done_with.discard(worker.process)
        worker.process.close()
        worker._queue.close()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    pair = {"base_model.model.q.lora_A.weight": (2, 4), "base_model.model.q.lora_B.weight": (4, 2)}
    (folder / "adapter_model.safetensors").write_bytes(safetensors(pair, random.Random(0)))
    return folder


def export_run(source: Path, out: Path) -> Run:
    return runs.create(ExportJob(run=str(source), format="adapter", out=str(out), verify=False))


def training_run(model: str) -> Run:
    return runs.create(parse_job({"model": {"id": model}, "dataset": {"path": "demo"}}))


def follow(worker: Worker, run: Run) -> list[Event]:
    return [event for event in worker.follow(run) if event is not None]


def wait_for(run: Run, kind: type) -> None:
    while not any(isinstance(event, kind) for event in run.events()):
        time.sleep(0.02)


def assert_one_last_word(run: Run, followed: list[Event], kind: type, attempt: int = 1) -> None:
    """The journal and what was followed are the same, without gap, and end once an attempt."""
    assert followed == run.events()
    assert [event.seq for event in followed] == list(range(len(followed)))
    assert isinstance(followed[0], RunStarted)
    assert isinstance(followed[-1], kind)
    assert sum(isinstance(event, TERMINAL_TYPES) for event in followed) == attempt
    assert sum(isinstance(event, RunStarted) for event in followed) == attempt


# ---------------------------------------------------------------------------- how a run ends


def test_a_job_that_is_done_ends_with_run_completed(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run, worker = export_run(adapter, tmp_path / "out"), spawn()
    worker.start(run)
    events = follow(worker, run)
    assert_one_last_word(run, events, RunCompleted)
    written = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert written == (adapter / "adapter_model.safetensors").read_bytes()
    worker.process.join()
    assert worker.process.exitcode == 0
    assert not run.is_alive()
    assert run.log_tail() == ""


def test_a_missing_model_ends_with_one_failure_that_names_its_field(
    spawn: Spawn, tmp_path: Path
) -> None:
    run, worker = training_run(str(tmp_path / "no model")), spawn()
    worker.start(run)
    events = follow(worker, run)
    assert_one_last_word(run, events, RunFailed)
    failed = events[-1]
    assert isinstance(failed, RunFailed)
    assert (failed.code, failed.field) == ("model_folder_missing", "model.id")
    assert str(tmp_path / "no model") in failed.message and failed.remedy
    worker.process.join()
    assert worker.process.exitcode == 1
    assert run.state() == "failed"


def test_a_defect_of_ours_is_told_without_a_traceback_which_is_in_the_log(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    (adapter / "tokenizer_config.json").write_text("this is no JSON, which the scrubbing expects")
    run, worker = export_run(adapter, tmp_path / "out"), spawn()
    worker.start(run)
    events = follow(worker, run)
    assert_one_last_word(run, events, RunFailed)
    assert isinstance(events[-1], RunFailed) and events[-1].code == "unexpected"
    assert "Traceback" not in (run.folder / "events.jsonl").read_text()
    assert "Traceback" in run.log_tail()
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_job_file_that_was_damaged_since_ends_the_run_properly(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run, worker = export_run(adapter, tmp_path / "out"), spawn()
    (run.folder / "job.json").write_text("{")
    worker.start(run)
    events = follow(worker, run)
    assert_one_last_word(run, events, RunFailed)
    assert isinstance(events[-1], RunFailed) and events[-1].code == "job_not_json"


def test_a_stop_asked_for_before_the_worker_is_ready_is_obeyed(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run, worker = export_run(adapter, tmp_path / "out"), spawn()
    worker.start(run)
    run.request("stop")
    events = follow(worker, run)
    assert_one_last_word(run, events, RunStopped)
    assert not (tmp_path / "out").exists()
    assert not run.requested("stop")  # or the next attempt would stop at once
    worker.process.join()
    assert worker.process.exitcode == 3


def test_a_killed_worker_is_given_an_end_that_names_the_signal_and_keeps_the_log(
    spawn: Spawn, tmp_path: Path
) -> None:
    run, worker = training_run(str(tmp_path / "no model")), spawn()
    run.log_path.write_text("what an earlier one said\n")
    worker.start(run)
    wait_for(run, RunStarted)  # and now it imports torch, which takes seconds
    with run.log_path.open("a") as log:
        log.write("what it said\n")
    assert worker.process.pid is not None
    os.kill(worker.process.pid, signal.SIGKILL)
    events = follow(worker, run)
    assert_one_last_word(run, events, RunInterrupted)
    last = events[-1]
    assert isinstance(last, RunInterrupted)
    assert last.cause == "signal" and "SIGKILL" in last.detail
    assert last.log_tail == "what it said\n"
    assert run.state() == "interrupted"
    assert runs.settle(run) is None


def test_a_worker_that_dies_before_its_first_word_is_given_an_end_too(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run, worker = export_run(adapter, tmp_path / "out"), spawn()
    worker.process.kill()
    worker.process.join()
    with contextlib.suppress(OSError):
        worker.start(run)
    events = follow(worker, run)
    assert [type(event) for event in events] == [RunInterrupted]
    assert events == run.events()


def test_a_resume_whose_worker_dies_before_its_first_word_is_given_an_end_too(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run, first = export_run(adapter, tmp_path / "out"), spawn()
    first.start(run)
    run.request("stop")
    assert isinstance(follow(first, run)[-1], RunStopped)
    second = spawn()
    second.process.kill()
    second.process.join()
    with contextlib.suppress(OSError):
        second.start(run)
    events = follow(second, run)
    assert_one_last_word(run, events, RunInterrupted, attempt=2)


def test_killing_a_run_ends_its_worker(spawn: Spawn, tmp_path: Path) -> None:
    run, worker = training_run(str(tmp_path / "no model")), spawn()
    worker.start(run)
    wait_for(run, RunStarted)
    launch.kill(run)
    events = follow(worker, run)
    assert_one_last_word(run, events, RunInterrupted)
    assert isinstance(events[-1], RunInterrupted) and "ended by force" in events[-1].detail
    launch.kill(run)  # once more does no harm


def test_attempts_follow_one_another_in_one_journal(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run = export_run(adapter, tmp_path / "out")
    for attempt in (1, 2, 3):
        worker = spawn()
        worker.start(run)
        if attempt < 3:
            run.request("stop")
        events = follow(worker, run)
        worker.process.join()
    assert_one_last_word(run, events, RunCompleted, attempt=3)
    assert [e.attempt for e in events if isinstance(e, RunStarted)] == [1, 2, 3]


# ------------------------------------------------------------------------------ following it


def test_what_did_not_fit_into_the_queue_is_read_from_the_journal(
    spawn: Spawn, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "QUEUE_SIZE", 1)
    run, worker = export_run(adapter, tmp_path / "out"), spawn()
    worker.start(run)
    following = worker.follow(run)
    events = [event for event in [next(following)] if event is not None]
    worker.process.join()  # nobody reads: all but the first few are dropped from the queue
    assert len(run.events()) > 4
    events += [event for event in following if event is not None]
    assert_one_last_word(run, events, RunCompleted)


def test_a_run_of_another_process_is_followed_by_its_journal(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run, worker = export_run(adapter, tmp_path / "out"), spawn()
    worker.start(run)
    wait_for(run, RunStarted)
    events = [event for event in launch.tail(run) if event is not None]
    assert_one_last_word(run, events, RunCompleted)
    again = [event for event in launch.tail(run) if event is not None]
    assert again == events


def test_whoever_follows_hears_the_last_word_that_another_wrote(
    spawn: Spawn, tmp_path: Path
) -> None:
    run, worker = training_run(str(tmp_path / "no model")), spawn()
    worker.start(run)
    wait_for(run, RunStarted)
    following = worker.follow(run)
    events = [event for event in [next(following)] if event is not None]
    worker.process.kill()
    worker.process.join()
    assert isinstance(runs.settle(run), RunInterrupted)
    events += [event for event in following if event is not None]
    assert_one_last_word(run, events, RunInterrupted)


HOLD = """
import sys; from pathlib import Path
from training_backend.runs import Run
run = Run(Path(sys.argv[1]))
with run.worker_lock().acquire():
    run.claim()
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow  # it waits ten seconds for the first one to let go
def test_a_second_worker_leaves_a_live_run_alone(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run = export_run(adapter, tmp_path / "out")
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    first.stdout.readline()
    second = spawn()
    second.start(run)
    assert follow(second, run) == []
    second.process.join()
    assert second.process.exitcode == 1
    assert not (run.folder / "events.jsonl").exists()
    owner = run.worker()
    assert owner is not None and owner.pid == first.pid
    assert "Traceback" not in run.log_tail() and "leaves it alone" in run.log_tail()
    assert first.poll() is None
    first.communicate()


# ------------------------------------------------------------------------------ idle workers


def test_an_idle_worker_ends_when_it_is_dismissed(spawn: Spawn) -> None:
    worker = spawn()
    assert worker.is_alive()
    worker.dismiss()
    worker.process.join()
    assert worker.process.exitcode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks for entries of ended processes")
def test_the_next_worker_sees_off_those_that_are_done(
    spawn: Spawn, adapter: Path, tmp_path: Path
) -> None:
    run, idle, busy = export_run(adapter, tmp_path / "out"), spawn(), spawn()
    idle.dismiss()
    busy.start(run)
    follow(busy, run)
    ended = [psutil.Process(worker.process.pid) for worker in (idle, busy)]
    while any(process.status() != psutil.STATUS_ZOMBIE for process in ended):
        time.sleep(0.02)
    spawn()
    assert not any(process.is_running() for process in ended)
    assert busy.process.exitcode == 0


@pytest.mark.parametrize("ready", [False, True])
def test_an_idle_worker_ends_when_its_parent_is_killed(ready: bool, lorasmith_home: Path) -> None:
    script = (
        "import time; from training_backend.lifecycle.launch import Worker\n"
        "if __name__ == '__main__':\n"
        "    worker = Worker(); print(worker.process.pid, flush=True); time.sleep(600)\n"
    )
    path = lorasmith_home.parent / "window.py"
    path.write_text(script)
    parent = subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    try:
        worker = psutil.Process(int(parent.stdout.readline()))
        assert worker.status() != psutil.STATUS_ZOMBIE
        if ready:
            wait_until_idle(worker)
    finally:
        parent.kill()
        parent.communicate()
    psutil.wait_procs([worker])
    assert not worker.is_running()


def wait_until_idle(process: psutil.Process) -> None:
    """Until it has imported torch and does nothing any more."""
    while not any("libtorch" in entry.path for entry in process.memory_maps()):
        time.sleep(0.2)
    used = -1.0
    while used != (used := sum(process.cpu_times()[:2])):
        time.sleep(0.5)


def test_a_worker_that_has_its_run_carries_on_without_its_parent(
    adapter: Path, tmp_path: Path
) -> None:
    run = export_run(adapter, tmp_path / "out")
    script = (
        "import os, sys; from pathlib import Path\n"
        "from training_backend.lifecycle.launch import Worker\n"
        "from training_backend.runs import Run\n"
        "if __name__ == '__main__':\n"
        "    worker = Worker(); worker.start(Run(Path(sys.argv[1])))\n"
        "    print(worker.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "window.py"
    path.write_text(script)
    parent = subprocess.run(
        [sys.executable, str(path), str(run.folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )
    assert parent.returncode == -signal.SIGKILL
    wait_for(run, TERMINAL_TYPES)  # type: ignore[arg-type]
    assert_one_last_word(run, run.events(), RunCompleted)
    assert json.loads((run.folder / "worker.json").read_text())["pid"] == int(parent.stdout)


# --------------------------------------------------------- workers that say what none would say

ODD_WINDOW = """
import os, sys, time
from pathlib import Path
from training_backend.lifecycle import launch
from training_backend import worker
from training_backend.protocol import LogLine, RunCompleted, RunStarted
from training_backend.runs import Run

def odd(feed, pipe):
    run = Run(Path(pipe.recv()))
    with run.worker_lock().acquire():
        reporter = worker.Reporter(run, feed)
        reporter.emit(RunStarted(run_id=run.id, folder=str(run.folder), pid=os.getpid()))
        {body}
        reporter.emit(RunCompleted(folder="/a"))

if __name__ == "__main__":
    worker.main = odd
    run = Run(Path(sys.argv[1]))
    one = launch.Worker()
    one.start(run)
    for count, event in enumerate(one.follow(run)):
        if event is not None:
            print(event.model_dump_json(), flush=True)
            if count < 5:
                time.sleep(0.2)  # a window that is busy
"""


def follow_odd(run: Run, path: Path, body: str) -> list[Event]:
    path.write_text(ODD_WINDOW.replace("{body}", body.replace("\n", "\n        ")))
    answer = subprocess.run(
        [sys.executable, str(path), str(run.folder)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return [parse_event(line) for line in answer.stdout.splitlines()]


def test_what_is_no_event_is_passed_over(adapter: Path, tmp_path: Path) -> None:
    run = export_run(adapter, tmp_path / "out")
    body = "for line in ('', 'none', '{}', '{\"type\": \"Unheard\"}'): feed.put(line)"
    assert_one_last_word(run, follow_odd(run, tmp_path / "window.py", body), RunCompleted)


def test_what_is_no_text_or_cannot_be_read_is_passed_over(adapter: Path, tmp_path: Path) -> None:
    run = export_run(adapter, tmp_path / "out")
    body = (
        "class Unreadable:\n"
        "    def __reduce__(self): return int, ('no number',)\n"
        "for thing in (None, 5, b'\\xff', {'type': 'LogLine'}, lambda: 0, Unreadable()):\n"
        "    feed.put(thing)"
    )
    assert_one_last_word(run, follow_odd(run, tmp_path / "window.py", body), RunCompleted)


def test_a_flood_is_followed_without_gap_or_repeat(adapter: Path, tmp_path: Path) -> None:
    run = export_run(adapter, tmp_path / "out")
    body = "for n in range(5_000): reporter.emit(LogLine(message=str(n)))"
    events = follow_odd(run, tmp_path / "window.py", body)
    assert len(events) == 5_002
    assert_one_last_word(run, events, RunCompleted)


def test_a_worker_killed_while_it_sends_something_large_does_not_hang_its_reader(
    adapter: Path, tmp_path: Path
) -> None:
    run = export_run(adapter, tmp_path / "out")
    body = (
        "for n in range(6): reporter.emit(LogLine(message=str(n) * 1_000_000))\n"
        "os.kill(os.getpid(), 9)"
    )
    events = follow_odd(run, tmp_path / "window.py", body)
    assert len(events) == 8
    assert_one_last_word(run, events, RunInterrupted)
