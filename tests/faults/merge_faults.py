"""An export that is killed, starved, or made of damaged files: all of it is there, or nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.faults.disk_faults import MOST_CALLS, calls_reached, injected, small_disk
from tests.faults.lab import Lab, expect, sentence
from tests.faults.power_faults import RECORD, power_goes, recorded
from training_backend import runs
from training_backend.files import fsync_folder
from training_backend.hub.push_files import CARD
from training_backend.job import ExportJob
from training_backend.paths import UNFINISHED
from training_backend.protocol import (
    Event,
    LogLine,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    WarningRaised,
)
from training_backend.runs import Run

# Files of 50 KB, so that there are several; a job asks for at least a tenth of a gigabyte.
SMALL_FILES = """
from training_backend.export import weights
weights.GB = 500_000
"""
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


KILLED_AT_THE_THIRD_FILE = """
import os, signal
from training_backend.export import shards
write, written = shards.write, []
def writes(shard, path, on_piece):
    written.append(path)
    if len(written) == 3:
        path.write_bytes(b"half a file")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(shard, path, on_piece)
shards.write = writes
"""


def merge_killed_between_files(lab: Lab) -> str:
    """The next one keeps what was whole; in each of its files a bit may have flipped since."""
    run, _ = lab.train()
    whole = _export(lab, run, "whole")
    out, partial = lab.folder / "cut off", lab.folder / "cut off.partial"
    words = ""
    for damaged in (None, 0, 1, 2):
        end = _start(lab, run, out, KILLED_AT_THE_THIRD_FILE)
        expect(isinstance(end, RunInterrupted) and not out.exists(), f"ended as {end}")
        words = sentence(end)
        left = sorted(partial.glob("*.safetensors"))
        expect(len(left) == 3, f"{left} is there")
        if damaged is not None:
            left[damaged].write_bytes(_flipped(left[damaged].read_bytes()))
        again = _created(lab, run, out)
        end = lab.start(again, SMALL_FILES).wait()
        expect(isinstance(end, RunCompleted), f"the next export: {sentence(end)}")
        said = " ".join(e.message for e in again.events() if isinstance(e, LogLine))
        kept = 1 if damaged in (0, 1) else 2  # the third was only half there
        expect(f"{kept} finished files stay" in said, f"it says {said}")
        expect(_files(out) == whole and not partial.exists(), "it is not whole")
        shutil.rmtree(out)
    return words


def power_cut_while_merging(lab: Lab) -> str:
    """After each file, and at the very end; what no fsync had reached is gone."""
    run, _ = lab.train()
    whole = _export(lab, run, "whole")
    place, log = lab.folder / "power", lab.folder / "synced.jsonl"
    words = ""
    for number in (1, 2, 3, None):
        place.mkdir()
        with recorded(log):
            fsync_folder(place)
        out = place / "merged"
        setup = RECORD.format(log=str(log))
        if number is not None:
            setup += KILLED_AT_THE_THIRD_FILE.replace("== 3", f"== {number}")
        end = _start(lab, run, out, setup)
        power_goes(place, log)
        if number is None:
            expect(isinstance(end, RunCompleted), f"ended as {end}")
        else:
            expect(not out.exists(), "it looks finished")
            words = sentence(end)
            end = _start(lab, run, out)
            expect(isinstance(end, RunCompleted), f"the next export: {sentence(end)}")
        expect(_files(out) == whole, "it is not whole")
        shutil.rmtree(place)
        log.unlink()
    return words


def disk_full_between_files(lab: Lab) -> str:
    """What is whole stays; when there is room again, the same export goes on."""
    run, _ = lab.train()
    whole = _export(lab, run, "whole")
    needed = sum(len(data) // 4096 + 1 for data in whole.values()) * 4
    with small_disk(lab.folder / "small", f"{needed - 60}k") as disk:
        out = disk / "merged"
        end = _start(lab, run, out, NO_CHECK_OF_ROOM)
        expect(isinstance(end, RunFailed) and end.code == "export_disk_full", f"ended as {end}")
        expect(not out.exists() and (disk / "merged.partial").is_dir(), "it left something else")
        words = sentence(end)
        subprocess.run(["mount", "-o", "remount,size=200M", disk], check=True)
        end = _start(lab, run, out)
        expect(isinstance(end, RunCompleted), f"the next export: {sentence(end)}")
        expect(_files(out) == whole, "it is not whole")
        expect([path.name for path in disk.iterdir()] == ["merged"], "something else is left")
    return words


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
        lab.start(export, SMALL_FILES).wait()
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
    return lab.start(_created(lab, run, out), SMALL_FILES + setup).wait()


def _created(lab: Lab, run: Run, out: Path) -> Run:
    job = ExportJob(run=str(run.folder), out=str(out), max_shard_gb=0.1, verify=False)
    return runs.create(job)


def _files(folder: Path) -> dict[str, bytes]:
    """All that matters; the mark of an unfinished export is its last file to go.

    The README has the folder's own name in it.
    """
    others = (UNFINISHED, CARD)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in others}
