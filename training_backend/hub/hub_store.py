"""One model's place in the Hugging Face cache: its files, their parts, and who works on them.

Light. The layout is huggingface_hub's (see `hub_cache`). Ours are the parts of files that have
not come whole, `blobs/<checksum>.incomplete`, and in `.locks/` a lock and a note for each version
whose download is not finished.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from training_backend.errors import UserError
from training_backend.files import (
    fsync_file,
    fsync_folder,
    is_disk_full,
    replace,
    write_text_atomic,
)
from training_backend.hub import hub_cache
from training_backend.paths import drive_of

_PART = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\.incomplete")  # other programs' are longer


@dataclass(frozen=True)
class HubFile:
    """A file to download. `checksum` is the SHA-256 of a large file, the git SHA-1 of another;
    it is also the content's name in the cache."""

    name: str
    bytes: int
    checksum: str

    @property
    def is_weights(self) -> bool:
        return self.name.endswith(".safetensors")


class Store:
    """The model `id` (owner/name) in the cache `root`, at one version where that matters."""

    def __init__(self, root: Path, id: str, commit: str = "") -> None:
        self.root = root
        self.id = id
        self.repo = hub_cache.repo_folder(root, id)
        self.snapshot = self.repo / "snapshots" / commit
        self._notes = root / ".locks" / self.repo.name
        self._note = self._notes / f"lorasmith-{commit}.unfinished"
        self._lock = FileLock(self._notes / "lorasmith.lock")

    # --- files ----------------------------------------------------------------------------

    def place(self, file: HubFile) -> Path:
        return self.snapshot / file.name

    def part(self, file: HubFile) -> Path:
        return self.repo / "blobs" / f"{file.checksum}.incomplete"

    def is_placed(self, file: HubFile) -> bool:
        return _has_bytes(self.place(file), file.bytes)

    def has_content(self, file: HubFile) -> bool:
        """Whether it is here whole, if not in this version's folder yet."""
        return _has_bytes(self._blob(file), file.bytes)

    def arrived_bytes(self, file: HubFile) -> int:
        """How much of it is here, its parts included."""
        if self.is_placed(file) or self.has_content(file):
            return file.bytes
        part = self.part(file)
        return min(part.stat().st_size, file.bytes) if part.is_file() else 0

    def open_part(self, file: HubFile) -> Path:
        """The part to go on with, made if there is none; one that is too long begins anew."""
        part = self.part(file)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        if part.stat().st_size > file.bytes:
            part.write_bytes(b"")
        return part

    def accept_part(self, file: HubFile) -> None:
        """The part is the whole file and good: it gets its name."""
        part = self.part(file)
        fsync_file(part)
        replace(part, self._blob(file))
        fsync_folder(part.parent)

    def put_in_place(self, file: HubFile) -> None:
        """A relative link, as huggingface_hub makes it; where links are not allowed (Windows
        without developer mode) the file itself moves to its place."""
        blob, place = self._blob(file), self.place(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)  # a link to what is no longer there, or a damaged file
        try:
            place.symlink_to(os.path.relpath(blob, place.parent))
        except OSError:
            replace(blob, place)

    def remove(self, file: HubFile) -> None:
        """Takes a wrong file out of this version, and its content with it."""
        self._blob(file).unlink(missing_ok=True)
        self.place(file).unlink(missing_ok=True)

    def _blob(self, file: HubFile) -> Path:
        return self.repo / "blobs" / file.checksum

    # --- versions -------------------------------------------------------------------------

    @contextmanager
    def alone(self, while_waiting: Callable[[], None]) -> Iterator[None]:
        """Holds the model's lock; waits, and says so, while another process has it."""
        self._notes.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                self._lock.acquire(timeout=0.2)
                break
            except Timeout:
                while_waiting()
        try:
            yield
        finally:
            self._lock.release()

    def note_unfinished(self) -> None:
        """So that `discard` knows which versions are ours and not whole."""
        self._note.touch()

    def note_finished(self) -> None:
        self._note.unlink(missing_ok=True)

    def name_version(self, revision: str) -> None:
        """From now on the branch or tag stands for this version."""
        if revision == self.snapshot.name:
            return
        name = self.repo / "refs" / revision
        name.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(name, self.snapshot.name)

    def discard(self) -> None:
        """Removes parts and unfinished versions; raises `UserError` while they are worked on."""
        if not self._notes.is_dir():
            return
        try:
            with self._lock.acquire(timeout=0):
                for note in self._notes.glob("lorasmith-*.unfinished"):
                    self._remove_version(note.stem.removeprefix("lorasmith-"))
                    note.unlink()
                for part in self.repo.glob("blobs/*.incomplete"):
                    if _PART.fullmatch(part.name):
                        part.unlink()
        except Timeout:
            raise UserError(
                "download_running",
                "The model {id} is being downloaded now.",
                "Stop that first.",
                field="model.id",
                id=self.id,
            ) from None
        Path(self._lock.lock_file).unlink(missing_ok=True)
        ours = [self.repo / name for name in ("blobs", "snapshots", "refs")]
        for folder in (self._notes, *ours, self.repo):
            with contextlib.suppress(OSError):  # not empty, or not there
                folder.rmdir()

    def _remove_version(self, commit: str) -> None:
        """A snapshot with its names, and the contents that no other snapshot links to."""
        for name in self.repo.glob("refs/**/*"):
            if name.is_file() and name.read_text(encoding="ascii").strip() == commit:
                name.unlink()
        snapshot = self.repo / "snapshots" / commit
        contents = {path.resolve() for path in snapshot.glob("*") if path.is_symlink()}
        shutil.rmtree(snapshot, ignore_errors=True)
        contents -= {path.resolve() for path in self.repo.glob("snapshots/*/**/*")}
        for blob in contents:
            if blob.parent.name == "blobs":
                blob.unlink(missing_ok=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what the disk says no with into a `UserError`."""
        try:
            yield
        except OSError as error:
            if is_disk_full(error):
                raise UserError(
                    "disk_full",
                    "The disk became full while the model {id} was downloaded.",
                    "Free some room on {drive} and go on; what has arrived is kept.",
                    field="model.id",
                    drive=drive_of(self.root),
                    id=self.id,
                ) from error
            raise UserError(
                "models_folder_not_writable",
                "The model {id} cannot be written to {folder}: {reason}.",
                "Choose another folder for models on the Model page.",
                field="model.id",
                id=self.id,
                folder=self.root,
                reason=error.strerror or error,
            ) from error


def unfinished(root: Path) -> dict[str, int]:
    """Of the models in a cache whose download is not finished: owner/name, and bytes here."""
    found: dict[str, int] = {}
    for note in root.glob(".locks/models--*/lorasmith-*.unfinished"):
        repo = root / note.parent.name
        snapshot = repo / "snapshots" / note.stem.removeprefix("lorasmith-")
        origin = hub_cache.origin(snapshot)
        if origin is None:
            continue
        parts = [part for part in repo.glob("blobs/*.incomplete") if _PART.fullmatch(part.name)]
        with contextlib.suppress(OSError):  # it is being moved to its place just now
            found[origin[0]] = sum(path.stat().st_size for path in (*parts, *snapshot.glob("*")))
    return {id: arrived for id, arrived in found.items() if arrived}


def _has_bytes(path: Path, bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == bytes
