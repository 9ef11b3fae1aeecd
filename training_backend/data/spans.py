"""Which characters of a rendered conversation are an answer. Light: no torch.

The chat template itself shows it. The conversation is rendered twice: as it is, and with an
invisible marker at both ends of every text. Where the markers come out is where the texts
are. Taking them out again must give the first rendering, character for character; so it is
known, not guessed, whatever the template leaves out, trims, moves or rewrites. What a
template does write otherwise when markers are there is asked about with prefixes instead:
the text up to an answer, and the text including it, must both open the whole.

An answer begins where the generation prompt ends (so that what the template writes after
it, such as an empty <think> block, is learned) and ends with its end-of-turn token.
"""

from __future__ import annotations

import functools
import itertools
import os.path
import re
from dataclasses import dataclass
from typing import Any, Protocol

from training_backend.data.mapping import Conversation, Message, RowProblem

Span = tuple[int, int]

# A message's marker is one character of the last, private-use planes, in a block of them that
# the text does not use.
_BLOCKS = [*range(0xF0000, 0xFF000, 0x1000), *range(0x100000, 0x10F000, 0x1000)]
_MAX_MESSAGES = 0x1000
# Templates take answers apart at such tags, and may leave out what stands before one.
_TAG = re.compile(r"(\s*</?(?:think|thinking|reasoning|thought)>\s*)")


class Render(Protocol):
    """The chat template: messages (a part of the conversation's) to text."""

    def __call__(self, messages: list[Message], add_generation_prompt: bool = False) -> str: ...


@dataclass(frozen=True)
class Layout:
    """A rendered conversation: its text and, by message, the characters of its texts.

    `answers` are what is learned of each assistant turn (by the message's number); `texts`
    what each message of any role wrote itself (None where the template leaves it out).
    """

    text: str
    texts: tuple[Span | None, ...]
    answers: tuple[tuple[int, Span], ...]
    weights: tuple[float, ...]


def lay_out(conversation: Conversation, render: Render, generation_tail: str) -> Layout:
    """Render a conversation and find its answers.

    Args:
        generation_tail: what follows a question's text when an answer is asked for, from
            a probe of the template; only a short cut.

    Raises `RowProblem` when the template refuses the conversation, or where its answers are
    cannot be told.
    """
    messages = conversation.messages
    if len(messages) > _MAX_MESSAGES:
        raise RowProblem("has too many messages", "extreme_length")
    text = render(messages)
    texts = _find_texts(messages, text, render)
    if texts is None:
        return _by_prefixes(messages, text, render)
    finder = _Finder(messages, text, texts, render, generation_tail)
    answers = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        if texts[index] is None:
            raise RowProblem("has an answer that the chat template leaves out", "answer_left_out")
        answers.append((index, (finder.begin(index), finder.end(index))))
    return Layout(text, tuple(texts), tuple(answers), _weights(messages))


def _find_texts(messages: list[Message], text: str, render: Render) -> list[Span | None] | None:
    """Where each message's own text stands in `text`; None when it cannot be told."""
    marker = _Marker.unused_in(text)
    if marker is None:
        return None
    try:
        marked = render(marker.mark(messages))
    except RowProblem:
        return None
    pieces = marker.split(marked)
    if "".join(pieces[::2]) != text:
        return None
    found: list[Span | None] = [None] * len(messages)
    place = 0
    for piece, sign in zip(pieces[::2], pieces[1::2], strict=False):
        place += len(piece)
        owner = ord(sign) - marker.first
        known = found[owner]
        found[owner] = (place, place) if known is None else (known[0], place)
    spans = sorted(span for span in found if span is not None)
    if any(one[1] > other[0] for one, other in itertools.pairwise(spans)):
        return None  # texts within texts: no turns
    return found


@dataclass(frozen=True)
class _Marker:
    """Marks messages with the characters from number `first` on."""

    first: int

    @classmethod
    def unused_in(cls, text: str) -> _Marker | None:
        """None for a text that uses all of them."""
        if text.isascii() or max(text) < chr(_BLOCKS[0]):
            return cls(_BLOCKS[0])
        used = {ord(character) & ~(_MAX_MESSAGES - 1) for character in set(text)}
        return next((cls(block) for block in _BLOCKS if block not in used), None)

    def mark(self, messages: list[Message]) -> list[Message]:
        return [_marked(message, chr(self.first + index)) for index, message in enumerate(messages)]

    def split(self, text: str) -> list[str]:
        """Text, marker, text, marker, ..., text."""
        return _marks(self.first).split(text)


@functools.cache
def _marks(first: int) -> re.Pattern[str]:
    return re.compile(f"([{chr(first)}-{chr(first + _MAX_MESSAGES - 1)}])")


def _marked(message: Message, mark: str) -> Message:
    copy: dict[str, Any] = dict(message)
    for key in ("content", "reasoning_content", "thinking"):
        value = copy.get(key)
        if value:
            copy[key] = _mark_text(value, mark, tags=message["role"] == "assistant")
    if "tool_calls" in copy:
        copy["tool_calls"] = [
            {**call, "function": _mark_call(call["function"], mark)} for call in copy["tool_calls"]
        ]
    return copy  # type: ignore[return-value]


