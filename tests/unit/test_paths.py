"""The home folder, and refusing to begin what the disk cannot hold."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from training_backend import paths
from training_backend.errors import UserError


def test_home_is_where_the_variable_says_and_is_made(lorasmith_home: Path) -> None:
    assert not lorasmith_home.exists()
    assert paths.home() == lorasmith_home
    assert lorasmith_home.is_dir()
    for folder in (paths.runs_dir(), paths.exports_dir(), paths.models_dir()):
        assert folder.is_dir()
        assert folder.parent == lorasmith_home


def test_home_is_the_users_data_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORASMITH_HOME", raising=False)
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name, author: tmp_path / name)
    assert paths.home() == tmp_path / "Lorasmith"


def test_a_relative_home_does_not_move_with_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORASMITH_HOME", "here")
    assert paths.home() == tmp_path / "here"


def test_a_home_that_cannot_be_made_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LORASMITH_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(UserError, match="cannot be made") as caught:
        paths.home()
    assert "LORASMITH_HOME" in caught.value.remedy


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert paths.free_bytes(tmp_path / "a" / "b" / "c") > 0
    paths.require_free(tmp_path / "a" / "b", 1, "a byte")


def test_too_little_room_names_the_drive_and_what_is_missing(tmp_path: Path) -> None:
    free = paths.free_bytes(tmp_path)
    with pytest.raises(UserError) as caught:
        paths.require_free(tmp_path / "merged", free + 3 * 10**12, "the merged model")
    error = caught.value
    assert error.code == "disk_full_ahead"
    assert "the merged model" in error.message
    assert paths.drive_of(tmp_path) in error.message
    missing = float(error.params["missing_gb"])
    assert missing == pytest.approx(3000, abs=1)
    assert f"Free {error.params['missing_gb']} GB" in error.remedy


def test_what_an_unfinished_export_left_is_counted_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert paths.unfinished_bytes(out) == 0
    folder = paths.partial_of(out)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(bytes(1_000))
    (folder / "16-bit.gguf").write_bytes(bytes(500))
    assert paths.unfinished_bytes(out) == 0, "some other folder of that name"
    (folder / paths.UNFINISHED).touch()
    assert paths.unfinished_bytes(out) == 1_500
