"""The token for the Hugging Face Hub: kept in the system's keyring, or in a file of one's own.

It is read in the process that needs it, at the moment that it needs it, and handed on as an
argument: never through the environment, a job, an event or a command line.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from training_backend import paths
from training_backend.errors import UserError

Place = Literal["environment", "keyring", "file", "hf", ""]

_SERVICE = "Lorasmith"
_ACCOUNT = "huggingface.co"
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def read() -> str | None:
    """The token, or None: from HF_TOKEN, the keyring, our own file, the file of the hf command.

    May take a while: some keyrings ask the person to unlock them. Not on the GUI thread.
    """
    for place in _PLACES:
        token = _PLACES[place]()
        if token:
            return token
    return None


def in_files() -> list[str]:
    """The tokens that lie in files, whoever put them there; no keyring is asked."""
    return [token for token in (_from_file(), _from_hf()) if token]


def place() -> Place:
    """Where the token that `read` gives is kept; "" if there is none."""
    for place, reader in _PLACES.items():
        if reader():
            return place
    return ""


def store(token: str) -> Place:
    """Keep a token: in the keyring, or in a file that only this user reads where there is none.

    Returns where it is kept now.

    Raises:
        UserError: `token_malformed`, or the file cannot be written.
    """
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            "token_malformed",
            "That is not a token.",
            "Copy it whole from huggingface.co, under Settings, Access tokens; it begins with hf_.",
        )
    keyring = _keyring()
    if keyring is not None:
        with contextlib.suppress(Exception):  # a locked or broken keyring: then the file
            keyring.set_password(_SERVICE, _ACCOUNT, token)
            _file().unlink(missing_ok=True)
            return "keyring"
    _write(token)
    return "file"


def forget() -> None:
    """Remove the token from the keyring and from our file; others' places are left alone."""
    keyring = _keyring()
    if keyring is not None:
        with contextlib.suppress(Exception):  # there was none
            keyring.delete_password(_SERVICE, _ACCOUNT)
    _file().unlink(missing_ok=True)


def _from_environment() -> str | None:
    return next((os.environ[name].strip() for name in _VARIABLES if os.environ.get(name)), None)


def _from_keyring() -> str | None:
    keyring = _keyring()
    if keyring is None:
        return None
    try:
        return keyring.get_password(_SERVICE, _ACCOUNT) or None
    except Exception:  # locked, refused, or its service died
        return None


def _from_file() -> str | None:
    return _text_of(_file())


def _from_hf() -> str | None:
    """What `hf auth login` keeps."""
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return _text_of(Path(os.environ.get("HF_TOKEN_PATH") or Path(home, "token")).expanduser())


_PLACES: dict[Place, Callable[[], str | None]] = {
    "environment": _from_environment,
    "keyring": _from_keyring,
    "file": _from_file,
    "hf": _from_hf,
}


def _keyring() -> Any | None:
    """The library, provided that there is a keyring behind it that keeps secrets safe."""
    try:
        import keyring
        from keyring.backends import fail, null

        backend = keyring.get_keyring()
    except Exception:  # a desktop without a keyring service ends in errors of many kinds
        return None
    useless = isinstance(backend, fail.Keyring | null.Keyring) or backend.priority < 1
    return None if useless else keyring


def _file() -> Path:
    return paths.home() / "hub-token"


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _write(token: str) -> None:
    """Made with its rights, so that nobody else can read it even for a moment."""
    path = _file()
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(token)
