"""Downloads a model from the Hugging Face Hub into the Hugging Face cache, so that it lasts.

The bytes are fetched here, through huggingface_hub's session. Its own download throws away what
has arrived when it is interrupted (2.4: "it could not be reused anyway"), and compares no
checksum. Here parts stay, and the next call goes on where the last one stopped, in whatever
process. A file gets its place once its checksum is right, and the version its name (`refs/main`)
once all are there: what is half here is nowhere taken for a model.

Light at module level. Xet, the Hub's newer protocol, is left aside: it needs a library of its
own that tells nothing between chunks, and every file of it is had by plain HTTP too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from training_backend import __version__
from training_backend.errors import UserError
from training_backend.hub import hub_cache, hub_store, hub_token
from training_backend.hub.hub_errors import endpoint, of_answer, require_online
from training_backend.hub.hub_models import HubModel, info
from training_backend.hub.hub_store import HubFile, Store
from training_backend.hub.transfer import (
    PAUSES,
    SILENCE_SECONDS,
    OnProgress,
    Refused,
    ShouldStop,
    Transfer,
)
from training_backend.models.model_folder import check_model_folder, has_tokenizer
from training_backend.paths import require_free

_BESIDES_BYTES = 20_000_000  # room for locks, links and the file system's own needs


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
    return _Download(id, on_progress, should_stop, pauses).fetch(revision, weights=True)


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
    return _Download(id, on_progress, should_stop, PAUSES).fetch(revision, weights=False)


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


def tokenizer_folder(id: str, revision: str | None = None) -> Path | None:
    """The folder of a model that was downloaded at least as far as its tokenizer; no network."""
    folder = hub_cache.find_snapshot(id, revision)
    ready = folder and has_tokenizer(folder) and (folder / "config.json").is_file()
    return folder if ready else None


def on_disk_bytes(model: HubModel) -> int:
    """Bytes of a model's files that are here already, parts included."""
    stores = [Store(root, model.entry.id, model.commit) for root in hub_cache.folders()]
    return max(sum(map(store.arrived_bytes, model.files)) for store in stores)


def unfinished() -> dict[str, int]:
    """The models whose download was begun and is not finished, with the bytes that are here."""
    return hub_store.unfinished(hub_cache.folder())


def discard(id: str) -> None:
    """Remove what an unfinished download left; versions that are whole stay, and so does what
    other programs have put into the cache.

    Raises:
        UserError: `download_running`, in another process or thread.
    """
    Store(hub_cache.folder(), id).discard()


class _Download:
    """One call of `fetch_model`."""

    def __init__(
        self,
        id: str,
        on_progress: OnProgress | None,
        should_stop: ShouldStop | None,
        pauses: Sequence[float],
    ) -> None:
        self._id = id
        self._transfer = Transfer(
            on_progress, should_stop, lambda: require_online(self._id), pauses
        )
        self._meter = self._transfer.meter

    def fetch(self, revision: str | None, *, weights: bool) -> Path:
        self._transfer.report("asking")
        model = self._transfer.patiently(lambda: info(self._id, revision))
        if model.problem is not None:
            raise model.problem
        self._id = model.entry.id
        files = [file for file in model.files if weights or not file.is_weights]
        store = Store(hub_cache.folder(), self._id, model.commit)
        with store.explained(), store.alone(lambda: self._transfer.report("waiting")):
            if weights and not all(map(store.is_placed, files)):
                store.note_unfinished()
            self._bring_missing(store, files)
            if weights:
                self._check_whole(store, files)
            store.name_version(revision or "main")
            if weights:
                store.note_finished()
        self._transfer.report("done")
        return store.snapshot

    def _bring_missing(self, store: Store, files: list[HubFile]) -> None:
        missing = [file for file in files if not store.is_placed(file)]
        needed = sum(file.bytes - store.arrived_bytes(file) for file in missing)
        self._meter.total = sum(file.bytes for file in files)
        self._meter.start_anew(self._meter.total - needed)
        if missing:
            require_free(store.root, needed + _BESIDES_BYTES, f"the model {self._id}")
        for file in missing:
            self._meter.file = file.name
            if not store.has_content(file):
                part = store.open_part(file)
                self._transfer.patiently(partial(self._fetch_rest, store, file, part))
                self._check(part, file)
                store.accept_part(file)
            store.put_in_place(file)

    def _check_whole(self, store: Store, files: list[HubFile]) -> None:
        """Mends what was damaged here; raises for what the Hub itself has damaged."""
        try:
            check_model_folder(store.snapshot)
        except UserError:
            wrong = [f for f in files if self._digest(store.place(f), f) != f.checksum]
            if not wrong:
                raise
            for file in wrong:
                store.remove(file)
            self._bring_missing(store, files)
            check_model_folder(store.snapshot)

    # --- one file -------------------------------------------------------------------------

    def _fetch_rest(self, store: Store, file: HubFile, part: Path) -> None:
        from huggingface_hub import get_session, hf_hub_url

        require_online(self._id)
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
        commit = store.snapshot.name
        url = hf_hub_url(self._id, file.name, revision=commit, endpoint=endpoint())
        with get_session().stream("GET", url, headers=headers, timeout=SILENCE_SECONDS) as answer:
            if answer.status_code >= 400:
                raise Refused(answer, of_answer(answer, self._id, signed_in=bool(token)))
            if done and not _continues(answer, done):  # the server sends everything again
                self._meter.start_anew(self._meter.done - done)
                done = 0
            with part.open("ab" if done else "wb") as target:
                for chunk in answer.iter_bytes():
                    piece = chunk[: file.bytes - done]
                    target.write(piece)
                    done += len(piece)
                    self._meter.count(len(piece))
                    self._transfer.report("downloading")
        if done < file.bytes:
            raise ConnectionError(f"the connection ended after {done} of {file.bytes} bytes")

    def _check(self, part: Path, file: HubFile) -> None:
        """Removes the part and raises unless it is the file that the Hub described."""
        if self._digest(part, file) == file.checksum:
            return
        part.unlink()
        raise UserError(
            "checksum_mismatch",
            "What came as {file} of the model {id} is not what the Hub has (its checksum differs).",
            "It was removed. Try again; if it happens again, a proxy on the way alters the file.",
            field="model.id",
            file=file.name,
            id=self._id,
        )

    def _digest(self, path: Path, file: HubFile) -> str:
        """As the Hub publishes it: the SHA-256 of a large file, git's SHA-1 of another."""
        digest = (
            hashlib.sha256()
            if len(file.checksum) == 64
            else hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
        )
        with path.open("rb") as content:
            while chunk := content.read(4 * 1024 * 1024):
                digest.update(chunk)
                self._transfer.report("checking")
        return digest.hexdigest()


def _continues(answer: Any, done: int) -> bool:
    range = str(answer.headers.get("Content-Range", f"bytes {done}-"))
    return answer.status_code == 206 and range.startswith(f"bytes {done}-")
