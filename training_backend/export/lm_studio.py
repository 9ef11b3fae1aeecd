"""LM Studio's models on this computer, and putting one among them.

It shows every GGUF file that lies two folders deep: publisher, then model. Where its folder is:
https://lmstudio.ai/docs/app/basics/import-model
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from training_backend.errors import UserError
from training_backend.files import fsync_file, fsync_folder, make_folder, replace
from training_backend.paths import require_free

PUBLISHER = "lorasmith"
PIECE_BYTES = 8_000_000
ROOM_BYTES = 50_000_000


def models_folder() -> Path | None:
    """Where LM Studio keeps its models, or None when it was never started here."""
    for home in _homes():
        for settings in (home / "settings.json", _settings()):
            chosen = _downloads(settings)
            if chosen is not None and chosen.is_dir():
                return chosen
        if home.is_dir():
            return home / "models"
    return None


def add(
    gguf: Path,
    name: str,
    tell: Callable[[float], None],
    check_stop: Callable[[], None],
) -> Path:
    """Put a GGUF file among LM Studio's models; returns where it is there.

    On the same drive it is the same file under a second name, which takes no room and stays when
    the first is deleted; else a copy. Nothing that is there is replaced.

    Args:
        name: of the model's folder.
        tell: how much is copied, from 0 to 1.
        check_stop: raises what ends it; then nothing is left.

    Raises `UserError`.
    """
    models = models_folder()
    if models is None:
        raise UserError(
            "lm_studio_missing",
            "LM Studio was not found on this computer.",
            "Install it from lmstudio.ai and start it once, then try again.",
        )
    gguf = gguf.resolve()
    for folder in _names(models / PUBLISHER, name):
        target = folder / gguf.name
        if target.exists() and os.path.samefile(target, gguf):
            return target
        if not folder.exists():
            break
    try:
        make_folder(folder)
        try:
            os.link(gguf, target)
        except OSError:  # another drive, or one without such links
            _copy(gguf, target, tell, check_stop)
        fsync_folder(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not isinstance(error, OSError):
            raise
        raise UserError(
            "lm_studio_refused",
            "The file could not be put into {folder}: {reason}.",
            "Make that folder one that you may write to, with room for the file.",
            folder=folder,
            reason=error.strerror or error,
        ) from None
    return target


def _copy(
    source: Path, target: Path, tell: Callable[[float], None], check_stop: Callable[[], None]
) -> None:
    size = source.stat().st_size
    require_free(target, size + ROOM_BYTES, "the copy in LM Studio's folder")
    partial = target.with_name(target.name + ".partial")
    try:
        with source.open("rb") as read, partial.open("xb") as write:
            while piece := read.read(PIECE_BYTES):
                check_stop()
                write.write(piece)
                tell(write.tell() / size)
        fsync_file(partial)
        replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _names(publisher: Path, name: str) -> Iterator[Path]:
    yield publisher / name
    number = 2
    while True:
        yield publisher / f"{name}-{number}"
        number += 1


def _homes() -> Iterator[Path]:
    """LM Studio's own folder, by its versions."""
    home = Path.home()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        told = (home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip()
        if told:
            yield Path(told)
    yield home / ".lmstudio"
    yield home / ".cache" / "lm-studio"


def _settings() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "LM Studio" / "settings.json"


def _downloads(settings: Path) -> Path | None:
    """The folder that a person chose in LM Studio."""
    try:
        chosen = json.loads(settings.read_text(encoding="utf-8"))["downloadsFolder"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return Path(chosen) if isinstance(chosen, str) and os.path.isabs(chosen) else None
