"""An ended run is put on another drive whole and found as before; a failed move leaves it be."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from filelock import FileLock

from training_backend import paths, runs
from training_backend.errors import UserError
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints, relocate, run_folders
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import RunFailed, RunStarted
from training_backend.queueing import queue_file, queue_summary
from training_backend.runs import Run


@pytest.fixture
def run(lorasmith_home: Path) -> Run:
    return made_run()


def made_run() -> Run:
    """Failed, with a sound checkpoint."""
    made = runs.create(parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}}))
    writer = JournalWriter(made.folder)
    writer.append(RunStarted(run_id=made.id, folder=str(made.folder), pid=1))
    writer.append(RunFailed(code="disk_full", message="Full."))
    writer.close()
    staged = made.folder / "staging" / "checkpoint-3"
    staged.mkdir(parents=True)
    (staged / "adapter_model.safetensors").write_bytes(b"weights")
    checkpoints.commit(staged, made.checkpoints)
    return made


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    made = tmp_path / "other drive 🏃"
    made.mkdir()
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("worker.lock", "events.reserve")
    }


def test_it_lies_there_and_is_found_as_before(run: Run, drive: Path) -> None:
    before, events = contents(run.folder), run.events()
    place = relocate.move(run, drive)
    assert place == drive / run.id and not place.is_symlink()
    assert contents(place) == contents(run.folder) == before
    (row,) = runs.list_runs()
    assert row.run == run == runs.find(run.id)
    assert run.events() == events and run.state() == "failed"
    newest = checkpoints.newest_verified(run.checkpoints)
    assert newest is not None and newest.step == 3
    assert [path.name for path in runs.runs_dir().iterdir()] == [run.id]
    assert [path.name for path in drive.iterdir()] == [run.id]
    # It goes on there.
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=2, attempt=2))
    writer.close()
    assert len(Run(place).events()) == 3


def test_the_drive_that_counts_is_the_one_where_it_lies(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths.os.path, "ismount", lambda path: Path(path) == drive)
    assert paths.drive_of(run.folder) != str(drive)
    relocate.move(run, drive)
    assert paths.drive_of(run.folder / "checkpoints") == str(drive)


def test_it_can_be_moved_again(run: Run, drive: Path, tmp_path: Path) -> None:
    before = contents(run.folder)
    relocate.move(run, drive)
    third = tmp_path / "third"
    third.mkdir()
    relocate.move(run, third)
    assert contents(third / run.id) == contents(run.folder) == before
    assert list(drive.iterdir()) == []
    assert [path.name for path in runs.runs_dir().iterdir()] == [run.id]


@pytest.mark.parametrize("fault", ["copy", "hash", "link"])
def test_a_move_that_fails_leaves_it_where_it_was(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if fault == "copy":
        monkeypatch.setattr(shutil, "copytree", refuse)
    elif fault == "hash":
        told = iter("abcdefghijklmnopqrstuvwxyz")
        monkeypatch.setattr(relocate, "sha256_file", lambda _: next(told))
    else:
        monkeypatch.setattr(relocate.os, "symlink", refuse)
    before = contents(run.folder)
    with pytest.raises(UserError) as error:
        relocate.move(run, drive)
    assert error.value.code == "run_not_moved" and "Errno" not in str(error.value)
    assert contents(run.folder) == before and not run.folder.is_symlink()
    assert list(drive.iterdir()) == []
    assert [path.name for path in runs.runs_dir().iterdir()] == [run.id]


def test_what_cannot_be_is_said_beforehand(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(target: Path) -> str:
        with pytest.raises(UserError) as error:
            relocate.move(run, target)
        return error.value.code

    assert code(drive / "not there") == "folder_missing"
    assert code(run.checkpoints) == "run_is_there"
    assert code(runs.runs_dir()) == "run_is_there"
    with run.worker_lock().acquire():
        run.claim()
        assert code(drive) == "run_is_taken"
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert code(drive) == "disk_full_ahead"
    assert not run.folder.is_symlink()


def test_no_worker_can_begin_with_it_until_its_place_leads_to_the_copy(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = "import filelock, sys; filelock.FileLock(sys.argv[1]).acquire(timeout=0)"
    told = {}

    def spied(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name not in told:
                held = next(p for p in (run.folder, run_folders.aside(run.folder)) if p.exists())
                command = [sys.executable, "-c", claim, str(held / "worker.lock")]
                told[name] = subprocess.run(command, capture_output=True, text=True).stderr
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(shutil, "copytree", spied("copied", shutil.copytree))
    monkeypatch.setattr(relocate, "sha256_file", spied("compared", relocate.sha256_file))
    monkeypatch.setattr(os, "symlink", spied("linked", os.symlink))
    relocate.move(run, drive)
    assert list(told) == ["copied", "compared", "linked"]
    assert all("filelock._error.Timeout" in words for words in told.values()), told
    with run.worker_lock().acquire(timeout=0):
        assert (drive / run.id / "worker.lock").is_file()


class Killed(BaseException):
    """Nothing that was to tidy up runs."""


Fault = Literal["error", "error though done", "dead disk", "killed before", "killed after"]


class Planted:
    """Has the `at`-th lasting call of a move go wrong; `happened` says whether there were so many.

    After a kill nothing lasting happens any more.
    """

    def __init__(self, fault: Fault, at: int) -> None:
        self.fault, self.at, self.calls = fault, at, 0

    @property
    def happened(self) -> bool:
        return self.calls > self.at

    def instead_of(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number < self.at or (number > self.at and self.fault.startswith("error")):
                return real(*args, **kwargs)
            if number == self.at and self.fault in ("error though done", "killed after"):
                real(*args, **kwargs)
            if self.fault.startswith("killed"):
                raise Killed
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return call


@pytest.mark.skipif(sys.platform == "win32", reason="no junction is made by `os.symlink`")
@pytest.mark.parametrize("moved_before", [False, True])
@pytest.mark.parametrize(
    "fault", ["error", "error though done", "dead disk", "killed before", "killed after"]
)
def test_whatever_goes_wrong_at_any_call_it_is_found_whole_and_the_truth_is_told(
    lorasmith_home: Path, drive: Path, tmp_path: Path, fault: Fault, moved_before: bool
) -> None:
    codes = []
    for at in range(200):
        run = made_run()
        before = contents(run.folder)
        target = tmp_path / f"target {at}"
        target.mkdir()
        if moved_before:
            relocate.move(run, drive)
        was = run.folder.resolve()
        planted = Planted(fault, at)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("fsync", "rename", "symlink", "unlink", "rmdir"):
                patch.setattr(os, name, planted.instead_of(getattr(os, name)))
            try:
                place = relocate.move(run, target)
                assert run.folder.resolve() == place == target / run.id
                codes.append("moved")
            except Killed:
                codes.append("killed")
            except UserError as error:
                codes.append(error.code)
                told = str(error)
        if codes[-1] == "run_not_moved":
            assert "Input/output error. It is where it was." in told
            assert run.folder.resolve() == was
        elif codes[-1] == "run_not_put_back":
            aside = run_folders.aside(run.folder)
            assert f"It is whole in {aside}." in told and contents(aside) == before
            assert contents(target / run.id) == before
        found = runs.find(run.id) if at % 2 else runs.list_runs()[0].run
        assert found == run and contents(run.folder) == before, f"call {at}: {codes[-1]}"
        assert [row.run for row in runs.list_runs()] == [run]
        last = tmp_path / "last"  # and it can be moved on
        last.mkdir()
        assert contents(relocate.move(run, last)) == contents(run.folder) == before
        assert [path.name for path in runs.runs_dir().iterdir()] == [run.id]
        for folder in (*runs.runs_dir().iterdir(), *drive.iterdir(), last):
            os.unlink(folder) if folder.is_symlink() else shutil.rmtree(folder)
        if not planted.happened:
            break
    else:
        pytest.fail("it never ends")
    assert codes[-1] == "moved" and len(codes) > 15
    expected = {
        "error": {"moved", "run_not_moved"},
        "error though done": {"moved", "run_not_moved", "run_not_put_back"},
        "dead disk": {"moved", "run_not_moved", "run_not_put_back"},
    }
    assert set(codes) == expected.get(fault, {"moved", "killed"})


def test_an_original_that_was_kept_goes_with_the_next_move(
    run: Run, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        if folder == run.folder.parent:
            raise OSError(errno.EIO, "Input/output error")

    before = contents(run.folder)
    with monkeypatch.context() as patch:
        patch.setattr(relocate, "fsync_folder", refuse)
        assert relocate.move(run, drive) == run.folder.resolve()
    assert contents(run_folders.aside(run.folder)) == before  # the link may not last
    third = tmp_path / "third"
    third.mkdir()
    relocate.move(run, third)
    assert [path.name for path in runs.runs_dir().iterdir()] == [run.id]
    assert contents(run.folder) == before


def test_what_cannot_be_copied_is_said_in_words(
    run: Run, drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(UserError) as error:
        relocate.move(run, drive)
    assert "No space left on device" in str(error.value)
    assert "Errno" not in str(error.value) and "[" not in str(error.value)


def test_another_folder_of_its_name_is_let_be(run: Run, drive: Path) -> None:
    (drive / run.id).mkdir()
    (drive / run.id / "mine").touch()
    with pytest.raises(UserError) as error:
        relocate.move(run, drive)
    assert error.value.code == "name_is_taken"
    assert (drive / run.id / "mine").exists() and not run.folder.is_symlink()


def test_who_lists_the_runs_sees_no_folder_set_aside_and_takes_none_from_a_move(run: Run) -> None:
    mark = queue_file.Mark(added=1.0, sweep="s")
    (run.folder / queue_file.MARK).write_text(mark.model_dump_json(), encoding="utf-8")
    aside = run_folders.aside(run.folder)
    shutil.copytree(run.folder, aside)
    shutil.copytree(run.folder, runs.runs_dir() / f".{run.id}.partial")

    def seen() -> list[list[str]]:
        return [
            [row.run.id for row in runs.list_runs()],
            [facts.run.id for facts in queue_summary.ended_since(0.0)],
            [each.id for each in queue_file.queued_by("s")],
        ]

    assert seen() == [[run.id]] * 3
    shutil.rmtree(run.folder)
    with FileLock(aside / "worker.lock").acquire():  # a move is between its two steps
        assert seen() == [[], [], []]
    assert seen() == [[run.id]] * 3 and not aside.exists()
