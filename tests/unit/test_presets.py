"""Presets of one's own: files that can be copied, and never more than settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.forms import specs
from training_backend.errors import JobError, UserError
from training_backend.starting_points import presets


@pytest.fixture
def folder(lorasmith_home: Path) -> Path:
    return lorasmith_home / "presets"


def titles() -> list[str]:
    return [preset.title for preset in presets.own_presets()]


def test_own_presets_are_kept_as_files_and_listed_by_title(folder: Path) -> None:
    assert presets.own_presets() == ()
    presets.save_own("  support   tone ", {"lora.r": 24, "training.learning_rate": 3e-4})
    presets.save_own("Grüße / 👋", {"lora.use_dora": True})
    assert titles() == ["Grüße / 👋", "support tone"]
    assert presets.own_presets()[1].values == {"lora.r": 24, "training.learning_rate": 3e-4}
    (folder / "from-a-friend.json").write_text(
        json.dumps({"title": "A friend's", "description": "", "values": {"lora.r": 8}}), "utf-8"
    )
    assert titles() == ["A friend's", "Grüße / 👋", "support tone"]


def test_saving_under_the_same_title_replaces_whatever_the_case(folder: Path) -> None:
    presets.save_own("Support", {"lora.r": 8})
    presets.save_own("support", {"lora.r": 9})
    assert titles() == ["support"] and len(list(folder.iterdir())) == 1
    presets.save_own("support!", {"lora.r": 10})  # the same file name, but another title
    assert len(list(folder.iterdir())) == 2


def test_a_preset_is_renamed_and_deleted(folder: Path) -> None:
    presets.save_own("one", {"lora.r": 8})
    presets.save_own("two", {"lora.r": 9})
    presets.rename_own("one", "One")
    presets.rename_own("One", "three")
    with pytest.raises(UserError, match="There is a preset “TWO” already"):
        presets.rename_own("three", "TWO")
    presets.delete_own("two")
    assert titles() == ["three"]
    with pytest.raises(UserError, match="no preset “two”"):
        presets.delete_own("two")


@pytest.mark.parametrize("title", ["", "  ", "x" * 61, "balanced"])
def test_a_title_that_cannot_be_is_refused(folder: Path, title: str) -> None:
    with pytest.raises(UserError) as caught:
        presets.save_own(title, {"lora.r": 8})
    assert caught.value.remedy == "Choose another name."
    assert not folder.exists()


def test_settings_that_cannot_be_are_no_preset(folder: Path) -> None:
    with pytest.raises(JobError, match=r"lora\.r"):
        presets.save_own("bad", {"lora.r": 0})
    with pytest.raises(UserError, match=r"it sets model\.id"):
        presets.save_own("model", {"model.id": "owner/name"})
    assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{}",
        b"[]",
        b'{"title": "x", "description": ""}',
        b'{"title": "x", "description": "", "values": {"lora.r": "many"}}',
        b'{"title": "x", "description": "", "values": {"lora.of_a_later_version": 1}}',
        b'{"title": "x", "description": "", "values": {"dataset.path": "/etc/passwd"}}',
        b'{"title": 7, "description": "", "values": {}}',
        b'{"title": "Grown", "description": "", "values": {}, "run": "rm"}',
        b'{"title": "big", "description": "", "values": {}}' + b" " * presets.MOST_BYTES,
    ],
)
def test_a_damaged_file_is_passed_over(folder: Path, content: bytes) -> None:
    presets.save_own("good", {"lora.r": 8})
    (folder / "a.json").write_bytes(content)
    assert titles() == ["good"]


def test_a_preset_holds_every_setting_that_is_not_about_the_data() -> None:
    shown = {spec.field for spec in specs()}
    assert set(presets.fields()) == shown - {"evaluation.prompts"}
    assert {"lora.r", "training.tensorboard", "evaluation.eval_steps"} <= set(presets.fields())


def test_a_folder_that_cannot_be_written_is_said(
    lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lorasmith_home.mkdir()
    (lorasmith_home / "presets").write_text("a file")
    values: dict[str, Any] = {"lora.r": 8}
    with pytest.raises(UserError, match="cannot be written") as caught:
        presets.save_own("one", values)
    assert caught.value.code == "preset_not_written"
