"""Sends one large file to the Hub's store, piece by piece, as Git LFS has it.

The Hub tells where the pieces go (its batch API, with the parts of `lfs-multipart-upload`), and
takes the file once all are there. A piece that arrived is not sent again, however often the line
breaks; nor after a pause, in the same process: the addresses of the pieces are signed, so they are
kept in memory alone. Light at module level.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from training_backend import __version__
from training_backend.errors import UserError
from training_backend.hub import hub_errors, push_errors
from training_backend.hub.push_files import PushFile
from training_backend.hub.transfer import PASSING, SILENCE_SECONDS, Refused, Transfer

PIECE_BYTES = 64 * 1024  # handed to the line at a time
ANSWER_SECONDS = 120.0  # the store may put together a large file before it answers
_EXPIRED = (400, 403, 404)  # what a store says of an address that is no longer good
_LFS = "application/vnd.git-lfs+json"

Call = Callable[..., Any]  # asks the Hub; see `push`


@dataclass
class _Sending:
    """A file of which pieces may have arrived: their addresses, and the tags of those."""

    addresses: list[str]
    part_bytes: int
    finish: str  # "" for a file in one piece
    verify: str
    tags: dict[int, str] = field(default_factory=dict)


_begun: dict[tuple[str, str], _Sending] = {}  # by repository and checksum
_guard = threading.Lock()


def send(file: PushFile, checksum: str, repo: str, call: Call, transfer: Transfer) -> None:
    """Have the Hub's store hold this file. Counts its bytes; those that were there, too.

    Args:
        checksum: the file's SHA-256.
        repo: owner/name.
        call: asks the Hub something and gives the answer's document.

    Raises:
        UserError, StopRequested: what has arrived stays.
    """
    key = (repo, checksum)
    before = transfer.meter.done
    for is_last in (False, True):
        with _guard:
            sending = _begun.get(key)
        transfer.meter.start_anew(before)
        if sending is None:
            sending = transfer.patiently(lambda: _ask(file, checksum, repo, call))
        if sending is None:  # the store has it
            transfer.meter.count(file.bytes)
            return
        with _guard:
            _begun[key] = sending
        try:
            _send_parts(file, checksum, sending, call, transfer)
        except _Expired as expired:
            _forget(key)
            if is_last:
                raise expired.error from None
            continue  # new addresses, once
        except UserError as error:
            if error.code not in PASSING:
                _forget(key)
            raise
        _forget(key)
        return


class _Expired(Exception):
    """The store no longer knows the address that it gave for a piece."""

    def __init__(self, error: UserError) -> None:
        self.error = error
        super().__init__(error.message)


def _forget(key: tuple[str, str]) -> None:
    with _guard:
        _begun.pop(key, None)


def _ask(file: PushFile, checksum: str, repo: str, call: Call) -> _Sending | None:
    """Where the pieces go; None where the store has the file already."""
    asked = {
        "operation": "upload",
        "transfers": ["basic", "multipart"],
        "hash_algo": "sha256",
        "ref": {"name": "main"},
        "objects": [{"oid": checksum, "size": file.bytes}],
    }
    headers = {"Accept": _LFS, "Content-Type": _LFS}
    answer = call("POST", f"/{repo}.git/info/lfs/objects/batch", json=asked, headers=headers)
    with hub_errors.explained(repo, signed_in=True):  # an answer of another shape
        (told,) = answer["objects"]
        if "error" in told:
            raise _of_object(told["error"], repo)
        actions = told.get("actions")
        if not actions or "upload" not in actions:
            return None
        upload = actions["upload"]
        verify = str(actions["verify"]["href"]) if "verify" in actions else ""
        header = upload.get("header") or {}
        if "chunk_size" not in header:
            return _Sending([str(upload["href"])], file.bytes, "", verify)
        part_bytes = int(header["chunk_size"])
        numbered = sorted((int(key), str(url)) for key, url in header.items() if key.isdigit())
        if part_bytes < 1 or len(numbered) != math.ceil(file.bytes / part_bytes):
            raise hub_errors.strange_answer(repo)
        addresses = [url for _, url in numbered]
        return _Sending(addresses, part_bytes, str(upload["href"]), verify)


def _send_parts(
    file: PushFile,
    checksum: str,
    sending: _Sending,
    call: Call,
    transfer: Transfer,
) -> None:
    def size_of(part: int) -> int:
        return min(sending.part_bytes, file.bytes - part * sending.part_bytes)

    there = sum(size_of(part) for part in sending.tags)
    transfer.meter.start_anew(transfer.meter.done + there)
    for part, address in enumerate(sending.addresses):
        if part not in sending.tags:
            place = (part * sending.part_bytes, size_of(part))
            put = partial(_put, address, file, place, transfer)
            sending.tags[part] = transfer.patiently(put)
    if sending.finish:
        parts = [{"partNumber": n + 1, "etag": tag} for n, tag in sorted(sending.tags.items())]
        transfer.patiently(
            lambda: call("POST", sending.finish, json={"oid": checksum, "parts": parts},
                         headers={"Accept": _LFS, "Content-Type": _LFS})
        )  # fmt: skip
    if sending.verify:
        transfer.patiently(
            lambda: call("POST", sending.verify, json={"oid": checksum, "size": file.bytes})
        )


def _put(address: str, file: PushFile, place: tuple[int, int], transfer: Transfer) -> str:
    """Sends a part of a file (`place`: where it begins, and its size) to the store.

    Returns the tag that the store gives it.
    """
    from huggingface_hub import get_session

    push_errors.require_online()
    start, size = place
    before = transfer.meter.done

    def pieces() -> Iterator[bytes]:
        left = size
        with _opened(file) as content:
            content.seek(start)
            while left:
                piece = content.read(min(PIECE_BYTES, left))
                if not piece:
                    raise push_errors.file_changed(file.name)
                yield piece
                left -= len(piece)
                transfer.meter.count(len(piece))
                transfer.report("uploading")

    headers = {"Content-Length": str(size), "User-Agent": f"lorasmith/{__version__}"}
    try:
        # The store is another host: the token is not for it.
        answer = get_session().put(
            address, content=pieces(), headers=headers, timeout=_patience(), follow_redirects=False
        )
    except BaseException:
        transfer.meter.start_anew(before)
        raise
    if answer.status_code >= 300:
        transfer.meter.start_anew(before)
        if answer.status_code in _EXPIRED:
            raise _Expired(_of_store(answer))
        raise Refused(answer, _of_store(answer))
    return str(answer.headers.get("ETag", ""))


def _opened(file: PushFile) -> Any:
    try:
        return file.path.open("rb")
    except OSError as error:
        raise push_errors.file_unreadable(file.name, error) from None


def _patience() -> Any:
    """Short for the line, long for the answer of a store that has everything."""
    from httpx2 import Timeout

    return Timeout(SILENCE_SECONDS, read=ANSWER_SECONDS)


def _of_store(answer: Any) -> UserError:
    status = int(answer.status_code)
    return UserError(
        "hub_unavailable",
        "The Hub's store refuses a piece of the model ({host}: HTTP {status}).",
        "Try again later; what has arrived so far is kept.",
        field="push.repo",
        host=urlsplit(str(answer.url)).hostname or "",
        status=status,
    )


def _of_object(told: Any, repo: str) -> UserError:
    """The Hub's word on one file, in the form of an answer of its own."""
    document = told if isinstance(told, dict) else {}
    code = document.get("code")
    return push_errors.of_words(
        int(code) if isinstance(code, int) else 422, str(document.get("message") or ""), repo
    )
