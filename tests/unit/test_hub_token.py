"""Where the token for the Hub is kept: keyring, file, environment; and who may read it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

from training_backend.errors import UserError
from training_backend.hub import hub_token


class Memory(KeyringBackend):
    """A keyring that works."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError


class Locked(Memory):
    """A keyring that the person does not unlock."""

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError("locked")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError("locked")


@pytest.fixture(autouse=True)
def home(lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    kept = keyring.get_keyring()
    yield lorasmith_home
    keyring.set_keyring(kept)


def test_at_first_there_is_none() -> None:
    assert hub_token.read() is None
    assert hub_token.place() == ""


def test_a_keyring_keeps_it_and_no_file_is_written(home: Path) -> None:
    memory = Memory()
    keyring.set_keyring(memory)
    assert hub_token.store(" hf_abc \n") == "keyring"
    assert (hub_token.read(), hub_token.place()) == ("hf_abc", "keyring")
    assert list(memory.kept.values()) == ["hf_abc"]
    assert not (home / "hub-token").exists()
    hub_token.forget()
    hub_token.forget()  # nothing is there any more
    assert hub_token.read() is None


@pytest.mark.skipif(os.name == "nt", reason="rights of another kind")
def test_without_a_keyring_a_file_keeps_it_that_nobody_else_reads(home: Path) -> None:
    (home / "hub-token").parent.mkdir(exist_ok=True)
    (home / "hub-token").write_text("old")
    (home / "hub-token").chmod(0o644)
    assert hub_token.store("hf_abc") == "file"
    assert stat.S_IMODE((home / "hub-token").stat().st_mode) == 0o600
    assert (hub_token.read(), hub_token.place()) == ("hf_abc", "file")
    hub_token.forget()
    assert hub_token.place() == "" and not (home / "hub-token").exists()


def test_a_locked_keyring_falls_back_to_the_file() -> None:
    keyring.set_keyring(Locked())
    assert hub_token.store("hf_abc") == "file"
    assert (hub_token.read(), hub_token.place()) == ("hf_abc", "file")


def test_a_token_that_moves_to_the_keyring_leaves_no_copy(home: Path) -> None:
    hub_token.store("hf_old")
    keyring.set_keyring(Memory())
    hub_token.store("hf_new")
    assert hub_token.read() == "hf_new"
    assert not (home / "hub-token").exists()


def test_the_environment_goes_first_and_the_hf_command_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_cli\n")
    assert (hub_token.read(), hub_token.place()) == ("hf_cli", "hf")
    hub_token.store("hf_ours")
    assert (hub_token.read(), hub_token.place()) == ("hf_ours", "file")
    monkeypatch.setenv("HF_TOKEN", "hf_env")
    assert (hub_token.read(), hub_token.place()) == ("hf_env", "environment")
    hub_token.forget()
    monkeypatch.delenv("HF_TOKEN")
    assert hub_token.place() == "hf"  # not ours to remove


@pytest.mark.parametrize("text", ["", "   ", "hf abc", "hf_ä", "hf_a\nb", "hf_\x07"])
def test_what_is_no_token_is_refused(text: str, home: Path) -> None:
    with pytest.raises(UserError) as caught:
        hub_token.store(text)
    assert caught.value.code == "token_malformed"
    assert hub_token.place() == ""
