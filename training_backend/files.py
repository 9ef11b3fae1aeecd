"""Writing that survives a crash: a file is there whole, or it is not there.

The order is always the same: write beside the target under a temporary name, fsync the
file, rename it over the target, fsync the folder. Without the last step a power cut can
undo the rename.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4


def write_text_atomic(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 with `\\n` line ends, replacing `path` in one step.

    Raises:
        OSError: the disk is full or the folder cannot be written; `path` is as it was, and
            nothing temporary is left.
    """
    write_bytes_atomic(path, text.encode())


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """As `write_text_atomic`."""
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json_atomic(path: Path, obj: Any) -> None:
    """Writes `obj` as indented JSON, replacing `path` in one step.

    Raises:
        TypeError, ValueError: `obj` is not JSON (NaN and infinity are not).
        OSError: as `write_text_atomic`.
    """
    write_text_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def meant_name(path: Path) -> str:
    """The name of a file, for people; of a temporary one that of the file it was to become."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{32}\.tmp", path.name)
    return found[1] if found else path.name


def replace(source: Path, target: Path) -> None:
    """`os.replace`, patient with Windows.

    There a virus scanner or an indexer that looks at a new file holds it for a moment, and
    renaming it is refused until then; we wait up to two seconds.
    """
    attempts = 20 if os.name == "nt" else 1
    for attempt in range(attempts):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if attempt + 1 == attempts:
                raise
            time.sleep(0.1)


def fsync_file(path: Path) -> None:
    """Has the operating system put the file's bytes on the disk."""
    # Windows refuses to flush a handle that was opened for reading only.
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    """Makes renames and new names in a folder durable; Windows has no such call."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Makes the folder and what is missing above it, so that a power cut does not undo it.

    Raises `OSError`.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        fsync_folder(folder.parent)


def fsync_tree(folder: Path) -> None:
    """`fsync_file` for every file below `folder`, `fsync_folder` for every folder."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            fsync_file(Path(root, name))
        fsync_folder(Path(root))


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that the disk is full; safetensors says so in words only, and torch
    only that a write failed."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    words = ("No space left on device", "unexpected pos", "iostream error")
    return any(word in str(error) for word in words)


def is_too_large(error: BaseException) -> bool:
    """Whether `error` says that a file became larger than its file system takes, as FAT32 does."""
    if isinstance(error, OSError):
        return error.errno == errno.EFBIG or getattr(error, "winerror", None) == 223
    return "File too large" in str(error)  # safetensors' words


def sha256_file(path: Path) -> str:
    """The file's SHA-256 in lower-case hex, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")
