"""Where a secret got to: searched for in every byte, as it is and as others would write it."""

from __future__ import annotations

import base64
import io
import urllib.parse
import zipfile
from collections.abc import Iterable
from pathlib import Path


def leaks(places: Iterable[Path], secret: str) -> list[str]:
    """The files below these places, parts of zips included, whose content or name holds it."""
    wanted = _forms(secret)
    found = []
    for place in places:
        for path in sorted(place.rglob("*")):
            if _holds(str(path).encode(), wanted):
                found.append(f"{path} (its name)")
            if path.is_file():
                found += [f"{path}{part}" for part, data in _contents(path) if _holds(data, wanted)]
    return found


def holds(text: str, secret: str) -> bool:
    """The same of an output."""
    return _holds(text.encode(), _forms(secret))


def _forms(secret: str) -> tuple[bytes, ...]:
    """As it is, in wide characters, hex, percent signs and base64 wherever it begins in there."""
    raw = secret.encode()
    forms = [raw, secret.encode("utf-16-le"), raw.hex().encode(), raw[::-1]]
    forms.append(urllib.parse.quote(secret, safe="").encode())
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw)
        # What stands before and after it changes the signs at its ends.
        inner = text[{0: 0, 1: 2, 2: 3}[before] : len(text) - 4]
        forms += [inner, inner.replace(b"+", b"-").replace(b"/", b"_")]
    return tuple(dict.fromkeys(forms))


def _holds(data: bytes, forms: tuple[bytes, ...]) -> bool:
    lower = data.lower()  # hex and percent signs are written either way
    return any(form in data or form.lower() in lower for form in forms)


def _contents(path: Path) -> list[tuple[str, bytes]]:
    data = path.read_bytes()
    return [("", data), *_of_zip(data)]


def _of_zip(data: bytes) -> list[tuple[str, bytes]]:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return []
    parts = []
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        for name in packed.namelist():
            content = packed.read(name)
            parts += [(f"!{name}", content), *((f"!{name}{n}", d) for n, d in _of_zip(content))]
    return parts
