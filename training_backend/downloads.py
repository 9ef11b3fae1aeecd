"""Downloads a model from the Hugging Face Hub into the Hugging Face cache, so that it lasts.

What is asked, from whom and with which rights is huggingface_hub's; the bytes are fetched here.
Its own download throws away what has arrived when it is interrupted (2.4: "it could not be
reused anyway"), and compares no checksum. Here parts stay, in `blobs/<checksum>.incomplete`,
and the next call goes on where the last one stopped, in whatever process. A file gets its place
once its checksum is right, and the version its name (`refs/main`) once all are there: what is
half here is nowhere taken for a model.

Light at module level. Xet, the Hub's newer protocol, is left aside: it needs a library of its
own that tells nothing between chunks, and every file of it is had by plain HTTP too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout

from training_backend import __version__, hub_cache, hub_token
from training_backend.errors import StopRequested, UserError
from training_backend.files import (
    fsync_file,
    fsync_folder,
    is_disk_full,
    replace,
    write_text_atomic,
)
from training_backend.hub_errors import (
    endpoint,
    is_line_error,
    no_connection,
    of_answer,
    require_online,
)
from training_backend.hub_models import HubFile, HubModel, info
from training_backend.model_folder import check_model_folder, has_tokenizer
from training_backend.paths import drive_of, require_free

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between tries; what arrives sets them back
SILENCE_SECONDS = 10.0
RATE_SECONDS = 5.0  # the rate is that of so many seconds
MAX_WAIT_SECONDS = 120.0  # of what a Retry-After asks for
_PART = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\.incomplete")  # other programs' are longer
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_BESIDES_BYTES = 20_000_000  # room for locks, links and the file system's own needs

T = TypeVar("T")
Phase = Literal["asking", "waiting", "downloading", "checking", "done"]


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is, over all files. The rate and the time left are None at first.

    `phase` "waiting": another process downloads the same model, or the line is gone.
    """

    phase: Phase
    done_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    file: str = ""


OnProgress = Callable[[DownloadProgress], None]
ShouldStop = Callable[[], bool]


def fetch_model(
    id: str,
    revision: str | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    *,
    pauses: Sequence[float] = PAUSES,
) -> Path:
    """The folder of a model from the Hub: at once where it is here and whole, else downloaded.

    Asking to stop is a pause: what has arrived stays, and the next call asks for the rest. A
    line that breaks is waited for, as long as `pauses` says after the last byte that came. Of
    two processes that want the same model, one downloads and the other waits.

    Args:
        id: owner/name.
        revision: a branch, tag or commit; None is the newest, or the one that is here.
        on_progress: called in this thread, for every piece that comes.

    Raises:
        UserError: it cannot be had (see `hub_errors`), is not for training, does not fit on
            the disk (`disk_full_ahead`), or came wrong (`checksum_mismatch`).
        StopRequested: `should_stop` said so.
    """
    here = whole_model(id, revision)
    if here is not None:
        return here
    download = _Download(on_progress or (lambda _: None), should_stop or (lambda: False), pauses)
    return download.fetch(id, revision)


