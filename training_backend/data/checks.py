"""What can be wrong with one row that can be trained on, by itself. Light: no torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from training_backend.data.mapping import Conversation

# Signs of UTF-8 that was read as Windows-1252 or Latin-1: a lead byte's letter, then a
# continuation byte's sign. U+FFFD stands where a decoder gave up.
_CONTINUATION = "\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"  # noqa: RUF001
DAMAGE = re.compile(f"\ufffd|[ÂÃ][{_CONTINUATION}]|[à-ïâ][{_CONTINUATION}][{_CONTINUATION}]")
_HIDDEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\u200e\u200f]")
UNFILLED = re.compile(r"\{\{\s*([A-Za-z_][\w .-]{0,60}?)\s*\}\}")


@dataclass(frozen=True)
class TextChecks:
    """Looks at what the messages say.

    Args:
        control_tokens: the model's special tokens.
    """

    control: Callable[[str], object]

    @classmethod
    def against(cls, control_tokens: Iterable[str]) -> TextChecks:
        return cls(control_pattern(control_tokens).search)

    def codes(self, conversation: Conversation) -> list[str]:
        """The kinds of finding that hold for this row."""
        found = []
        messages = conversation.messages
        text = "\n".join([message["content"] for message in messages])
        if self.control(text):
            found.append("control_tokens")
        if "{{" in text and UNFILLED.search(text):
            found.append("placeholders")
        if not text.isascii() and DAMAGE.search(text):
            found.append("encoding_damage")
        if not text.isprintable() and _HIDDEN.search(text):
            found.append("hidden_characters")
        if not _in_order([message["role"] for message in messages]):
            found.append("role_order")
        return found


def control_pattern(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the model's special tokens, the longest first."""
    longest = sorted((token for token in tokens if token.strip()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest)) or "(?!)")


_AFTER = {
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
_TWO = (["user", "assistant"], ["system", "user", "assistant"], ["text"])


def _in_order(roles: list[str]) -> bool:
    """Whether questions and answers alternate, after at most one system prompt."""
    if roles in _TWO:
        return True
    if roles[:1] == ["system"]:
        roles = roles[1:]
    if roles[:1] != ["user"]:
        return False
    return all(role in _AFTER.get(before, ()) for before, role in itertools.pairwise(roles))
