"""The search for a secret finds it however it was written."""

from __future__ import annotations

import base64
import json
import urllib.parse
import zipfile
from pathlib import Path

import pytest

from tests.leaks import holds, leaks

SECRET = "hf_canary~Zx/Q8+1=%end"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"Bearer {SECRET}\n",
        json.dumps({"authorization": SECRET}),
        urllib.parse.quote(SECRET, safe=""),
        urllib.parse.quote(SECRET, safe="").lower(),
        f"https://user:{urllib.parse.quote(SECRET, safe='')}@host",
        base64.b64encode(SECRET.encode()).decode(),
        *(base64.b64encode(f"{'x' * n}:{SECRET}:yz".encode()).decode() for n in range(4)),
        base64.urlsafe_b64encode(f"user:{SECRET}".encode()).decode(),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        SECRET[::-1],
    ],
)
def test_it_is_found_in_every_dress(text: str, tmp_path: Path) -> None:
    assert holds(f"before {text} after", SECRET)
    (tmp_path / "a.txt").write_text(text)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("inside/c.txt", text)
    assert leaks([tmp_path], SECRET) == [
        str(tmp_path / "a.txt"), f"{tmp_path / 'b.zip'}!inside/c.txt",
    ]  # fmt: skip


def test_what_is_only_like_it_is_no_leak(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hf_canary and Zx/Q8, not the whole")
    assert leaks([tmp_path], SECRET) == []
