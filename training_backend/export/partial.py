"""`<out>.partial`, where an export is built, and what of an interrupted one stays in it.

A file that took long to write is noted with its hash as soon as it is on the disk. When the
export is killed, the power fails or the disk is full, the same export to the same place goes on:
what is noted and still hashes so is kept. Nothing else of the folder is trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock, Timeout

from training_backend.errors import UserError
from training_backend.export.shards import hash_file
from training_backend.files import (
    fsync_folder,
    fsync_tree,
    is_disk_full,
    make_folder,
    replace,
    write_json_atomic,
)
from training_backend.paths import UNFINISHED, home, partial_of
from training_backend.worker import Reporter


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Meanwhile no other export writes to the same place. Raises `UserError` when one does."""
    name = hashlib.sha256(os.path.normcase(out.resolve()).encode()).hexdigest()[:32]
    folder = home() / "export-locks"
    make_folder(folder)
    try:
        with FileLock(folder / f"{name}.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(
            "out_being_written",
            "Another export is writing to {out} right now.",
            "Wait until it ends, or choose another folder.",
            field="out",
            out=out,
        ) from None


class Partial:
    """The folder beside `out`; its constructor makes it, or takes over an interrupted one.

    Raises `UserError` when it cannot be made, or holds something that no export left.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = partial_of(out)
        self._marker = self.folder / UNFINISHED
        self._key = ""
        self._files: dict[str, dict[str, Any]] = {}  # path within the folder -> size and hash
        if self.folder.exists():
            self._take_over()
        else:
            self._make()

    def begin(self, key: str, reporter: Reporter) -> int:
        """Keep what an interrupted export of the same kind left; of another kind, remove it.

        Args:
            key: says what is being made, and of what; other bytes come of another key.

        Returns the bytes that need not be written again. Raises `StopRequested`.
        """
        if self._files and self._key != key:
            reporter.log(
                f"The unfinished export in {self.folder} is of other weights or settings; "
                "this one begins anew."
            )
            self._forget(list(self._files))
        count = len(self._files)
        for number, (name, noted) in enumerate(list(self._files.items())):
            reporter.phase("verifying", number / count, detail="what the last attempt left")
            if not _is_whole(self.folder / name, noted):
                reporter.log(f"{name} of the unfinished export is damaged, and written again.")
                self._forget([name])
        if self._files:
            reporter.log(
                f"This goes on with an export that was interrupted: {len(self._files)} finished "
                "files stay as they are."
            )
        self._key = key
        self._write_marker()
        return sum(int(noted["size"]) for noted in self._files.values())

    def has(self, path: Path) -> bool:
        """Whether the file is there already, whole."""
        return self._name(path) in self._files

    def note(self, path: Path, digest: str) -> None:
        """The file is on the disk, and this is its `hash_file`."""
        name = self._name(path)
        self._files[name] = {"size": path.stat().st_size, "xxh3_128": digest}
        try:
            self._write_marker()
        except OSError:
            del self._files[name]  # the next attempt could not know of it
            raise

    def is_worth_keeping(self) -> bool:
        return bool(self._files)

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self) -> None:
        """Have everything on the disk, then give the folder its name."""
        fsync_tree(self.folder)
        if self.out.is_dir():
            self.out.rmdir()  # empty, as checked
        replace(self.folder, self.out)
        # Last: what is killed before leaves a folder known to be ours.
        (self.out / UNFINISHED).unlink()
        fsync_folder(self.out)
        fsync_folder(self.out.parent)

    # -------------------------------------------------------------------------------- inside

    def _take_over(self) -> None:
        if not self._is_ours():
            raise UserError(
                "partial_in_the_way",
                "The folder {partial} is in the way.",
                "Move it away, or choose another output folder.",
                field="out",
                partial=self.folder,
            )
        self._key, self._files = _read(self._marker)
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes first
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()
            elif path != self._marker and self._name(path) not in self._files:
                path.unlink()

    def _make(self) -> None:
        try:
            make_folder(self.folder)
            self._write_marker()
        except OSError as error:
            self.discard()
            if is_disk_full(error):
                raise
            raise UserError(
                "out_not_writable",
                "The folder {out} cannot be made: {reason}.",
                "Choose a folder that you may write to.",
                field="out",
                out=self.out,
                reason=error.strerror or error,
            ) from None

    def _is_ours(self) -> bool:
        """Whether it is marked, or nothing is in it yet but a marker half written."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else [""]
        return UNFINISHED in names or all(name.startswith(f".{UNFINISHED}.") for name in names)

    def _forget(self, names: list[str]) -> None:
        for name in names:
            del self._files[name]
            (self.folder / name).unlink(missing_ok=True)

    def _write_marker(self) -> None:
        write_json_atomic(self._marker, {"key": self._key, "files": self._files})

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _read(marker: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """What it notes; nothing where it cannot be read or is of an older version."""
    try:
        document = json.loads(marker.read_text(encoding="utf-8"))
        files = {
            str(name): {"size": int(noted["size"]), "xxh3_128": str(noted["xxh3_128"])}
            for name, noted in document["files"].items()
            if ".." not in PurePath(name).parts and not PurePath(name).is_absolute()
        }
        return str(document["key"]), files
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return "", {}


def _is_whole(path: Path, noted: dict[str, Any]) -> bool:
    try:
        same_size = path.lstat().st_size == noted["size"]  # a link has another
        return same_size and hash_file(path) == noted["xxh3_128"]
    except OSError:
        return False
