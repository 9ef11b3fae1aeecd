"""Where Lorasmith keeps its things, and whether there is room for more.

All state lives under one folder, `home()`. The folders below it are made when they are
first asked for, so that looking at a fresh installation changes nothing elsewhere.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import platformdirs

from training_backend.errors import UserError
from training_backend.files import make_folder

GB = 10**9
UNFINISHED = ".lorasmith-partial"  # marks the folder of an export that did not come to its end
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))}
)


def home() -> Path:
    """The folder of all state: `LORASMITH_HOME`, else the platform's user-data folder.

    Absolute, and made if missing.

    Raises:
        UserError: the folder cannot be made.
    """
    chosen = os.environ.get("LORASMITH_HOME")
    folder = (
        Path(chosen).expanduser() if chosen else platformdirs.user_data_path("Lorasmith", False)
    )
    return _made(folder.absolute())


def runs_dir() -> Path:
    """`runs/`: one folder for each run."""
    return _made(home() / "runs")


def exports_dir() -> Path:
    """`exports/`: where exports go unless the person picks another place."""
    return _made(home() / "exports")


def export_runs_dir() -> Path:
    """`export-runs/`: journals and logs of exports, as `runs/` for training."""
    return _made(home() / "export-runs")


def probe_runs_dir() -> Path:
    """`probe-runs/`: what a probe needs while it lasts."""
    return _made(home() / "probe-runs")


def models_dir() -> Path:
    """`models/`: base models that Lorasmith prepared itself."""
    return _made(home() / "models")


def downloads_dir() -> Path:
    """`downloads/`: unfinished downloads, kept so that they can be resumed."""
    return _made(home() / "downloads")


def not_reserved(stem: str) -> str:
    """A name for a file or folder, made of any words, that Windows does not keep for a device.

    There `con`, with any ending, is the keyboard.
    """
    return f"{stem}-" if stem.lower() in _DEVICES else stem


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write where `path` is, or would be, made.

    Raises:
        UserError: `drive_missing`, on Windows.
    """
    return shutil.disk_usage(_nearest_existing(path)).free


def require_free(path: Path, needed_bytes: int, what: str) -> None:
    """Refuses to begin what the disk cannot hold.

    Args:
        path: the file or folder about to be written; it need not exist.
        needed_bytes: what it will take, temporary copies included.
        what: a noun phrase for the message, such as "the merged model".

    Raises:
        UserError: `disk_full_ahead`, with the missing room in GB and the drive, or
            `drive_missing`.
    """
    free = free_bytes(path)
    if free >= needed_bytes:
        return
    raise UserError(
        "disk_full_ahead",
        "There is not enough room on {drive} for {what}: it needs {needed_gb} GB, {free_gb} GB "
        "are free.",
        "Free {missing_gb} GB on {drive}, or choose a folder on another drive.",
        drive=drive_of(path),
        what=what,
        needed_gb=gigabytes(needed_bytes),
        free_gb=gigabytes(free, round_up=False),
        missing_gb=gigabytes(needed_bytes - free),
    )


def check_empty(out: Path) -> None:
    """Raises `UserError` unless the output folder is absent or empty."""
    if out.is_file():
        raise UserError("out_is_file", "{out} is a file.", "Choose a folder.", field="out", out=out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(
            "out_not_empty",
            "The folder {out} is not empty.",
            "Choose a new or an empty folder.",
            field="out",
            out=out,
        )


def partial_of(out: Path) -> Path:
    """The folder that an export to `out` is built in."""
    return out.with_name(out.name + ".partial")


def unfinished_bytes(out: Path) -> int:
    """What an interrupted export to `out` left: the next one keeps it, or removes it first.

    Raises `OSError`.
    """
    folder = partial_of(out)
    if not (folder / UNFINISHED).is_file():
        return 0
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def drive_of(path: Path) -> str:
    """The drive that holds `path`, as people know it: `C:\\` or a mount point such as `/home`."""
    folder = _nearest_existing(path).resolve()  # it may lead to another drive
    while not os.path.ismount(folder) and folder != folder.parent:
        folder = folder.parent
    return str(folder)


def _made(folder: Path) -> Path:
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(
            "folder_not_writable",
            "The folder {folder} cannot be made: {reason}.",
            "Set the environment variable LORASMITH_HOME to a folder that you can write to.",
            folder=folder,
            reason=error.strerror or error,
        ) from error
    return folder


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    found = next((folder for folder in (path, *path.parents) if os.path.exists(folder)), None)
    if found is None:
        raise UserError(
            "drive_missing",
            "There is no drive {drive} for {path}.",
            "Connect it, or choose another folder.",
            drive=path.anchor,
            path=path,
        )
    return found


def gigabytes(count: int, round_up: bool = True) -> str:
    """Two decimals, for people; what is missing is rounded up, so that it suffices."""
    hundredths = -(-count * 100 // GB) if round_up else count * 100 // GB
    return f"{hundredths / 100:.2f}"
