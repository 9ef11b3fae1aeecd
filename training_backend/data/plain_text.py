"""Rows from plain text and Markdown, for learning to go on as the text does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from training_backend.data.source_file import TextFile
from training_backend.data.table import Progress, Row

# A file up to this size is one row. A longer one is cut at a blank line, so that no more than
# one row is in memory; what the model is fed is cut by tokens later.
MAX_TEXT = 256 * 1024


def read_text(text: TextFile, progress: Progress, start: int) -> Iterator[Row]:
    """The text in rows with the one column `text`, from the row numbered `start`."""
    rows = ({"text": part} for part in _parts(text, progress) if part.strip())
    return itertools.islice(rows, start, None)


def _parts(text: TextFile, progress: Progress) -> Iterator[str]:
    rest = ""
    for piece in text.pieces(progress, MAX_TEXT):
        rest += piece
        while len(rest) > MAX_TEXT:
            cut = _cut(rest)
            yield rest[:cut]
            rest = rest[cut:]
    yield rest


def _cut(text: str) -> int:
    """Where to end a row: after the last paragraph, line or word that fits."""
    for end in ("\n\n", "\n", " "):
        found = text.rfind(end, MAX_TEXT // 2, MAX_TEXT)
        if found >= 0:
            return found + len(end)
    return MAX_TEXT
