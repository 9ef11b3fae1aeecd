"""Two hundred short runs in one session of the real window, and what is left over of them.

    python -m tests.faults.soak                  about 45 minutes on two cores
    python -m tests.faults.soak --forked         minutes: workers that need not import the trainer
    python -m tests.faults.soak --runs 40

Every run is started through the window's own controller, in a worker of its own. Of each ten,
seven come to their end, one is stopped, one is killed, one goes on with the stopped one;
now and then the person looks at an old run, at each page, and asks for what is refused. Every
twentieth run, when all is quiet, what the window holds is counted and a row of the table is
printed. Processes, threads, open files, widgets and temporary files may not grow at all after the
first row, Python's objects and memory not by more than what a row in a table takes.

Exit code 0 when nothing leaks. For Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from tests.faults.lab import PATIENCE_SECONDS, Lab, Lost, demo_model, lab
from tests.faults.window_faults import PRESS, Window, open_window
from training_backend import runs
from training_backend.protocol import MetricsLogged
from training_backend.runs import Run

MEASURED_EVERY = 20
QUIET_SECONDS = 300.0
LEAVE_SECONDS = 120.0
# What may grow, by a run. The window keeps a line about each in its tables; the first rows are
# left out, in which caches fill and the memory's allocator finds its size.
MOST_OBJECTS_A_RUN = 60.0
MOST_KILOBYTES_A_RUN = 60.0
ROWS_TO_SETTLE = 2

SHORT: dict[str, dict[str, Any]] = {
    "training": {"max_steps": 4, "save_steps": 2, "max_length": 64},
    "evaluation": {"held_out_fraction": 0.0, "eval_steps": 100},
}
ENDLESS: dict[str, dict[str, Any]] = {
    "training": {"max_steps": 2_000, "save_steps": 1_000, "max_length": 64},
    "evaluation": {"held_out_fraction": 0.0, "eval_steps": 1_000},
}

START = """
from training_backend.job import parse_job
window.training.start(parse_job({job!r}))
"""
RESUME = """
from training_backend.runs import Run
from pathlib import Path
window.desk.resume(Run(Path({folder!r})))
"""
OPEN = """
from training_backend.runs import Run
from pathlib import Path
window.desk.open_run(Run(Path({folder!r})))
"""
# A worker of a server that has imported the trainer once; all else is as in a spawned one.
FORKED = """
import multiprocessing
from training_backend.lifecycle import child_process
child_process.set_environment()
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["training_backend.train"])
multiprocessing.get_context = lambda method=None: context
"""
# The next worker that is spawned does it; by then the last run's has mostly ended.
SEE_OFF = """
from training_backend.lifecycle import launch
launch._see_off()
"""
COUNTED = """
import collections, gc, threading
from PySide6.QtCore import QObject
from PySide6.QtWidgets import QApplication
gc.collect()
things = gc.get_objects()
answer = {
    "objects": len(things),
    "widgets": len(QApplication.allWidgets()),
    "parts": len(window.findChildren(QObject)),
    "names": sorted(thread.name for thread in threading.enumerate()),
    "kinds": dict(collections.Counter(type(thing).__qualname__ for thing in things)),
}
del things  # or it would hold on to all of them, itself included
"""


@dataclass(frozen=True)
class Held:
    """What the window's session holds at a quiet moment; `evidence` names it."""

    runs: int
    megabytes: float
    objects: int
    widgets: int
    parts: int
    processes: int
    threads: int
    files: int
    semaphores: int
    temporary: int
    evidence: dict[str, Any] = field(repr=False, compare=False)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--every", type=int, default=MEASURED_EVERY, help="runs between two rows")
    parser.add_argument("--forked", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="lorasmith-soak-") as folder,
        lab(Path(folder), demo_model()) as place,
    ):
        rows, ends = soak(place, options.runs, options.every, forked=options.forked, say=_say)
    _print(rows, ends)
    problems = leaks(rows)
    print("\n".join(problems) or f"Nothing leaks: {options.runs} runs in one session.")
    return 1 if problems else 0


