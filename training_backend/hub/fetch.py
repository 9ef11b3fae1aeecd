"""Downloads one file of known size and checksum, going on where an earlier try stopped."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from training_backend.errors import UserError
from training_backend.files import sha256_file

_CHUNK = 256 * 1024
_SILENCE_S = 30.0
_LINE_ERRORS = (URLError, ConnectionError, TimeoutError, ssl.SSLError, HTTPException)


def fetch(
    url: str,
    target: Path,
    *,
    size: int,
    sha256: str,
    on_bytes: Callable[[int], None] | None = None,
    tries: int = 4,
) -> None:
    """Brings `url` (http, https or file) to `target`, resuming what is there already.

    An interrupted download leaves the part that arrived at `target`; the next call asks the
    server for the rest only. Nobody should take `target` for whole before this returns.

    Args:
        size: bytes of the whole file.
        sha256: its SHA-256 in lower-case hex.
        on_bytes: called with the bytes at hand so far, first with what was there before.
        tries: how often in a row the connection may fail; a pause of 1, 2, 3 ... s between.

    Raises:
        URLError: the server was reached, but refused (HTTPError) or has a certificate that
            this Python does not trust.
        OSError: the file cannot be written.
        UserError: `no_connection` when it cannot be reached or the line keeps breaking (what
            arrived is kept), `checksum_mismatch` for a wrong file (which is removed).
    """
    failures = 0
    while _size(target) < size:
        before = _size(target)
        try:
            _fetch_rest(url, target, size, on_bytes)
        except _LINE_ERRORS as error:
            if isinstance(error, HTTPError) or _is_distrust(error):
                raise
            failures = 1 if _size(target) > before else failures + 1
            if failures >= tries:
                raise _no_connection(url, error) from error
            time.sleep(failures)
    verify(target, sha256, source=url)


def verify(path: Path, sha256: str, *, source: str) -> None:
    """Removes `path` and raises `checksum_mismatch` unless its SHA-256 is the given one."""
    if sha256_file(path) == sha256:
        return
    path.unlink()
    raise UserError(
        "checksum_mismatch",
        "What came from {source} is not the file that was expected (its checksum differs).",
        "It was removed. Try again; if it happens again, the server or a proxy on the way "
        "alters the file.",
        source=source,
    )


def _fetch_rest(url: str, target: Path, size: int, on_bytes: Callable[[int], None] | None) -> None:
    done = _size(target)
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urlopen(request, timeout=_SILENCE_S) as answer:
        # A server that ignores Range (or a file: address) sends everything again.
        if getattr(answer, "status", None) != 206:
            done = 0
        with target.open("ab" if done else "wb") as file:
            if on_bytes:
                on_bytes(done)
            while done < size and (chunk := answer.read(_CHUNK)):
                file.write(chunk)
                done += len(chunk)
                if on_bytes:
                    on_bytes(done)
            file.flush()
            os.fsync(file.fileno())
    if done < size:
        raise ConnectionError(f"the connection ended after {done} of {size} bytes")


def _is_distrust(error: Exception) -> bool:
    return isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)


def _no_connection(url: str, error: Exception) -> UserError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return UserError(
        "no_connection",
        "{url} cannot be reached: {reason}.",
        "Check the network connection and try again; what has arrived so far is kept.",
        url=url,
        reason=reason,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
