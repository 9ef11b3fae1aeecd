"""An ended run is put on another drive whole and found as before; a failed move leaves it be."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from training_backend import paths, runs
from training_backend.errors import UserError
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints, relocate
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import RunFailed, RunStarted
from training_backend.runs import Run


@pytest.fixture
def run(lorasmith_home: Path) -> Run:
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
