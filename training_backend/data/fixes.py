"""Fixes of a job, done to its rows on the way; the person's file is never touched.

Light: no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from training_backend.data.checks import UNFILLED, control_pattern
from training_backend.data.mapping import TEXT, Conversation, Message
from training_backend.job_data import (
    Deduplicate,
    DropOverlap,
    DropRows,
    FillPlaceholders,
    Fix,
    RepairEncoding,
    SetSystemPrompt,
    StripControlTokens,
)

Change = Callable[[str], str]


class Fixes:
    """All fixes of a job, ready to be done in the order of the job.

    Attributes:
        rows: numbers of rows that are left out.
        findings: codes of findings whose rows are left out.
        deduplicate: whether only the first of equal rows is kept.
        drop_overlap: whether held-out rows that are trained on are left out.
    """

    def __init__(self, fixes: Sequence[Fix], control_tokens: Iterable[str]) -> None:
        drops = [fix for fix in fixes if isinstance(fix, DropRows)]
        self.rows = frozenset(row for fix in drops for row in fix.rows)
        self.findings = frozenset(fix.finding for fix in drops if fix.finding)
        self.deduplicate = any(isinstance(fix, Deduplicate) for fix in fixes)
        self.drop_overlap = any(isinstance(fix, DropOverlap) for fix in fixes)
        self._changes: list[Change] = []
        self._system_prompt = ""
        for fix in fixes:
            if isinstance(fix, StripControlTokens):
                self._changes.append(_remover(control_pattern(control_tokens)))
            elif isinstance(fix, RepairEncoding):
                self._changes.append(repair_encoding)
            elif isinstance(fix, FillPlaceholders):
                self._changes.append(_filler(fix.values))
            elif isinstance(fix, SetSystemPrompt):
                self._system_prompt = fix.text

    def apply(self, conversation: Conversation) -> Conversation:
        """The conversation with all its texts mended; the same object when none is asked for."""
        if not (self._changes or self._system_prompt):
            return conversation
        messages = [self._mended(message) for message in conversation.messages]
        if self._system_prompt and messages[0]["role"] not in ("system", TEXT):
            messages.insert(0, Message(role="system", content=self._system_prompt))
        return Conversation(messages, conversation.tools)

    def _mended(self, message: Message) -> Message:
        mended = message.copy()
        for change in self._changes:
            mended["content"] = change(mended["content"])
            if "reasoning_content" in mended:
                mended["reasoning_content"] = change(mended["reasoning_content"])
        return mended


def repair_encoding(text: str) -> str:
    """Text whose UTF-8 was read as Windows-1252 or Latin-1, read rightly: CafÃ© is Café.

    Every run of signs beyond ASCII is judged by itself; what is no such damage stays.
    """
    return text if text.isascii() else _BEYOND_ASCII.sub(_repaired, text)


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def _repaired(match: re.Match[str]) -> str:
    run = match[0]
    try:
        return b"".join(_byte(character) for character in run).decode("utf-8")
    except (UnicodeDecodeError, UnicodeEncodeError):
        return run


def _byte(character: str) -> bytes:
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")


def _remover(pattern: re.Pattern[str]) -> Change:
    def remove(text: str) -> str:
        before = None
        while before != text:  # what is left can join to another token
            before, text = text, pattern.sub("", text)
        return text

    return remove


def _filler(values: dict[str, str]) -> Change:
    def value(match: Any) -> str:
        return values.get(match[1].strip(), str(match[0]))

    return lambda text: UNFILLED.sub(value, text)
