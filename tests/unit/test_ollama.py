"""Giving a model to Ollama through its command."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.fake_ollama import FakeOllama
from training_backend.errors import StopRequested, UserError
from training_backend.export import ollama


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeOllama:
    return FakeOllama(tmp_path / "fake", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "an export"
    path.mkdir()
    (path / "Modelfile").write_text("FROM ./größe.gguf\n", "utf-8")
    return path


def create(folder: Path, name: str = "mine") -> list[tuple[float | None, str]]:
    told: list[tuple[float | None, str]] = []
    ollama.create(folder, name, lambda share, words: told.append((share, words)), lambda: None)
    return told


def test_it_is_given_the_modelfile_and_says_how_far_it_is(fake: FakeOllama, folder: Path) -> None:
    told = create(folder)
    assert fake.given() == "FROM ./größe.gguf\n"
    assert (1.0, "copying file sha256:0a1b") in told
    assert told[-1] == (None, "success")
    assert all("\x1b" not in words and "%" not in words for _, words in told)


def test_a_model_that_it_has_is_not_replaced(fake: FakeOllama, folder: Path) -> None:
    with pytest.raises(UserError, match="has a model called taken already") as raised:
        create(folder, "taken")
    assert raised.value.field == "name" and not fake.given()


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("silent", "Ollama is installed but does not answer. Start Ollama"),
        ("refuses", 'did not take the model: unsupported architecture "llama9". Update'),
    ],
)
def test_what_keeps_it_from_it_is_one_sentence(
    how: str, sentence: str, fake: FakeOllama, folder: Path
) -> None:
    fake.behave(how)
    with pytest.raises(UserError) as raised:
        create(folder)
    assert sentence in str(raised.value) and not fake.given()


def test_cancelling_ends_it(fake: FakeOllama, folder: Path) -> None:
    fake.behave("hangs")
    pid = fake.folder / "pid"

    def stop() -> None:
        if pid.exists() and pid.read_text():
            raise StopRequested

    with pytest.raises(StopRequested):
        ollama.create(folder, "mine", lambda *_: None, stop)
    assert not psutil.pid_exists(int(pid.read_text()))


@pytest.mark.parametrize(
    "name", ["", "a b", "-x", "ü", "../x", "a/b/c", "x" * 90, "a:", "--help", "-a/b"]
)
def test_a_name_that_it_would_not_take_is_refused(name: str, fake: FakeOllama) -> None:
    with pytest.raises(UserError, match="cannot be the name") as raised:
        ollama.create(Path(), name, lambda *_: None, lambda: None)
    assert raised.value.field == "name"


@pytest.mark.parametrize("name", ["mine", "My_Model.v1", "ada/mine:8b-q8_0"])
def test_a_name_that_it_takes_is_taken(name: str) -> None:
    ollama.check_name(name)


def test_without_it_the_sentence_says_where_it_is_to_be_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ollama, "find", lambda: None)
    with pytest.raises(UserError, match=r"Install it from ollama\.com"):
        create(folder)


def test_a_program_of_that_name_in_the_current_folder_is_not_it(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ollama.find() == fake.program
    monkeypatch.chdir(fake.folder)
    assert ollama.find() != fake.program
