"""The power goes: what no fsync had reached is not there afterwards. Simulated, and strictly.

Of a file its bytes are left that were there at its last fsync, of a folder the names that were in
it at its own: a file or folder made, or moved there, since then is gone, whatever is in it. What
was deleted without a fsync stays deleted, which is one of the things that a disk may do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.lab import Attempt, Lab, expect, promised, sentence
from training_backend import runs
from training_backend.job import parse_job
from training_backend.protocol import CheckpointSaved, RunCompleted, RunStarted
from training_backend.runs import Run

RECORD = """
from tests.faults import power_faults
power = power_faults.recorded(Path({log!r}))
power.__enter__()
"""


def power_cut(lab: Lab) -> str:
    """After a step, and as soon as a checkpoint is told of; the home is as new as the run."""
    told = ""
    for step in (2, 3, 5, 7, 9, 11):
        told = _cut_when(lab, lambda a, at=step: a.until_step(at))  # type: ignore[misc]
    for step in (4, 6, 12):
        told = _cut_when(lab, lambda a, at=step: _until_saved(a, at))  # type: ignore[misc]
    return told


def power_cut_at_the_first_checkpoint(lab: Lab) -> str:
    """Its folder, and the one of all checkpoints, have just been made."""
    return _cut_when(lab, lambda attempt: _until_saved(attempt, 3))


def power_cut_at_the_end(lab: Lab) -> str:
    """As soon as it says that it is completed."""
    with _new_run(lab) as (run, log):
        end = lab.start(run, RECORD.format(log=str(log))).wait()
        expect(isinstance(end, RunCompleted), f"ended as {end}")
        _power_goes(run, log)
        expect(isinstance(run.events()[-1], RunCompleted), "it forgot that it was completed")
        lab.equals_undisturbed(run, in_part=True)
    return sentence(end)


def _cut_when(lab: Lab, wait: Callable[[Attempt], None]) -> str:
    with _new_run(lab) as (run, log):
        attempt = lab.start(run, RECORD.format(log=str(log)))
        wait(attempt)
        attempt.signal(signal.SIGKILL)
        lab.ask({"wait": attempt.pid})
        floor = promised(run)
        _power_goes(run, log)
        expect(any(isinstance(e, RunStarted) for e in run.events()), "it forgot that it began")
        runs.settle(run)
        told = sentence(run.events()[-1])
        lab.goes_on(run, floor)
        # Steps that were told since the last fsync are gone from the history.
        lab.equals_undisturbed(run, in_part=True)
    return told


def _until_saved(attempt: Attempt, step: int) -> None:
    attempt.until(lambda e: isinstance(e, CheckpointSaved) and e.step >= step)


@contextlib.contextmanager
def _new_run(lab: Lab) -> Iterator[tuple[Run, Path]]:
    """A run in a home of its own that is made with it, and where every fsync is noted."""
    before = os.environ["LORASMITH_HOME"]
    place = lab.folder / "power"
    place.mkdir()
    log = lab.folder / "synced.jsonl"
    os.environ["LORASMITH_HOME"] = str(place / "home")
    try:
        with recorded(log):
            run = runs.create(parse_job(lab.job()))
            os.environ["LORASMITH_HOME"] = before
            yield run, log
    finally:
        os.environ["LORASMITH_HOME"] = before
        shutil.rmtree(place)
        log.unlink(missing_ok=True)


@contextlib.contextmanager
def recorded(log: Path) -> Iterator[None]:
    """Note what each fsync of this process makes lasting: a file's size, a folder's names."""
    fsync = os.fsync
    held: list[int] = []  # open, so that no new file gets the number of one that was noted

    def noting(handle: int) -> None:
        known = os.fstat(handle)
        kept: Any = os.listdir(handle) if stat.S_ISDIR(known.st_mode) else known.st_size
        fsync(handle)
        held.append(os.dup(handle))
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps([known.st_ino, kept]) + "\n")

    os.fsync = noting  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = fsync
        for handle in held:
            os.close(handle)


def _power_goes(run: Run, log: Path) -> None:
    power_goes(run.folder.parents[2], log)
    expect(run.folder.is_dir(), "the run's own folder is gone")


def power_goes(place: Path, log: Path) -> None:
    """Leave of a folder what `recorded` noted as lasting."""
    lines = log.read_text(encoding="utf-8").splitlines()
    _forget(place, dict(json.loads(line) for line in lines))


def _forget(folder: Path, synced: dict[int, Any]) -> None:
    names = synced.get(folder.stat().st_ino, [])
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.is_dir():
            _forget(path, synced)
        else:
            known = path.stat()
            os.truncate(path, min(synced.get(known.st_ino, 0), known.st_size))