def _mark_text(text: str, mark: str, tags: bool) -> str:
    """`text` with marks inside its outer white space, which templates may trim."""
    core = text.strip()
    if not core:
        return text
    lead = text[: text.index(core)]
    trail = text[len(lead) + len(core) :]
    if not (tags and "<" in core):
        return f"{lead}{mark}{core}{mark}{trail}"
    # No mark outside an outermost tag: templates ask whether a text begins with one.
    inner = mark.join(part for part in _TAG.split(core) if part)
    opens = "" if _TAG.match(core) else mark
    closes = "" if inner.endswith(">") and _TAG.fullmatch(inner.rpartition(mark)[2]) else mark
    return f"{lead}{opens}{inner}{closes}{trail}"


def _mark_call(function: dict[str, Any], mark: str) -> dict[str, Any]:
    # Not the name, if it can be helped: templates repeat it where they show the result.
    if function["arguments"]:
        return {**function, "arguments": _mark_values(function["arguments"], mark)}
    return {**function, "name": _mark_text(function["name"], mark, tags=False)}


def _mark_values(value: Any, mark: str) -> Any:
    if isinstance(value, str):
        return _mark_text(value, mark, tags=False)
    if isinstance(value, dict):
        return {
            _mark_text(key, mark, tags=False): _mark_values(item, mark)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_mark_values(item, mark) for item in value]
    return value


class _Finder:
    """Begin and end of each answer, judged by what stands right beside its text."""

    def __init__(
        self,
        messages: list[Message],
        text: str,
        texts: list[Span | None],
        render: Render,
        generation_tail: str,
    ) -> None:
        self._messages = messages
        self._text = text
        self._texts = texts
        self._render = render
        self._generation_tail = generation_tail
        self._ends = sorted(span[1] for span in texts if span is not None)
        self._starts = sorted(span[0] for span in texts if span is not None)
        self._last_tail = text[self._ends[-1] :].strip()

    def begin(self, index: int) -> int:
        """Right behind the generation prompt; at the answer's own text where there is none."""
        first, _ = self._span(index)
        before = [end for end in self._ends if end <= first]
        if not before:
            return first
        gap = before[-1]
        header = self._text[gap:first]
        if self._generation_tail and header.startswith(self._generation_tail):
            return gap + len(self._generation_tail)
        so_far = self._messages[:index]
        prompt = self._tail(so_far, add_generation_prompt=True)
        if prompt and header.startswith(prompt):
            return gap + len(prompt)
        # The prompt says more than the text has, as a <think>: its part that both have, if it
        # goes beyond the end of the turn before.
        asked, unasked = _common(header, prompt), _common(header, self._tail(so_far))
        return gap + len(asked) if len(asked) > len(unasked) else first

    def end(self, index: int) -> int:
        """Behind the end-of-turn token, without the white space that follows it."""
        _, last = self._span(index)
        after = [start for start in self._starts if start >= last]
        if not after:
            return len(self._text.rstrip())
        gap = self._text[last : after[0]]
        shift = len(gap) - len(gap.lstrip())
        if self._last_tail and gap.startswith(self._last_tail, shift):
            return last + shift + len(self._last_tail)
        return last + len((gap[:shift] + _common(gap[shift:], self._turn_tail(index))).rstrip())

    def _span(self, index: int) -> Span:
        span = self._texts[index]
        assert span is not None
        return span

    def _turn_tail(self, index: int) -> str:
        return self._tail(self._messages[: index + 1]).strip()

    def _tail(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        """What the template writes behind the last text of a part of the conversation."""
        marker = _Marker.unused_in(self._text)
        if marker is None:
            return ""
        try:
            rendered = self._render(marker.mark(messages), add_generation_prompt)
        except RowProblem:
            return ""
        pieces = marker.split(rendered)
        return pieces[-1] if len(pieces) > 1 else ""


def _common(one: str, other: str) -> str:
    """What both begin with: either of them whole, or as far as a token's name or a word goes."""
    common = os.path.commonprefix([one, other])  # noqa: RUF071 - of texts, not paths
    if common in (one, other):
        return common
    whole = re.match(r"(?s).*[>\]\s]", common)
    return whole[0] if whole else ""


def _by_prefixes(messages: list[Message], text: str, render: Render) -> Layout:
    texts: list[Span | None] = [None] * len(messages)
    answers = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(messages[:index], add_generation_prompt=True)
        until = render(messages[: index + 1]).rstrip()
        if not (text.startswith(before) and text.startswith(until) and len(before) < len(until)):
            raise RowProblem(
                "is rewritten by the chat template, so that its answers cannot be told apart",
                "answers_unclear",
            )
        texts[index] = (len(before), len(until))
        answers.append((index, (len(before), len(until))))
    return Layout(text, tuple(texts), tuple(answers), _weights(messages))


def _weights(messages: list[Message]) -> tuple[float, ...]:
    return tuple(message.get("weight", 1.0) for message in messages)