def soak(
    lab: Lab, count: int, every: int, *, forked: bool, say: Callable[[str], None]
) -> tuple[list[Held], dict[str, int]]:
    """So many runs in one window; what it held at each measurement, and how the runs ended.

    Raises `Lost` when a run ends otherwise than it should.
    """
    temporary = lab.folder / "tmp"
    temporary.mkdir()
    os.environ["LORASMITH_HOME"] = str(lab.home)
    ends: dict[str, int] = {}
    rows: list[Held] = []
    began = time.monotonic()
    with open_window(lab, warm=True, TMPDIR=str(temporary)) as window:
        if forked:
            window.do(FORKED)
        window.until('answer = window.is_built("navRuns")')
        stopped: Run | None = None
        for number in range(1, count + 1):
            way = WAYS[number % len(WAYS)]
            run = _one_run(lab, window, way, stopped)
            state = run.state()
            ends[state] = ends.get(state, 0) + 1
            if state != EXPECTED[way]:
                raise Lost(f"run {number} ({way}) is {state}: {run.events()[-1]}")
            stopped = run if way == "stopped" else None if way == "resumed" else stopped
            if number % every == 0:
                _look_around(lab, window)
                rows.append(_held(lab, window, temporary, number))
                minutes = (time.monotonic() - began) / 60
                figures = {k: v for k, v in asdict(rows[-1]).items() if k != "evidence"}
                say(f"{minutes:5.1f} min  {figures}")
        window.do("window.close()")
        if window.end() != 0:
            raise Lost("the window ended with an error")
    deadline = time.monotonic() + LEAVE_SECONDS
    while left := _processes_of(lab, window.process.pid):
        if time.monotonic() > deadline:
            raise Lost(f"left over after the window's end: {left}")
        time.sleep(0.1)
    return rows, ends


WAYS = (
    "completed", "completed", "stopped", "killed", "resumed", "completed", "completed",
    "completed", "completed", "completed",
)  # fmt: skip
EXPECTED = {
    "completed": "completed", "stopped": "stopped", "resumed": "stopped", "killed": "interrupted",
}  # fmt: skip


def _one_run(lab: Lab, window: Window, way: str, stopped: Run | None) -> Run:
    """Start a run through the window and see it to its end."""
    if way == "resumed" and stopped is not None:
        run = stopped
        before = len(run.events())
        window.do(RESUME.format(folder=str(run.folder)))
    else:
        before = 0
        job = lab.job(**(SHORT if way == "completed" else ENDLESS))
        known = _all_runs()
        window.do(START.format(job=job))
        run = _new_run(known)
    if way != "completed":
        _until_step_after(run, before)
        window.until("answer = window.training.active() is not None")
    if way == "killed":
        worker = run.worker()
        assert worker is not None
        worker.kill()
    elif way != "completed":
        window.do(PRESS.format(name="stopButton"))
    window.until("answer = window.training.is_busy()", False)
    return run


def _new_run(known: list[Run]) -> Run:
    """The one that comes; it may have ended before anybody could ask the window for it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (new := [run for run in _all_runs() if run not in known]):
        if time.monotonic() > deadline:
            raise Lost("no run begins")
        time.sleep(0.02)
    return new[0]


def _until_step_after(run: Run, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(isinstance(event, MetricsLogged) for event in run.events()[count:]):
        if time.monotonic() > deadline:
            raise Lost(f"the run does not train: {run.events()[-1]}")
        time.sleep(0.02)


def _look_around(lab: Lab, window: Window) -> None:
    """What a person does between runs: each page, an old run, a job that is refused."""
    for page in window.do("answer = list(window._builders)"):
        window.do(f"window.go_to({page!r})")
    window.do(OPEN.format(folder=str(_all_runs()[0].folder)))
    job = lab.job(dataset={"path": str(lab.folder / "nothing here.jsonl")})
    window.do(START.format(job=job))
    window.until("answer = window.training.is_busy()", False)
    window.do('window.go_to("navTrain")')


# --------------------------------------------------------------------------------- counting


def _held(lab: Lab, window: Window, temporary: Path, number: int) -> Held:
    process = psutil.Process(window.process.pid)
    _wait_until_quiet(lab, window, process)
    counted = window.do(COUNTED)
    processes = _processes_of(lab, window.process.pid)
    files = [_target(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    left = [str(path.relative_to(temporary)) for path in temporary.rglob("*")]
    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8").splitlines()
    shared = sorted({line.split("/")[-1] for line in maps if "/dev/shm/" in line})
    # The window's pool of threads grows to its four when it needs them.
    pool = sum(name.startswith("background") for name in counted["names"])
    return Held(
        number,
        process.memory_info().rss / 2**20,
        counted["objects"],
        counted["widgets"],
        counted["parts"],
        len(processes),
        process.num_threads() - pool,
        len(files),
        len(shared),
        len(left),
        {
            "processes": processes,
            "threads": counted["names"],
            "files": files,
            "semaphores": shared,
            "temporary": left,
            "kinds": counted["kinds"],
        },
    )


def _wait_until_quiet(lab: Lab, window: Window, process: psutil.Process) -> None:
    """Until the next worker waits, those that had a run are gone, and nothing changes."""
    deadline = time.monotonic() + QUIET_SECONDS
    before: tuple[int, int, int] | None = None
    while True:
        still = [run.id for run in _all_runs() if _is_at_work(run)]
        window.do(SEE_OFF)
        warm = window.do("answer = window.training._warm is not None")
        now = (process.num_threads(), process.num_fds(), len(_processes_of(lab, process.pid)))
        if warm and not still and now == before:
            return
        if time.monotonic() > deadline:
            raise Lost(f"not quiet: {now}, before {before}; workers of ended runs: {still}")
        before = now
        time.sleep(1.0)


def _all_runs() -> list[Run]:
    return [Run(folder) for folder in sorted(runs.runs_dir().iterdir())]


def _is_at_work(run: Run) -> bool:
    claimant = run.claimant()
    with contextlib.suppress(psutil.NoSuchProcess):
        return claimant is not None and claimant.status() != psutil.STATUS_ZOMBIE
    return False


def _processes_of(lab: Lab, window_pid: int) -> list[str]:
    """The processes that live in the lab's home, also those that have lost their parent.

    One that has ended but was never waited for has no environment any more, only a parent: it
    counts as long as that is the window.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid in (os.getpid(), lab.pid):
                continue
            if process.status() == psutil.STATUS_ZOMBIE:
                if any(parent.pid == window_pid for parent in process.parents()):
                    found.append("ended, but never waited for")
            elif process.environ().get("LORASMITH_HOME") == str(lab.home):
                found.append(" ".join(word[:60] for word in process.cmdline()[-2:]))
    return found


