"""The run store: one folder a run, its state told by its journal and its lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from training_backend import runs
from training_backend.errors import UserError
from training_backend.job import ExportJob, ProbeJob, TrainingJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    MetricsLogged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
)
from training_backend.runs import Run

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def job(name: str = "first try") -> TrainingJob:
    made = parse_job({"name": name, "model": {"id": "demo"}, "dataset": {"path": "demo"}})
    assert isinstance(made, TrainingJob)
    return made


def journaled(run: Run, *events: Event) -> Run:
    writer = JournalWriter(run.folder)
    for event in events:
        writer.append(event)
    writer.close()
    return run


def started(run: Run, attempt: int = 1) -> RunStarted:
    return RunStarted(run_id=run.id, folder=str(run.folder), pid=1, attempt=attempt)


HOLD = """
import sys; from pathlib import Path
from training_backend.runs import Run
run = Run(Path(sys.argv[1]))
with run.worker_lock().acquire():
    run.claim()
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that holds a run as its worker does, until it is killed."""

    def __init__(self, run: Run) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(run.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == b"held"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run() -> Run:
    return runs.create(job())


@pytest.fixture
def held(run: Run) -> Iterator[Holder]:
    holder = Holder(run)
    yield holder
    holder.end()


# ---------------------------------------------------------------------------------- creating


def test_a_run_is_a_folder_with_its_job(run: Run) -> None:
    assert run.folder.parent == runs.runs_dir()
    assert run.folder.is_absolute()
    assert run.job() == run.training_job() == job()
    assert run.state() == "queued"
    assert run.events() == []
    assert run.log_tail() == ""


def test_runs_made_at_the_same_moment_get_folders_of_their_own() -> None:
    with ThreadPoolExecutor(24) as pool:
        made = list(pool.map(lambda number: runs.create(job(f"Same {number % 2}")), range(72)))
    assert len({run.folder for run in made}) == 72
    assert {run.id for run in made} == {path.name for path in runs.runs_dir().iterdir()}
    assert all(run.job() for run in made)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/abs", "C:\\x", "..", ".", "a\0b", "~", "nul", "x" * 120, "  ", "日本👋",
     "a\nb", "-rf", "$(id)", "<b>"],
)  # fmt: skip
def test_no_name_leads_out_of_the_store(name: str) -> None:
    made = runs.create(job(name))
    assert made.folder.resolve().parent == runs.runs_dir().resolve()
    assert len(made.id) < 70
    assert set(made.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert made.training_job().name == name


def test_exports_have_a_place_of_their_own() -> None:
    made = runs.create(ExportJob(run="a", out="/b"))
    assert made.folder.parent.name == "export-runs"
    assert runs.list_runs() == []
    with pytest.raises(UserError, match="not a training run"):
        made.training_job()


# ----------------------------------------------------------------------------------- finding


def test_a_run_is_found_by_its_id_and_by_its_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.folder)
    for reference in (run.id, str(run.folder), ".", "../" + run.id, "checkpoints/.."):
        (run.folder / "checkpoints").mkdir(exist_ok=True)
        assert runs.find(reference) == run, reference


@pytest.mark.parametrize(
    "reference", ["nothing", "", "..", "/", "~nobody-here", "x" * 10_000, "a\0b", "\udcff"]
)
def test_what_is_no_run_is_told_so(
    reference: str, lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    with pytest.raises(UserError) as caught:
        runs.find(reference)
    assert caught.value.code == "run_missing"


# ------------------------------------------------------------------------------------ states


def test_the_newest_event_tells_the_state(run: Run) -> None:
    first = started(run)
    assert journaled(run, first).state() == "interrupted"  # no worker has it
    assert journaled(run, RunFailed(code="c", message="m")).state() == "failed"
    assert journaled(run, started(run, 2)).state() == "interrupted"
    assert journaled(run, RunStopped()).state() == "stopped"
    assert journaled(run, started(run, 3), RunInterrupted(cause="vanished")).state() == (
        "interrupted"
    )
    assert journaled(run, started(run, 4), RunCompleted(folder="/a")).state() == "completed"
    assert runs.attempts(run.events()) == 4


def test_a_run_lives_as_long_as_another_process_holds_its_lock(run: Run, held: Holder) -> None:
    assert run.is_alive()
    assert run.state() == "running"
    assert journaled(run, started(run)).state() == "running"
    worker = run.worker()
    assert worker is not None and worker.pid == held.process.pid
    held.end()
    assert not run.is_alive()
    assert run.worker() is None
    assert run.state() == "interrupted"


def test_asking_whether_a_run_lives_does_not_look_like_a_worker(run: Run) -> None:
    """Many ask at once: none of them may take another for a worker."""
    with run.worker_lock().acquire():
        pass
    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(lambda _: run.is_alive(), range(200)))


def test_a_recycled_process_id_is_not_taken_for_the_worker(run: Run, held: Holder) -> None:
    path = run.folder / "worker.json"
    known = json.loads(path.read_text())
    oldest = min(psutil.process_iter(), key=lambda process: process.create_time())
    path.write_text(json.dumps({**known, "pid": oldest.pid}))
    assert run.worker() is None
    path.write_text(json.dumps({**known, "created": known["created"] - 3_600}))
    assert run.worker() is None
    path.write_text(json.dumps(known))
    assert run.worker() == psutil.Process(held.process.pid)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "5", '{"pid": "x", "created": 0}', '{"pid": 1e300}', '{"pid": -4}',
             '{"pid": 1, "created": null}', '{"pid": 100000000000000000000}'],
)  # fmt: skip
def test_a_damaged_note_about_the_worker_is_no_worker(run: Run, text: str) -> None:
    (run.folder / "worker.json").write_text(text)
    assert run.worker() is None


# ---------------------------------------------------------------------------------- settling


def terminals(run: Run) -> list[Event]:
    return [event for event in run.events() if isinstance(event, TERMINAL_TYPES)]


def test_a_worker_that_vanished_is_given_its_last_word(run: Run) -> None:
    run.log_path.write_text("x" * 10_000 + "the last words")
    event = runs.settle(journaled(run, started(run)))
    assert isinstance(event, RunInterrupted)
    assert event.cause == "vanished"
    assert event.log_tail.endswith("the last words") and len(event.log_tail) <= 4_000
    assert terminals(run) == [event]
    assert event.seq == 1


@pytest.mark.parametrize(
    ("code", "cause", "words"),
    [
        (-9, "signal", "ended by SIGKILL"),
        (-int(signal.SIGTERM), "signal", "SIGTERM."),
        (-63, "signal", "signal 63"),  # a real-time signal has no name
        (1, "exit_code", "exit code 1."),
        (0xC0000005, "exit_code", "crashed (access violation)."),
    ],
)
def test_the_last_word_says_how_the_worker_ended(
    run: Run, code: int, cause: str, words: str
) -> None:
    event = runs.settle(journaled(run, started(run)), code)
    assert isinstance(event, RunInterrupted)
    assert event.cause == cause
    assert words in event.detail


@pytest.mark.parametrize(
    "last",
    [
        RunCompleted(folder="/a"),
        RunStopped(),
        RunFailed(code="c", message="m"),
        RunInterrupted(cause="vanished"),
    ],
)
def test_a_run_that_ended_is_left_as_it_is(run: Run, last: Event) -> None:
    journaled(run, started(run), last)
    assert runs.settle(run) is None
    assert runs.settle(run, -9) is None
    assert len(run.events()) == 2


def test_a_run_that_still_waits_for_its_worker_is_left_alone(run: Run) -> None:
    assert runs.settle(run) is None
    assert run.state() == "queued"
    assert isinstance(runs.settle(run, 1), RunInterrupted)  # but one that died before a word


def test_a_run_that_lives_is_not_settled(run: Run, held: Holder) -> None:
    journaled(run, started(run))
    assert runs.settle(run, -9) is None
    assert terminals(run) == []


def settle_at(folder: Path, go: threading.Event) -> None:
    go.wait()
    for _ in range(5):
        runs.settle(Run(folder), -9)


def test_several_threads_and_processes_give_exactly_one_last_word(run: Run) -> None:
    journaled(run, started(run))
    go = threading.Event()
    script = (
        "import sys; from pathlib import Path; from training_backend import runs\n"
        "print(); sys.stdout.flush(); sys.stdin.readline()\n"
        "for _ in range(5): runs.settle(runs.Run(Path(sys.argv[1])), -9)\n"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(run.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    threads = [threading.Thread(target=settle_at, args=(run.folder, go)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    go.set()
    for other in others:
        other.communicate(b"\n")
        assert other.returncode == 0
    for thread in threads:
        thread.join()
    assert len(terminals(run)) == 1
    assert [event.seq for event in run.events()] == [0, 1]


# -------------------------------------------------------------------------------------- list


def test_runs_are_listed_newest_first_with_what_became_of_them() -> None:
    older = runs.create(job("older"))
    os.rename(older.folder, older.folder.with_name("20200101-000000-older"))
    older = Run(older.folder.with_name("20200101-000000-older"))
    metrics = MetricsLogged(step=3, total_steps=20, epoch=0.1, loss=2.5)
    journaled(older, started(older), metrics, RunStopped())
    newer = runs.create(job("newer"))
    first, second = runs.list_runs()
    assert (first.run, first.name, first.state, first.step) == (newer, "newer", "queued", None)
    assert (second.run, second.state) == (older, "stopped")
    assert (second.step, second.total_steps, second.loss) == (3, 20, 2.5)
    assert (second.model, second.dataset) == ("demo", "demo")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"a":' + b"1" * 5_000 + b"}", b"[" * 100_000]
)
def test_a_damaged_run_does_not_hide_the_others(content: bytes) -> None:
    whole, damaged = runs.create(job("whole")), runs.create(job("damaged"))
    (damaged.folder / "job.json").write_bytes(content)
    (runs.runs_dir() / "no run").mkdir()
    (runs.runs_dir() / "a file").touch()
    assert [row.run for row in runs.list_runs()] == [whole]


def test_a_damaged_journal_does_not_hide_its_run(run: Run) -> None:
    (run.folder / "events.jsonl").write_bytes(b"\xff\n{}\nhalf")
    (row,) = runs.list_runs()
    assert (row.run, row.state) == (run, "queued")


# ---------------------------------------------------------------------------------- requests


def test_requests_are_seen_until_they_are_cleared(run: Run) -> None:
    run.clear_requests()
    assert not run.requested("stop")
    run.request("stop")
    run.request("stop")
    assert Run(run.folder).requested("stop")
    run.clear_requests()
    assert not run.requested("stop")


def test_a_request_can_be_made_though_its_folder_is_gone(run: Run) -> None:
    (run.folder / "requests").rmdir()
    run.clear_requests()
    run.request("stop")
    assert run.requested("stop")


def test_a_probe_whose_worker_is_still_to_come_is_not_taken_for_one_left_behind() -> None:
    left, ended, waits = (runs.create(ProbeJob(job=job())) for _ in range(3))
    an_hour_ago = time.time() - 3600
    os.utime(left.folder, (an_hour_ago, an_hour_ago))
    writer = JournalWriter(ended.folder)
    writer.append(RunStarted(run_id=ended.id, folder=str(ended.folder), pid=1))
    writer.append(RunCompleted(folder="x"))
    writer.close()
    runs.clear_probes()
    assert [run.folder.exists() for run in (left, ended, waits)] == [False, False, True]
