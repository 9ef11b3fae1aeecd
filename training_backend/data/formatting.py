"""From conversations to what the model is fed: token ids and the loss mask.

Training, preview and lint all come through `Formatter.encode`, so that what is shown is what
is trained on.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

from training_backend.data.abilities import Abilities, adapt, find_abilities
from training_backend.data.bounded import bounded
from training_backend.data.mapping import TEXT, Conversation, Message, RowProblem
from training_backend.data.shapes import Shapes
from training_backend.data.spans import Layout, Span
from training_backend.data.turns import healed
from training_backend.errors import UserError
from training_backend.job import LossOn

IGNORED = -100  # the label that torch's cross entropy leaves out
PLAIN = "plain"  # the standard template for models without one


@dataclass(frozen=True, slots=True)
class Encoded:
    """One sequence as the trainer gets it.

    Attributes:
        text: what the row is rendered to, whole.
        input_ids: the tokens left after `max_length`.
        trained: ranges of `input_ids` that are learned from; in order, apart, none empty.
        n_full: tokens before the cut.
        is_chat: False for a plain text.
        first: where in the tokens of `text` this sequence begins (not 0 for later pieces of
            a long plain text).
        ends: whether every answer that is learned closes with a token that ends it.
        exchange: where the formatter is to find it and it was not cut: the tokens of the last
            answer, after those of the text that it replies to.
    """

    text: str
    input_ids: list[int]
    trained: tuple[Span, ...]
    n_full: int
    is_chat: bool = True
    first: int = 0
    ends: bool = True
    exchange: tuple[Span, Span] | None = None

    @property
    def labels(self) -> list[int]:
        """Of the length of `input_ids`: the token where it is learned from, else IGNORED."""
        labels = [IGNORED] * len(self.input_ids)
        for begin, end in self.trained:
            labels[begin:end] = self.input_ids[begin:end]
        return labels

    @property
    def n_trained(self) -> int:
        return sum(end - begin for begin, end in self.trained)

    @property
    def truncated(self) -> bool:
        return self.n_full > len(self.input_ids)


class Formatter:
    """Encodes conversations with one tokenizer.

    The chat template is that of `chat_template` (a standard one), else the model's own, else
    the plain standard one; `tokenizer.chat_template` is set to it, so that it is saved with
    the adapter. It is tried out in a bounded child process first.

    Args:
        tokenizer: a fast transformers tokenizer.
        max_length: tokens kept of a row; the rest is cut at the end.
        loss_on: what is learned.
        chunk_length: tokens in each piece of a plain text; by default `max_length`.
        exchanges: whether to find each conversation's last question and answer.

    Raises `UserError` for a tokenizer or a template that cannot be used.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        loss_on: LossOn = "assistant",
        chat_template: str | None = None,
        chunk_length: int | None = None,
        exchanges: bool = False,
    ) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                "tokenizer_slow",
                "The tokenizer of this model cannot tell which characters a token stands for.",
                "Choose a model with a tokenizer.json.",
                field="model.id",
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.chunk_length = min(chunk_length or max_length, max_length)
        self.loss_on = loss_on
        self.exchanges = exchanges
        self.used_fallback = not tokenizer.chat_template and chat_template is None
        if chat_template or self.used_fallback:
            tokenizer.chat_template = standard_template(chat_template or PLAIN)
        elif not isinstance(tokenizer.chat_template, str):  # several, by name
            tokenizer.chat_template = tokenizer.get_chat_template()
        self.special_ids = frozenset(tokenizer.added_tokens_decoder) | {tokenizer.eos_token_id}
        self._abilities: Abilities | None = None
        self._shapes: Shapes | None = None

    @property
    def abilities(self) -> Abilities:
        """What the template can hold; found out when first needed."""
        if self._abilities is None:
            self._abilities = find_abilities(
                self.tokenizer.chat_template, self.tokenizer.special_tokens_map
            )
        return self._abilities

    def encode(self, conversations: Sequence[Conversation]) -> list[list[Encoded] | RowProblem]:
        """Each conversation as one sequence, each plain text as one or more pieces.

        Or what keeps it from being trained on. Many at once are much faster than one by one.
        """
        results: dict[int, list[Encoded] | RowProblem] = {}
        chats: dict[int, Layout] = {}
        texts: dict[int, str] = {}
        for place, conversation in enumerate(conversations):
            if conversation.messages[0]["role"] == TEXT:
                texts[place] = conversation.messages[0]["content"]
                continue
            try:
                chats[place] = self._lay_out(conversation)
            except RowProblem as problem:
                results[place] = problem
        # A template writes special tokens, BOS included, into the text itself.
        encodings = self._tokenize([layout.text for layout in chats.values()], special=False)
        for (place, layout), encoding in zip(chats.items(), encodings, strict=True):
            results[place] = self._encode_chat(layout, encoding)
        encodings = self._tokenize(list(texts.values()), special=True)
        for (place, text), encoding in zip(texts.items(), encodings, strict=True):
            results[place] = self._encode_text(text, encoding)
        return [results[place] for place in range(len(conversations))]

    def render(
        self,
        messages: list[Message],
        add_generation_prompt: bool = False,
        tools: list[dict[str, Any]] | None = None,
    ) -> str:
        """The text of a conversation.

        Raises `RowProblem` when the template refuses it, `UserError` when it would not end.
        """
        try:
            with bounded():
                text = self.tokenizer.apply_chat_template(
                    messages,
                    tools=tools,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
        except UserError:
            raise
        except Exception as error:  # a template raises whatever it likes
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise RowProblem(
                f"is refused by the chat template ({reason[0][:200]})", "template_refuses"
            ) from None
        assert isinstance(text, str)
        return healed(text)  # the arguments of a tool call are as they came

    def token_texts(self, encoded: Encoded) -> list[str]:
        """The part of `encoded.text` that each of its tokens stands for; joined, all of it.

        Where several tokens make one character the last of them has it, the others "".
        Tokens that are not of the text, as the BOS and EOS of a plain text, have their own.
        """
        (encoding,) = self._tokenize([encoded.text], special=not encoded.is_chat)
        offsets = encoding.offsets
        place = offsets[encoded.first - 1][1] if encoded.first else 0
        texts: list[str] = []
        for number, token in enumerate(encoded.input_ids, start=encoded.first):
            start, end = offsets[number] if number < len(offsets) else (0, 0)
            if start == end and token in self.special_ids:
                texts.append(self.tokenizer.decode([token]))
            elif number + 1 < len(offsets) and offsets[number + 1] == (start, end):
                texts.append("")
            else:
                texts.append(encoded.text[place:end])
                place = max(place, end)
        return texts

    def _lay_out(self, conversation: Conversation) -> Layout:
        fitting = adapt(conversation, self.abilities)

        def render(messages: list[Message], add_generation_prompt: bool = False) -> str:
            return self.render(messages, add_generation_prompt, fitting.tools)

        if self._shapes is None:
            self._shapes = Shapes(self.abilities.generation_tail)
        return self._shapes.lay_out(fitting, render)

    def _tokenize(self, texts: list[str], special: bool) -> Sequence[Any]:
        if not texts:
            return []
        with _all_cores():
            batch = self.tokenizer(texts, add_special_tokens=special, verbose=False)
        encodings: Sequence[Any] = batch.encodings
        return encodings

    def _encode_text(self, text: str, encoding: Any) -> list[Encoded]:
        ids = list(encoding.ids)
        end = self.tokenizer.eos_token_id
        if end is not None and ids[-1:] != [end]:
            ids.append(end)
        pieces = []
        for first in range(0, len(ids), self.chunk_length):
            piece = ids[first : first + self.chunk_length]
            whole = ((0, len(piece)),)
            pieces.append(Encoded(text, piece, whole, len(piece), is_chat=False, first=first))
        return pieces

    def _encode_chat(self, layout: Layout, encoding: Any) -> list[Encoded] | RowProblem:
        ids, limit = encoding.ids, self.max_length
        ranges = _token_ranges(self._learned(layout), encoding.offsets, layout.text)
        if not ranges:
            return RowProblem("has no answer that counts: all weigh 0", "nothing_trained")
        trained = tuple((begin, min(end, limit)) for begin, end in ranges if begin < limit)
        if not trained:
            return RowProblem(f"has no answer within the first {limit} tokens", "nothing_trained")
        ends = all(ids[end - 1] in self.special_ids for _, end in ranges)
        exchange = self._exchange(layout, encoding.offsets) if self.exchanges else None
        return [Encoded(layout.text, ids[:limit], trained, len(ids), ends=ends, exchange=exchange)]

    def _exchange(self, layout: Layout, offsets: Sequence[Span]) -> tuple[Span, Span] | None:
        """The tokens of the last answer, after those of the text that it replies to."""
        index, answer = layout.answers[-1]
        texts = [span for span in layout.texts[:index] if span and span[0] < span[1] <= answer[0]]
        asked = texts[-1] if texts else (0, answer[0])
        places = _token_ranges([asked, answer], offsets, layout.text)
        if len(places) < 2 or places[1][1] > self.max_length:
            return None
        return places[0], places[1]

    def _learned(self, layout: Layout) -> list[Span]:
        """The characters to learn from."""
        if self.loss_on == "everything":
            answers = dict(layout.answers)
            holes = [
                answers.get(index, span)
                for index, span in enumerate(layout.texts)
                if span and not layout.weights[index]
            ]
            return _without(holes, len(layout.text))
        answers_here = layout.answers[-1:] if self.loss_on == "last_answer" else layout.answers
        return [span for index, span in answers_here if layout.weights[index]]


def standard_template(name: str) -> str:
    """The source of one of the chat templates that come with the program."""
    file = resources.files("resources") / "chat_templates" / f"{name}.jinja"
    return file.read_text(encoding="utf-8")


def _token_ranges(spans: Sequence[Span], offsets: Sequence[Span], text: str) -> list[Span]:
    """The tokens that hold any character of each span; overlapping ones are joined.

    A first token that the span shares with what stands before counts only if it holds more of
    the span than white space: " Yes" behind "Assistant:" is learned, yet not the line break
    before an answer that happens to be one token with the space that the answer begins with.
    """
    starts = [start for start, _ in offsets]
    ends = [end for _, end in offsets]
    ranges: list[Span] = []
    for first, last in spans:
        begin, end = bisect_right(ends, first), bisect_left(starts, last)
        if begin < end and starts[begin] < first and not text[first : ends[begin]].strip():
            begin += 1
        if ranges and begin < ranges[-1][1]:
            begin = ranges[-1][1]
        if begin < end:
            ranges.append((begin, end))
    return ranges


def _without(holes: list[Span], length: int) -> list[Span]:
    spans = []
    place = 0
    for first, last in sorted(holes):
        if place < first:
            spans.append((place, first))
        place = max(place, last)
    return [*spans, (place, length)] if place < length else spans


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let the tokenizer use every core: it is told not to where processes are forked."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
