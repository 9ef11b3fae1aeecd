"""Every end of a worker that died without a word has a name, and claims no more than is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from training_backend import runs
from training_backend.computer import ram
from training_backend.job import parse_job
from training_backend.lifecycle import ends, launch
from training_backend.lifecycle.ends import Circumstances
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import LogLine, MemorySampled, RunInterrupted, RunStarted, RunStopped
from training_backend.runs import Run

CRASH = """some line before
Fatal Python error: Segmentation fault

Current thread 0x00007f (most recent call first):
  File "/home/anna/.venv/lib/python3.11/site-packages/torch/nn/modules/linear.py", line 134 in forward
  File "/home/anna/work/run.py", line 3 in <module>
"""  # noqa: E501


def memory(share: float, device: str = "cpu") -> MemorySampled:
    total = 16 * 2**30
    return MemorySampled(
        device=device,
        process_bytes=2**30,
        device_used_bytes=round(share * total),
        device_total_bytes=total,
    )


@pytest.mark.parametrize(
    ("known", "code", "words"),
    [
        (Circumstances(-9, still_seconds=720, by_force=True), "hung", "stood still for 12 min"),
        (Circumstances(-9, still_seconds=720, by_force=True, halted=True), "hung", "had halted it"),
        (Circumstances(-9, by_force=True, oom_killed=True), "ended_by_force", "without saving"),
        (Circumstances(-9, oom_killed=True), "out_of_ram", "ran out of memory."),
        (Circumstances(None, oom_killed=True), "out_of_ram", "ran out of memory."),
        (Circumstances(-9, memory=memory(0.98)), "out_of_ram_likely", "15.7 of 16.0 GB"),
        (Circumstances(None, memory=memory(0.98)), "out_of_ram_likely", "Most likely"),
        # A full card says nothing of the computer's memory.
        (Circumstances(-9, memory=memory(0.98, "cuda:0")), "killed", "Often the system ran out"),
        (Circumstances(-9, memory=memory(0.4), oom_killed=False), "killed", "no lack of memory"),
        (Circumstances(-11, log=CRASH), "crashed", "(SIGSEGV) in torch/nn/modules/linear.py, line"),
        (Circumstances(None, log=CRASH), "crashed", "(Segmentation fault) in torch/nn"),
        (Circumstances(-int(signal.SIGABRT)), "crashed", "(SIGABRT)."),
        (Circumstances(0xC0000005), "crashed", "access violation"),
        (Circumstances(0xC0000017), "out_of_ram", "ran out of memory"),
        (
            Circumstances(-6, "terminate called\n  what():  CUDA error: an illegal memory access "
                          "was encountered\n"),
            "card_error", "(CUDA error: an illegal memory access was encountered)",
        ),
        (Circumstances(-6, "what():  std::bad_alloc"), "out_of_ram", "ran out of memory"),
        (Circumstances(1, "CUDA error: out of memory"), "out_of_vram", "The card ran out"),
        (Circumstances(-6, "RuntimeError: GPU is lost"), "card_lost", "no longer there"),
        (Circumstances(-int(signal.SIGTERM)), "ended_by_signal", "SIGTERM"),
        (Circumstances(7), "exit_code", "exit code 7"),
        (Circumstances(None, restarted=True), "computer_restarted", "lost its power"),
        (Circumstances(None), "vanished", "not known"),
    ],
)  # fmt: skip
def test_an_end_is_named_by_what_is_known_of_it(
    known: Circumstances, code: str, words: str
) -> None:
    event = ends.named(known)
    assert (event.code, event.exit_code) == (code, known.exit_code)
    assert words in event.detail and event.detail.endswith(".") and "\n" not in event.detail
    assert "anna" not in event.words


@pytest.mark.parametrize(("device", "speaks_of_a_card"), [("cpu", False), ("cuda:0", True)])
def test_a_crash_speaks_of_a_card_only_where_one_trained(
    device: str, speaks_of_a_card: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "_card_is_gone", lambda memory: False)
    for known in (
        Circumstances(-11, log=CRASH, memory=memory(0.4, device)),
        Circumstances(-9, still_seconds=720, memory=memory(0.4, device)),
    ):
        assert ("driver" in ends.named(known).remedy) is speaks_of_a_card


def test_a_crash_on_a_card_that_is_no_longer_there_is_a_lost_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crash = Circumstances(-11, log=CRASH, memory=memory(0.5, "cuda:0"))
    monkeypatch.setattr(ends.devices, "chosen_gpu", lambda gpus: object())
    assert ends.named(crash).code == "crashed"
    monkeypatch.setattr(ends.devices, "chosen_gpu", lambda gpus: None)
    assert ends.named(crash).code == "card_lost"


# ----------------------------------------------------------------- what a run's folder tells of it


@pytest.fixture
def run(lorasmith_home: Path) -> Run:
    return runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))


def begun(run: Run) -> None:
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(memory(0.3))
    writer.close()


def test_the_systems_killer_is_known_by_its_count_since_the_worker_began(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ram, "oom_kills", lambda: 3)
    run.claim()
    begun(run)
    assert run.circumstances(-9).oom_killed is False
    monkeypatch.setattr(ram, "oom_kills", lambda: 4)
    ended = runs.settle(run, -9)
    assert isinstance(ended, RunInterrupted) and ended.code == "out_of_ram"


def test_the_log_of_an_earlier_attempt_is_no_evidence_of_this_one(run: Run) -> None:
    run.log_path.write_text(CRASH)
    run.claim()
    begun(run)
    with run.log_path.open("a") as log:
        log.write("its own last words\n")
    ended = runs.settle(run, -11)
    assert isinstance(ended, RunInterrupted)
    assert (ended.log_tail, ended.params["place"]) == ("its own last words\n", "")


def test_of_a_crash_the_thread_that_crashed_is_told(run: Run) -> None:
    head, _, tail = CRASH.partition("Current")
    other = (
        'Thread 0x00007e (most recent call first):\n  File "/x/threading.py", line 331 in wait\n'
    )
    begun(run)
    run.log_path.write_text(f"{head}{other * 99}\nCurrent{tail}\nExtension modules: numpy\n")
    ended = runs.settle(run, -11)
    assert isinstance(ended, RunInterrupted)
    assert "in torch/nn/modules/linear.py, line 134." in ended.detail
    assert ended.log_tail.startswith("Fatal Python error") and "0x00007e" not in ended.log_tail
    assert "Extension" not in ended.log_tail


def test_a_computer_started_anew_is_told_from_a_worker_that_vanished(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(run)
    assert not run.circumstances(None).restarted
    monkeypatch.setattr(psutil, "boot_time", lambda: run.events()[-1].time + 60)
    assert run.circumstances(None).restarted


def test_how_long_it_stood_still_is_kept_with_the_request_to_end(run: Run) -> None:
    begun(run)
    assert run.circumstances(-9).still_seconds is None
    run.requests.note_end(315.0)
    known = run.circumstances(-9)
    assert known.by_force and known.still_seconds == 315.0
    run.request("end")  # as earlier versions left it
    (run.folder / "requests" / "end").write_text("")
    assert run.circumstances(-9).by_force and run.circumstances(-9).still_seconds is None


@pytest.mark.parametrize(
    ("group", "file", "content"),
    [
        ("0::/user.slice/app.scope", "user.slice/app.scope/memory.events", "oom 7\noom_kill 5\n"),
        ("4:memory:/box", "memory/box/memory.oom_control", "under_oom 0\noom_kill 5\n"),
    ],
)
def test_the_count_is_that_of_the_workers_own_group(
    tmp_path: Path, group: str, file: str, content: str
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{group}\n")
    assert ram.oom_kills(tmp_path) is None
    (tmp_path / "proc/vmstat").write_text("nr_free_pages 12\noom_kill 40\n")
    assert ram.oom_kills(tmp_path) == 40
    counter = tmp_path / "sys/fs/cgroup" / file
    counter.parent.mkdir(parents=True)
    counter.write_text(content)
    assert ram.oom_kills(tmp_path) == 5


def test_what_a_run_says_last_is_read_back_whole(run: Run) -> None:
    begun(run)
    writer = JournalWriter(run.folder)
    writer.append(LogLine(message="on"))
    writer.close()
    ended = runs.settle(run, 7)
    assert ended == run.events()[-1] and isinstance(ended, RunInterrupted)
    assert ended.exit_code == 7


# A settling parent and a worker in one group of the system, which holds less than the worker takes.
STARVED = """
import os, subprocess, sys
from pathlib import Path
from training_backend import runs
from training_backend.runs import Run
(Path(sys.argv[2]) / "cgroup.procs").write_text(str(os.getpid()))
worker = subprocess.Popen([sys.executable, "-c", '''
import sys
from pathlib import Path
from training_backend.runs import Run
Path("/proc/self/oom_score_adj").write_text("900")
run = Run(Path(sys.argv[1]))
with run.worker_lock().acquire():
    run.claim()
    taken = bytearray(1_000_000_000)
''', sys.argv[1]])
ended = runs.settle(Run(Path(sys.argv[1])), worker.wait())
print(ended.code, ended.exit_code)
"""


@pytest.fixture
def narrow_group() -> Iterator[Path]:
    """A control group of 200 MB, removed afterwards; skips where none can be made."""
    for top, limit in (("memory", "memory.limit_in_bytes"), (".", "memory.max")):
        group = Path("/sys/fs/cgroup") / top / "lorasmith-test"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if not (group / limit).exists():
                continue
            (group / limit).write_text("200000000")
            yield group
        finally:
            group.rmdir()
        return
    pytest.skip("no right to make a control group")


def test_the_systems_killer_for_real_is_named(run: Run, narrow_group: Path) -> None:
    begun(run)
    answer = subprocess.run(
        [sys.executable, "-c", STARVED, str(run.folder), str(narrow_group)],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    assert answer.stdout.split() == ["out_of_ram", "-9"]


# ---------------------------------------------------------------- a worker that never said a word


def ended(run: Run) -> None:
    begun(run)
    writer = JournalWriter(run.folder)
    writer.append(RunStopped(step=3))
    writer.close()


def test_a_resume_whose_worker_dies_before_its_first_word_is_told(run: Run) -> None:
    ended(run)
    run.log_path.write_text(CRASH)  # of the attempt before
    told = runs.settle(run, -9, pid=12345)
    assert isinstance(told, RunInterrupted) and told.code == "killed" and told.log_tail == ""
    *_, start, last = run.events()
    assert isinstance(start, RunStarted) and (start.attempt, start.pid) == (2, 12345)
    assert last == told
    assert runs.settle(run) is None


@pytest.mark.parametrize("code", [0, 3, 1])
def test_a_worker_that_left_the_run_alone_ended_nothing(run: Run, code: int) -> None:
    ended(run)
    run.log_path.write_text("Another worker has it; process 12345 leaves it alone.\n")
    assert runs.settle(run, code, pid=12345) is None
    assert len(run.events()) == 3


def test_a_worker_that_said_its_last_word_ended_properly_whatever_comes_after(run: Run) -> None:
    run.claim()
    ended(run)
    assert runs.settle(run, -11, pid=os.getpid()) is None


# ------------------------------------------------------------------- where one that hangs stood


STUCK = """
import os, sys, time
from pathlib import Path
from training_backend.lifecycle import child_process
from training_backend.runs import Run

def step_that_never_ends():
    print("stuck", file=before, flush=True)
    time.sleep(600)

before = os.fdopen(os.dup(1), "w")
run = Run(Path(sys.argv[1]))
child_process.redirect_output(run.log_path, append=True)
with run.worker_lock().acquire():
    run.claim()
    step_that_never_ends()
"""


@pytest.mark.skipif(os.name == "nt", reason="asked by a signal")
def test_one_that_stands_still_says_where_before_it_is_ended(run: Run, tmp_path: Path) -> None:
    begun(run)
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    repository = Path(__file__).parents[2]
    worker = subprocess.Popen(
        [sys.executable, str(script), str(run.folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    while psutil.Process(worker.pid).status() != psutil.STATUS_SLEEPING:
        time.sleep(0.01)  # it is still on its way there
    launch.kill(run, 720.0)
    told = runs.settle(run, worker.wait(60))
    worker.stdout.close()
    assert isinstance(told, RunInterrupted) and told.code == "hung"
    assert told.detail.startswith("It was ended after it had stood still for 12 minutes in ")
    assert "stuck.py, line 9." in told.detail
    assert "step_that_never_ends" in told.log_tail