def _target(link: Path) -> str:
    try:
        return os.readlink(link).split(":")[0]
    except OSError:
        return "gone"


# ---------------------------------------------------------------------------------- judging


def leaks(rows: list[Held]) -> list[str]:
    """What grew more than it may, in words; empty when nothing did."""
    first, last = rows[0], rows[-1]
    found = []
    for name in ("processes", "threads", "files", "temporary", "semaphores", "widgets", "parts"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before:
            more = _difference(first.evidence.get(name, []), last.evidence.get(name, []))
            found.append(f"LEAK: {name} grew from {before} to {after}. {'; '.join(more)}")
    for name, unit, most in (
        ("objects", "objects", MOST_OBJECTS_A_RUN),
        ("megabytes", "kB", MOST_KILOBYTES_A_RUN),
    ):
        grown = slope(rows, name) * (1024 if unit == "kB" else 1)
        if grown > most:
            kinds = _most_grown(first.evidence["kinds"], last.evidence["kinds"])
            found.append(f"LEAK: {grown:.1f} {unit} a run; {most:.0f} are allowed. {kinds}")
    return found


def slope(rows: list[Held], name: str) -> float:
    """How much a figure grows by a run: the line of least squares, without the first rows."""
    settled = rows[ROWS_TO_SETTLE:]
    if len(settled) < 2:
        return 0.0
    xs = [float(row.runs) for row in settled]
    ys = [float(getattr(row, name)) for row in settled]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum(
        (a - x) ** 2 for a in xs
    )


def _difference(before: list[str], after: list[str]) -> list[str]:
    more = list(after)
    for name in before:
        if name in more:
            more.remove(name)
    return [f"{more.count(name)} {name}" for name in sorted(set(more))]


def _say(line: str) -> None:
    print(line, flush=True)


def _most_grown(before: dict[str, int], after: dict[str, int]) -> str:
    grown = {kind: count - before.get(kind, 0) for kind, count in after.items()}
    most = sorted(grown, key=lambda kind: -grown[kind])[:8]
    return ", ".join(f"{grown[kind]} more {kind}" for kind in most)


def _print(rows: list[Held], ends: dict[str, int]) -> None:
    columns = [name for name in Held.__dataclass_fields__ if name != "evidence"]
    table = Table(*columns, title="What the window holds when all is quiet")
    for row in rows:
        values = [getattr(row, name) for name in columns]
        table.add_row(*(f"{v:.1f}" if isinstance(v, float) else f"{v:,}" for v in values))
    Console(width=140 if not sys.stdout.isatty() else None).print(table)
    print("Runs: " + ", ".join(f"{count} {state}" for state, count in sorted(ends.items())))
    print(
        f"Growth by a run: {slope(rows, 'megabytes') * 1024:.1f} kB (limit "
        f"{MOST_KILOBYTES_A_RUN:.0f}), {slope(rows, 'objects'):.1f} objects "
        f"(limit {MOST_OBJECTS_A_RUN:.0f})"
    )


if __name__ == "__main__":
    sys.exit(main())
