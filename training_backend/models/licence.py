"""The licence of a model, as its folder tells: in its model card's head, and in files. Light."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# Between two lines of dashes, before the text: https://huggingface.co/docs/hub/model-cards
_HEAD = re.compile(r"\s*---[^\S\n]*\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)
_ENTRY = r"^{key}:[^\S\n]*(?:\n[^\S\n]*-[^\S\n]*)?['\"]?([^\s'\"#][^\n'\"]*)"
_FILES = re.compile(r"(?:LICEN[SC]E|COPYING|NOTICE|USE_POLICY)[\w.-]*", re.IGNORECASE)
_HEAD_CHARACTERS = 20_000


@dataclass(frozen=True)
class Licence:
    """A licence by its short name on the Hub, "" where nothing tells.

    One that the Hub has no name for is `other`, with a name of its own and an address.
    """

    id: str = ""
    name: str = ""
    link: str = ""


def read(folder: Path) -> Licence:
    """What the model card in the folder names."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as card:
            head = _HEAD.match(card.read(_HEAD_CHARACTERS))
    except (OSError, ValueError):
        return Licence()
    text = head[1] if head else ""
    return Licence(_entry(text, "license"), _entry(text, "license_name"), _link(text))


def files(folder: Path) -> list[Path]:
    """The texts that have to go along with a model: licence, notices, rules of use."""
    try:
        return sorted(path for path in folder.iterdir() if _FILES.fullmatch(path.name))
    except OSError:
        return []


def _entry(head: str, key: str) -> str:
    found = re.search(_ENTRY.format(key=key), head, re.MULTILINE)
    return found[1].strip() if found else ""


def _link(head: str) -> str:
    """An address, as it is; else a file of the folder, by its name alone."""
    link = _entry(head, "license_link")
    return link if re.match(r"https?://\S+$", link) or re.fullmatch(r"[\w.-]+", link) else ""
