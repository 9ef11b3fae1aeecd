"""The short cut for what most rows are: plain questions and answers. Light: no torch.

Conversations with the same roles in the same order mostly become the same text but for what
is said. That frame is found once, with made-up texts, as any conversation is laid out. For a
row, the frame filled with its own texts must give exactly what the template renders: then
it is known where the answers stand, after one rendering instead of two. Where it does not,
the row is laid out as any other.
"""

from __future__ import annotations

from dataclasses import dataclass

from training_backend.data.mapping import Conversation, Message, RowProblem
from training_backend.data.spans import Layout, Render, Span, lay_out

_MAX_SHAPES = 1000
_TEXT = "zebra{}text"


@dataclass(frozen=True)
class _Frame:
    """What a template writes around the texts of a conversation of one shape.

    Attributes:
        order: the numbers of the messages as they appear.
        literals: what stands before the first text, between them, and after the last.
        answers: of each answer its message, and by how many characters it begins before that
            message's text and ends behind it.
    """

    order: tuple[int, ...]
    literals: tuple[str, ...]
    answers: tuple[tuple[int, int, int], ...]

    def fill(self, contents: list[str], rendered: str) -> Layout | None:
        """The layout of `rendered`; None when it is not this frame with these texts."""
        texts: list[Span] = [(0, 0)] * len(contents)
        pieces = [self.literals[0]]
        place = len(self.literals[0])
        for number, literal in zip(self.order, self.literals[1:], strict=True):
            content = contents[number]
            texts[number] = (place, place + len(content))
            pieces += (content, literal)
            place += len(content) + len(literal)
        if place != len(rendered) or "".join(pieces) != rendered:
            return None
        answers = tuple(
            (number, (texts[number][0] - before, texts[number][1] + behind))
            for number, before, behind in self.answers
        )
        return Layout(rendered, tuple(texts), answers, (1.0,) * len(contents))


class Shapes:
    """Lays conversations out with one chat template."""

    def __init__(self, generation_tail: str) -> None:
        self._generation_tail = generation_tail
        self._frames: dict[tuple[str, ...], _Frame | None] = {}

    def lay_out(self, conversation: Conversation, render: Render) -> Layout:
        """As `spans.lay_out`, which says what may go wrong."""
        messages = conversation.messages
        if not conversation.tools and all(len(message) == 2 for message in messages):
            frame = self._frame(tuple([message["role"] for message in messages]), render)
            if frame is not None:
                rendered = render(messages)
                contents = [message["content"] for message in messages]
                found = frame.fill(contents, rendered)
                if found is None:  # many templates trim
                    found = frame.fill([content.strip() for content in contents], rendered)
                if found is not None:
                    return found
        return lay_out(conversation, render, self._generation_tail)

    def _frame(self, roles: tuple[str, ...], render: Render) -> _Frame | None:
        if roles not in self._frames:
            if len(self._frames) >= _MAX_SHAPES:
                return None
            self._frames[roles] = self._find(roles, render)
        return self._frames[roles]

    def _find(self, roles: tuple[str, ...], render: Render) -> _Frame | None:
        messages: list[Message] = [
            {"role": role, "content": _TEXT.format(number)} for number, role in enumerate(roles)
        ]
        try:
            layout = lay_out(Conversation(messages), render, self._generation_tail)
        except RowProblem:
            return None
        spans = {number: span for number, span in enumerate(layout.texts) if span is not None}
        if len(spans) < len(roles) or any(
            layout.text[first:last] != messages[number]["content"]
            for number, (first, last) in spans.items()
        ):
            return None
        order = tuple(sorted(spans, key=spans.__getitem__))
        ends = [0, *(spans[number][1] for number in order)]
        starts = [*(spans[number][0] for number in order), len(layout.text)]
        return _Frame(
            order,
            tuple(layout.text[end:start] for end, start in zip(ends, starts, strict=True)),
            tuple(
                (number, spans[number][0] - first, last - spans[number][1])
                for number, (first, last) in layout.answers
            ),
        )