def fetch_tokenizer(
    id: str,
    revision: str | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Path:
    """A folder with the model's tokenizer and configuration, as `fetch_model`, less the weights."""
    here = tokenizer_folder(id, revision)
    if here is not None:
        return here
    download = _Download(on_progress or (lambda _: None), should_stop or (lambda: False), PAUSES)
    return download.fetch(id, revision, weights=False)


def tokenizer_folder(id: str, revision: str | None = None) -> Path | None:
    """The folder of a model that was downloaded at least as far as its tokenizer; no network."""
    folder = hub_cache.find_snapshot(id, revision)
    ready = folder and has_tokenizer(folder) and (folder / "config.json").is_file()
    return folder if ready else None


def as_text(progress: DownloadProgress) -> str:
    """In a few words: 1.2 of 16.1 GB, 3 min left."""
    if progress.phase == "asking":
        return "asking the Hugging Face Hub for the model"
    if progress.phase == "waiting":
        return "waiting for the connection, or for another download of this model"
    if progress.total_bytes is None or progress.phase == "done":
        return "the model"
    total = f"{progress.total_bytes / 1e9:.1f} GB"
    if progress.phase == "checking":
        return f"downloading the model: checking {progress.file}"
    text = f"downloading the model: {progress.done_bytes / 1e9:.1f} of {total}"
    if progress.seconds_left is None:
        return text
    minutes = round(progress.seconds_left / 60)
    return f"{text}, {f'{minutes} min' if minutes else 'less than a minute'} left"


def whole_model(id: str, revision: str | None = None) -> Path | None:
    """The folder of a model that was downloaded and is whole; no network."""
    folder = hub_cache.find_snapshot(id, revision)
    if folder is None:
        return None
    try:
        check_model_folder(folder)
    except (UserError, OSError):
        return None
    return folder if has_tokenizer(folder) else None


def on_disk_bytes(model: HubModel) -> int:
    """Bytes of a model's files that are here already, parts included."""
    repo = hub_cache.repo_folder(hub_cache.folder(), model.entry.id)
    return sum(
        file.bytes if _place(repo, model.commit, file).is_file() else _arrived(repo, file)
        for file in model.files
    )


def discard(id: str) -> None:
    """Remove what an unfinished download left; versions that are whole stay, and so does what
    other programs have put into the cache.

    Raises:
        UserError: `download_running`, in another process or thread.
    """
    root = hub_cache.folder()
    repo = hub_cache.repo_folder(root, id)
    lock = _lock(root, id)
    notes = Path(lock.lock_file).parent
    if not notes.is_dir():
        return
    try:
        with lock.acquire(timeout=0):
            for note in notes.glob("lorasmith-*.unfinished"):
                _remove_version(repo, note.stem.removeprefix("lorasmith-"))
                note.unlink()
            for part in repo.glob("blobs/*.incomplete"):
                if _PART.fullmatch(part.name):
                    part.unlink()
    except Timeout:
        raise UserError(
            "download_running",
            "The model {id} is being downloaded now.",
            "Stop that first.",
            field="model.id",
            id=id,
        ) from None
    Path(lock.lock_file).unlink(missing_ok=True)
    for folder in (notes, repo / "blobs", repo / "snapshots", repo / "refs", repo):
        with contextlib.suppress(OSError):  # not empty, or not there
            folder.rmdir()


def _remove_version(repo: Path, commit: str) -> None:
    """A snapshot with its names, and the contents that no other snapshot links to."""
    for name in repo.glob("refs/**/*"):
        if name.is_file() and name.read_text(encoding="ascii").strip() == commit:
            name.unlink()
    snapshot = repo / "snapshots" / commit
    contents = {path.resolve() for path in snapshot.glob("*") if path.is_symlink()}
    shutil.rmtree(snapshot, ignore_errors=True)
    contents -= {path.resolve() for path in repo.glob("snapshots/*/**/*")}
    for blob in contents:
        if blob.parent.name == "blobs":
            blob.unlink(missing_ok=True)


class _Download:
    """One call of `fetch_model`."""

    def __init__(
        self, on_progress: OnProgress, should_stop: ShouldStop, pauses: Sequence[float]
    ) -> None:
        self._tell = on_progress
        self._should_stop = should_stop
        self._pauses = pauses
        self._done = 0
        self._total: int | None = None
        self._file = ""
        self._seen: list[tuple[float, int]] = []  # when so many bytes had come in this call

    def fetch(self, id: str, revision: str | None, *, weights: bool = True) -> Path:
        self._report("asking")
        model = self._patiently(lambda: info(id, revision))
        if model.problem is not None:
            raise model.problem
        id = model.entry.id
        root = hub_cache.folder()
        repo = hub_cache.repo_folder(root, id)
        files = [file for file in model.files if weights or not file.is_weights]
        with _disk_explained(root, id), self._alone(root, id):
            missing = [f for f in files if not _place(repo, model.commit, f).is_file()]
            self._total = sum(file.bytes for file in files)
            arrived = sum(_arrived(repo, file) for file in missing)
            needed = sum(file.bytes for file in missing) - arrived
            self._done = self._total - needed
            note = _note(root, id, model.commit)
            if missing:
                require_free(root, needed + _BESIDES_BYTES, f"the model {id}")
                note.touch()
            for file in missing:
                self._bring(repo, model, file)
            snapshot = repo / "snapshots" / model.commit
            if weights:
                check_model_folder(snapshot)
            name = repo / "refs" / (revision or "main")
            if name.name != model.commit:
                name.parent.mkdir(parents=True, exist_ok=True)
                write_text_atomic(name, model.commit)
            if weights:
                note.unlink(missing_ok=True)
        self._report("done")
        return snapshot

    @contextmanager
    def _alone(self, root: Path, id: str) -> Iterator[None]:
        """Waits while another process downloads this model."""
        lock = _lock(root, id)
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                lock.acquire(timeout=0.2)
                break
            except Timeout:
                self._report("waiting")
        try:
            yield
        finally:
            lock.release()

    # --- one file -------------------------------------------------------------------------

    def _bring(self, repo: Path, model: HubModel, file: HubFile) -> None:
        """Fetches what is missing of a file, checks it and puts it in its place."""
        self._file = file.name
        blob = repo / "blobs" / file.checksum
        part = _part(repo, file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.is_file():
            if part.is_file() and part.stat().st_size > file.bytes:
                part.unlink()
            self._patiently(lambda: self._fetch_rest(part, model, file))
            self._check(part, file, model.entry.id)
            fsync_file(part)
            replace(part, blob)
            fsync_folder(blob.parent)
        _link(blob, _place(repo, model.commit, file))

    def _fetch_rest(self, part: Path, model: HubModel, file: HubFile) -> None:
        from huggingface_hub import get_session, hf_hub_url

        id = model.entry.id
        require_online(id)
        part.touch()
        done = part.stat().st_size
        if done == file.bytes:
            return
        token = hub_token.read()
        # To another host, where large files lie, the session does not take the token along.
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers["User-Agent"] = f"lorasmith/{__version__}"
        headers["Accept-Encoding"] = "identity"  # bytes as they are, so that parts fit together
        if done:
            headers["Range"] = f"bytes={done}-"
        url = hf_hub_url(id, file.name, revision=model.commit, endpoint=endpoint())
        with get_session().stream("GET", url, headers=headers, timeout=SILENCE_SECONDS) as answer:
            if answer.status_code >= 400:
                if answer.status_code == 416:  # the part is longer than what is there
                    part.unlink()
                raise _Refused(answer, of_answer(answer, id, signed_in=bool(token)))
            if done and not _continues(answer, done):  # the server sends everything again
                self._done -= done
                done = 0
            with part.open("ab" if done else "wb") as target:
                for chunk in answer.iter_bytes():
                    target.write(chunk[: file.bytes - done])
                    arrived = min(len(chunk), file.bytes - done)
                    done += arrived
                    self._done += arrived
                    self._report("downloading", arrived)
        if done < file.bytes:
            raise ConnectionError(f"the connection ended after {done} of {file.bytes} bytes")

    def _check(self, part: Path, file: HubFile, id: str) -> None:
        """Removes the part and raises unless it is the file that the Hub described."""
        digest = (
            hashlib.sha256()
            if len(file.checksum) == 64
            else hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)  # as git names it
        )
        with part.open("rb") as content:
            while chunk := content.read(4 * 1024 * 1024):
                digest.update(chunk)
                self._report("checking")
        if digest.hexdigest() == file.checksum:
            return
        part.unlink()
        raise UserError(
            "checksum_mismatch",
            "What came as {file} of the model {id} is not what the Hub has (its checksum differs).",
            "It was removed. Try again; if it happens again, a proxy on the way alters the file.",
            field="model.id",
            file=file.name,
            id=id,
        )

    # --- patience and progress ------------------------------------------------------------

    def _patiently(self, action: Callable[[], T]) -> T:
        """Does it, again and again while the line or the Hub is only gone for a while."""
        failures = 0
        before = self._done
        while True:
            pause = None
            try:
                return action()
            except _Refused as refusal:
                if refusal.status not in _TEMPORARY:
                    raise refusal.error from None
                error, pause = refusal.error, refusal.retry_after
            except UserError as refusal:
                if refusal.code not in ("no_connection", "hub_unavailable", "hub_busy"):
                    raise
                error = refusal
            except Exception as broken:
                if not is_line_error(broken):
                    raise
                error = no_connection(broken)
            if self._done > before:
                failures = 0
            before = self._done
            if failures >= len(self._pauses):
                raise error from None
            self._wait(max(pause or 0.0, self._pauses[failures]))
            failures += 1

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + min(seconds, MAX_WAIT_SECONDS)
        self._seen.clear()
        while (left := until - time.monotonic()) > 0:
            self._report("waiting")
            time.sleep(min(0.2, left))

    def _report(self, phase: Phase, arrived: int = 0) -> None:
        """Says how far it is. Raises `StopRequested`."""
        if self._should_stop():
            raise StopRequested
        rate = self._rate(arrived)
        left = None
        if rate and self._total is not None:
            left = (self._total - self._done) / rate
        self._tell(DownloadProgress(phase, self._done, self._total, rate, left, self._file))

    def _rate(self, arrived: int) -> float | None:
        """Bytes a second over the last seconds; None before there is something to tell."""
        if not arrived:
            return None
        now = time.monotonic()
        came = self._seen[-1][1] if self._seen else 0
        self._seen.append((now, came + arrived))
        while now - self._seen[0][0] > RATE_SECONDS and len(self._seen) > 2:
            del self._seen[0]
        start, before = self._seen[0]
        return (came + arrived - before) / (now - start) if now - start > 0.5 else None


class _Refused(Exception):
    """An answer of the Hub that is not the file."""

    def __init__(self, answer: Any, error: UserError) -> None:
        self.status = int(answer.status_code)
        self.error = error
        told = answer.headers.get("Retry-After", "")
        self.retry_after = float(told) if told.isdecimal() else None
        super().__init__(error.message)


def _continues(answer: Any, done: int) -> bool:
    return answer.status_code == 206 and str(
        answer.headers.get("Content-Range", f"bytes {done}-")
    ).startswith(f"bytes {done}-")


def _place(repo: Path, commit: str, file: HubFile) -> Path:
    return repo / "snapshots" / commit / file.name


def _part(repo: Path, file: HubFile) -> Path:
    return repo / "blobs" / f"{file.checksum}.incomplete"


def _arrived(repo: Path, file: HubFile) -> int:
    """Bytes here of a file that has no place yet."""
    blob = repo / "blobs" / file.checksum
    if blob.is_file():
        return file.bytes
    part = _part(repo, file)
    return min(part.stat().st_size, file.bytes) if part.is_file() else 0


def _link(blob: Path, place: Path) -> None:
    """A relative link, as huggingface_hub makes it; where links are not allowed (Windows
    without developer mode) the file itself moves to its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)  # a link to what is no longer there
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except OSError:
        replace(blob, place)


def _lock(root: Path, id: str) -> FileLock:
    return FileLock(root / ".locks" / hub_cache.repo_folder(root, id).name / "lorasmith.lock")


def _note(root: Path, id: str, commit: str) -> Path:
    """There while a download of this version is not finished, so that it can be discarded."""
    return Path(_lock(root, id).lock_file).with_name(f"lorasmith-{commit}.unfinished")


@contextmanager
def _disk_explained(root: Path, id: str) -> Iterator[None]:
    """What the disk says no with; what the line does was explained before."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise UserError(
                "disk_full",
                "The disk became full while the model {id} was downloaded.",
                "Free some room on {drive} and go on; what has arrived is kept.",
                field="model.id",
                drive=drive_of(root),
                id=id,
            ) from error
        raise UserError(
            "models_folder_not_writable",
            "The model {id} cannot be written to {folder}: {reason}.",
            "Choose another folder for models on the Model page.",
            field="model.id",
            id=id,
            folder=root,
            reason=error.strerror or error,
        ) from error
