"""Putting a GGUF file among LM Studio's models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from training_backend.errors import StopRequested, UserError
from training_backend.export import lm_studio


@pytest.fixture(autouse=True)
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home of a person."""
    home = tmp_path / "person"
    home.mkdir()
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    for variable in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.setenv(variable, str(home / ".config"))
    return home


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "export" / "a-Q8_0.gguf"
    path.parent.mkdir()
    path.write_bytes(os.urandom(1_000))
    return path


def add(gguf: Path, name: str = "a") -> Path:
    return lm_studio.add(gguf, name, lambda _: None, lambda: None)


def test_its_folder_is_found_wherever_a_version_or_a_person_put_it(person: Path) -> None:
    assert lm_studio.models_folder() is None
    (person / ".cache" / "lm-studio").mkdir(parents=True)
    assert lm_studio.models_folder() == person / ".cache" / "lm-studio" / "models"
    (person / ".lmstudio").mkdir()
    assert lm_studio.models_folder() == person / ".lmstudio" / "models"
    (person / "elsewhere").mkdir()
    (person / ".lmstudio-home-pointer").write_text(f"{person / 'elsewhere'}\n")
    assert lm_studio.models_folder() == person / "elsewhere" / "models"
    chosen = person / "large drive"
    settings = person / "elsewhere" / "settings.json"
    settings.write_text(json.dumps({"downloadsFolder": str(chosen)}))
    assert lm_studio.models_folder() == person / "elsewhere" / "models", "it is not there"
    chosen.mkdir()
    assert lm_studio.models_folder() == chosen
    settings.write_text("{")
    assert lm_studio.models_folder() == person / "elsewhere" / "models"


def test_on_the_same_drive_it_is_the_same_file(person: Path, gguf: Path) -> None:
    (person / ".lmstudio").mkdir()
    target = add(gguf)
    assert target == person / ".lmstudio" / "models" / "lorasmith" / "a" / gguf.name
    assert os.path.samefile(target, gguf)
    assert add(gguf) == target, "it is there already"


def test_another_file_of_that_name_stays(person: Path, gguf: Path) -> None:
    (person / ".lmstudio").mkdir()
    first = add(gguf)
    before = first.read_bytes()
    gguf.unlink()
    gguf.write_bytes(b"another")
    second = add(gguf)
    assert second.parent.name == "a-2" and second.read_bytes() == b"another"
    assert first.read_bytes() == before


def test_on_another_drive_it_is_copied(
    person: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person / ".lmstudio").mkdir()
    monkeypatch.setattr(os, "link", refuse_link)
    told: list[float] = []
    target = lm_studio.add(gguf, "a", told.append, lambda: None)
    assert target.read_bytes() == gguf.read_bytes() and not os.path.samefile(target, gguf)
    assert told[-1] == 1.0
    assert [path.name for path in target.parent.iterdir()] == [gguf.name]


def test_a_cancelled_copy_leaves_nothing(
    person: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person / ".lmstudio").mkdir()
    monkeypatch.setattr(os, "link", refuse_link)

    def stop() -> None:
        raise StopRequested

    with pytest.raises(StopRequested):
        lm_studio.add(gguf, "a", lambda _: None, stop)
    assert not list((person / ".lmstudio").rglob("a*"))


def test_a_folder_that_takes_nothing_is_a_sentence(person: Path, gguf: Path) -> None:
    (person / ".lmstudio").mkdir()
    (person / ".lmstudio" / "models").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"could not be put into .*lorasmith"):
        add(gguf)


def test_without_it_the_sentence_says_so(gguf: Path) -> None:
    with pytest.raises(UserError, match="LM Studio was not found"):
        add(gguf)


def refuse_link(*_: object) -> None:
    raise OSError(18, "Invalid cross-device link")
