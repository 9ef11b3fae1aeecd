"""An export that is killed, starved, or made of damaged files: all of it is there, or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.faults.disk_faults import MOST_CALLS, calls_reached, injected, small_disk
from tests.faults.lab import Lab, expect, sentence
from training_backend import runs
from training_backend.export.partial import MARKER
from training_backend.job import ExportJob
from training_backend.protocol import (
    Event,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    WarningRaised,
)
from training_backend.runs import Run

NO_CHECK_OF_ROOM = """
from training_backend.export import folder, weights
folder.require_free = weights.require_free = lambda *a: None
"""
DAMAGED = ("result_damaged", "adapter_damaged")  # the latter where it can no longer be read
LASTING = "fsync,rename,renameat,renameat2,unlink,unlinkat,mkdir,rmdir"


def merge_killed_at_every_lasting_call(lab: Lab) -> str:
    return _at_every_call(lab, LASTING, "signal=KILL")


def merge_on_a_disk_full_at_every_fsync(lab: Lab) -> str:
    return _at_every_call(lab, "fsync", "error=ENOSPC")


def merge_on_a_failing_disk_at_every_rename(lab: Lab) -> str:
    return _at_every_call(lab, "rename,renameat,renameat2", "error=EIO")


def _at_every_call(lab: Lab, calls: str, what: str) -> str:
    """The first, second, … such call of an export fails; the same export then does its work."""
    run, _ = lab.train()
    whole = _export(lab, run, "whole")
    told = ""
    for number in range(1, MOST_CALLS):
        out = lab.folder / f"merged {number}"
        with injected(lab, f"inject={calls}:{what}:when={number}", calls):
            end = _start(lab, run, out)
        if isinstance(end, RunCompleted) and calls_reached(lab) < number:
            expect(_files(out) == whole, "it is not whole")
            return f"{told} ({number - 1} places)"
        if not isinstance(end, RunCompleted):
            expect(isinstance(end, RunFailed | RunInterrupted), f"ended as {end}")
            told = sentence(end)
        if not out.exists() or not any(out.iterdir()):
            end = _start(lab, run, out)
            expect(isinstance(end, RunCompleted), f"the next export: {sentence(end)}")
        expect(_files(out) == whole, f"after the {number}. call it is not whole")
        left = list(lab.folder.glob("*.partial"))
        expect(not left, f"{left} was left")
        shutil.rmtree(out)
    raise AssertionError("there is no end to it")


def disk_full_while_merging(lab: Lab) -> str:
    run, _ = lab.train()
    with small_disk(lab.folder / "small", "3M") as disk:
        end = _start(lab, run, disk / "merged", NO_CHECK_OF_ROOM)
        expect(isinstance(end, RunFailed), f"ended as {end}")
        expect(not list(disk.iterdir()), "half an export was left")
    lab.equals_undisturbed(run)
    return sentence(end)


def one_flipped_byte_before_a_merge(lab: Lab) -> str:
    """In each file that the training left: the export does not take it."""
    run, _ = lab.train()
    names = sorted(path.name for path in run.adapter.iterdir())
    words = ""
    for name in names:
        before = (run.adapter / name).read_bytes()
        (run.adapter / name).write_bytes(_flipped(before))
        end = _start(lab, run, lab.folder / "of damaged")
        expect(isinstance(end, RunFailed) and end.code in DAMAGED, f"{name}: {end}")
        expect(not (lab.folder / "of damaged").exists(), "something was exported")
        words = sentence(end)
        (run.adapter / name).write_bytes(before)
    _export(lab, run, "of what was put back")
    return f"{words} ({len(names)} files)"


def one_flipped_byte_in_the_base_before_a_merge(lab: Lab) -> str:
    """It may be on purpose, so that it is said, and done."""
    run, _ = lab.train()
    weights = lab.model / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-2] + bytes([before[-2] ^ 1, before[-1]]))
        export = _created(lab, run, lab.folder / "of another base")
        lab.start(export).wait()
    finally:
        weights.write_bytes(before)
    said = [e for e in export.events() if isinstance(e, WarningRaised)]
    expect([e.code for e in said] == ["base_changed"], f"it says {said}")
    return said[0].message


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _export(lab: Lab, run: Run, name: str) -> dict[str, bytes]:
    end = _start(lab, run, lab.folder / name)
    expect(isinstance(end, RunCompleted), f"ended as {end}")
    files = _files(lab.folder / name)
    shutil.rmtree(lab.folder / name)
    return files


def _start(lab: Lab, run: Run, out: Path, setup: str = "") -> Event:
    return lab.start(_created(lab, run, out), setup).wait()


def _created(lab: Lab, run: Run, out: Path) -> Run:
    return runs.create(ExportJob(run=str(run.folder), out=str(out), verify=False))


def _files(folder: Path) -> dict[str, bytes]:
    """All that matters; the mark of an unfinished export is its last file to go."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARKER}
