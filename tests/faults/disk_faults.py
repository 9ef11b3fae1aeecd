"""Disks that are full, that fail, that damage what is on them, or that go away."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.lab import Attempt, Lab, expect, newest_sound, promised, sentence
from training_backend.lifecycle import checkpoints, relocate
from training_backend.protocol import (
    Event,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStopped,
)
from training_backend.runs import Run

MOST_CALLS = 120


class NotHere(Exception):
    """What this fault needs is missing on this machine."""


def killed_at_every_fsync(lab: Lab) -> str:
    return _at_every_call(lab, "fsync", "signal=KILL")


def disk_full_at_every_fsync(lab: Lab) -> str:
    return _at_every_call(lab, "fsync", "error=ENOSPC")


def disk_error_at_every_fsync(lab: Lab) -> str:
    return _at_every_call(lab, "fsync", "error=EIO")


def disk_error_at_every_rename(lab: Lab) -> str:
    return _at_every_call(lab, "rename,renameat,renameat2", "error=EIO")


def killed_at_every_rename(lab: Lab) -> str:
    return _at_every_call(lab, "rename,renameat,renameat2", "signal=KILL")


def _at_every_call(lab: Lab, calls: str, what: str) -> str:
    """The first, second, … call of a short run with two saves fails, until none is left."""
    told = ""
    for number in range(1, MOST_CALLS):
        run = lab.create(training={"max_steps": 4, "save_steps": 2})
        with injected(lab, f"inject={calls}:{what}:when={number}", calls):
            end = lab.start(run).wait()
        if isinstance(end, RunCompleted):
            lab.equals_undisturbed(run)
            if calls_reached(lab) < number:
                return f"{told} ({number - 1} places)"
        else:
            expect(isinstance(end, RunFailed | RunInterrupted), f"ended as {end}")
            told = sentence(end)
            lab.nothing_lost(run)
    raise AssertionError("there is no end to it")


@contextlib.contextmanager
def injected(lab: Lab, injection: str, calls: str) -> Iterator[None]:
    """strace on the zygote: what it forks is traced, and its n-th call fails."""
    if shutil.which("strace") is None:
        raise NotHere("strace is not installed")
    log = lab.folder / "strace.log"
    log.unlink(missing_ok=True)
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", log, "-e", f"trace={calls}", "-e", injection,
         "-p", str(lab.pid)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while _tracer_of(lab.pid) != tracer.pid:
        if tracer.poll() is not None:
            raise NotHere(f"strace may not attach: {tracer.communicate()[1].strip()}")
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()


def _tracer_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("TracerPid"))


def calls_reached(lab: Lab) -> int:
    """The most calls that one process made."""
    counts: dict[str, int] = {}
    for line in (lab.folder / "strace.log").read_text().splitlines():
        if "(" in line:
            pid = line.split()[0]
            counts[pid] = counts.get(pid, 0) + 1
    return max(counts.values(), default=0)


# ------------------------------------------------------------------------------- full disks


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory of so many bytes."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True, text=True,
    )  # fmt: skip
    if mounted.returncode:
        raise NotHere(f"no right to mount: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def disk_full_at_a_checkpoint(lab: Lab) -> str:
    """The run waits, says how much is missing, and goes on by itself when there is room."""
    with small_disk(lab.folder / "small", "1400k") as disk:
        run = _moved(lab.create(), disk)
        attempt = lab.start(run)
        words = _waits_for_room(attempt)
        subprocess.run(["mount", "-o", "remount,size=50M", disk], check=True)
        end = attempt.wait()
        expect(isinstance(end, RunCompleted), f"ended as {end}")
        lab.equals_undisturbed(run)
    return words


def disk_full_and_given_up(lab: Lab) -> str:
    """It had saved once; the person stops it while it waits, and later goes on."""
    with small_disk(lab.folder / "small", "50M") as disk:
        run = _moved(lab.create(), disk)
        attempt = lab.halted(run, 4)
        filler = disk / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(60 * 2**20))
        attempt.signal(signal.SIGCONT)
        words = _waits_for_room(attempt)
        run.request("stop")
        end = attempt.wait()
        expect(isinstance(end, RunStopped) and end.checkpoint is not None, f"ended as {end}")
        filler.unlink()
        lab.nothing_lost(run)
    return f"{words}. {sentence(end)}"


def disk_full_and_another_chosen(lab: Lab) -> str:
    """The person gives up waiting, puts the run on another drive, and it goes on there."""
    elsewhere = lab.folder / "elsewhere"
    elsewhere.mkdir()
    with small_disk(lab.folder / "small", "50M") as disk:
        run = _moved(lab.create(), disk)
        attempt = lab.halted(run, 4)
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(60 * 2**20))
        attempt.signal(signal.SIGCONT)
        words = _waits_for_room(attempt)
        run.request("stop")
        attempt.wait()
        place = relocate.move(run, elsewhere)
        expect(run.folder.resolve() == place.resolve(), "its old place does not lead there")
        lab.nothing_lost(run)
    return f"{words}. It lies in {place} now"


def _waits_for_room(attempt: Attempt) -> str:
    attempt.until(lambda e: isinstance(e, PhaseChanged) and e.phase == "no_room")
    phases = [e for e in attempt.run.events() if isinstance(e, PhaseChanged)]
    words = phases[-1].detail
    expect("GB missing" in words, f"it says {words!r}")
    return f"Waiting for room on the disk: {words}"


def file_size_limit(lab: Lab) -> str:
    """The system lets no file grow beyond 100 kB."""
    setup = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))"
    )
    run, end = lab.train(setup)
    expect(isinstance(end, RunFailed) and end.code == "file_too_large", f"ended as {end}")
    lab.nothing_lost(run)
    return sentence(end)


def read_only_folder(lab: Lab) -> str:
    """What the run's folder is on turns read-only in the midst, as after an error of a disk."""
    run = lab.create()
    attempt = lab.halted(run, 4)
    with _read_only(run.folder):
        attempt.signal(signal.SIGCONT)
        end = attempt.wait()
    expect(isinstance(end, RunFailed), f"ended as {end}")
    lab.nothing_lost(run)
    return sentence(end)


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """The folder mounted over itself; what was opened for writing before stays so."""
    for command in (["--bind", folder, folder], ["-o", "remount,ro,bind", folder]):
        done = subprocess.run(["mount", *command], capture_output=True, text=True)
        if done.returncode:
            raise NotHere(f"no right to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def vanished_folder(lab: Lab) -> str:
    """The run's folder is moved away while it trains: the worker ends, and holds nothing."""
    run = lab.create()
    attempt = lab.halted(run, 4)
    aside = run.folder.rename(lab.folder / "moved away")
    attempt.signal(signal.SIGCONT)
    code = lab.ask({"wait": attempt.pid})["exit"]
    expect(code == 1, f"its worker ended with {code}")
    left = [p.name for p in run.folder.glob("*")]
    expect(not run.folder.exists(), f"half of the folder was made anew: {left}")
    aside.rename(run.folder)
    end = run.events()[-1]
    lab.nothing_lost(run)
    return sentence(end)


# ------------------------------------------------------------------------ what is on the disk


def one_flipped_byte_in_each_file(lab: Lab) -> str:
    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return _each_file(lab, flip)


def each_file_missing(lab: Lab) -> str:
    return _each_file(lab, Path.unlink)


def each_file_cut_short(lab: Lab) -> str:
    def cut(path: Path) -> None:
        os.truncate(path, path.stat().st_size // 2)

    return _each_file(lab, cut)


def _each_file(lab: Lab, damage: Callable[[Path], None]) -> str:
    """Damage each file of the newest checkpoint in turn: the one before is gone on from."""
    run = lab.create()
    attempt = lab.start(run)
    attempt.until(lambda e: e.type == "CheckpointSaved" and getattr(e, "step", 0) >= 6)
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    floor = promised(run, but=1)
    expect(floor > 0, "there is no checkpoint before")
    whole = shutil.copytree(run.folder, lab.folder / "whole", dirs_exist_ok=True)
    newest = checkpoints.finished(run.checkpoints)[-1].folder
    names = [p.relative_to(newest) for p in sorted(newest.rglob("*")) if p.is_file()]
    for name in names:
        shutil.rmtree(run.folder)
        shutil.copytree(whole, run.folder)
        damage(newest / name)
        expect(newest_sound(run) < 6, f"{name} is not looked at")
        lab.nothing_lost(run, floor)
        expect((run.folder / "damaged").is_dir(), "the damaged checkpoint is not set aside")
    shutil.rmtree(whole)
    return f"(it goes on from the checkpoint before; {len(names)} files)"


def _settled(run: Run) -> Event:
    from training_backend import runs

    runs.settle(run)
    return run.events()[-1]


def torn_journal(lab: Lab) -> str:
    """Cut at every byte, the history can be read up to there; a sample of cuts is gone on with."""
    run = lab.killed(8)
    floor = promised(run)
    journal = run.folder / "events.jsonl"
    whole = journal.read_bytes()
    events = run.events()
    for length in range(len(whole)):
        journal.write_bytes(whole[:length])
        left = run.events()
        expect(left == events[: whole.count(b"\n", 0, length)], f"cut at {length}: {len(left)}")
        run.state()
    kept = shutil.copytree(run.folder, lab.folder / "kept")
    for length in (len(whole) // 3, len(whole) - 1_000, len(whole) - 20):
        shutil.rmtree(run.folder)
        shutil.copytree(kept, run.folder)
        journal.write_bytes(whole[:length])
        before = len(run.events())
        told = sentence(_settled(run))
        expect(run.state() == "interrupted", f"cut at {length} it is {run.state()}")
        # A line that only lacks its end is whole again once the next one is begun.
        expect(before < len(run.events()) <= before + 2, "events were lost")
        lab.goes_on(run, floor)
        lab.equals_undisturbed(run, in_part=True)
    shutil.rmtree(kept)
    return told


def garbage_in_the_journal(lab: Lab) -> str:
    """Events that are huge, of a wrong type or no text at all are passed over."""
    run = lab.killed(5)
    count = len(run.events())
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"type": "Nonsense"}\n[1, 2]\n\x00\xff\xfe\n')
        file.write(b'{"type": "MetricsLogged", "step": "many"}\n')
        file.write(b'{"type": "LogLine", "message": "' + b"x" * 5_000_000 + b'", "junk": 1}\n')
        file.write(b"[" * 100_000 + b"\n")
    expect(len(run.events()) == count, "garbage counts as events")
    lab.nothing_lost(run)
    return "(passed over)"


def _moved(run: Run, disk: Path) -> Run:
    target = disk / run.id
    shutil.move(run.folder, target)
    return Run(target)
