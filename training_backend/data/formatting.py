"""From messages to what the model is fed: token ids and the loss mask.

The mask is found by rendering, not by knowing templates: the text up to an answer (with the
generation prompt) and the text including it are both prefixes of the whole, and what lies
between is the answer with its end-of-turn token. So it works with any chat template that
renders turn by turn; one that does not is refused rather than guessed at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from training_backend.data.mapping import TEXT, Message, RowProblem
from training_backend.errors import UserError

IGNORED = -100  # the label that torch's cross entropy leaves out

# For base models that come without a chat template. It needs no tokens of its own but the
# end-of-text token, which every such model has.
FALLBACK_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{{ eos_token + '\\n' if message['role'] == 'assistant' else '\\n' }}"
    "{% endfor %}"
    "{{ 'Assistant:' if add_generation_prompt else '' }}"
)


@dataclass(frozen=True)
class Encoded:
    """One row as the trainer gets it; the two lists have the same length."""

    input_ids: list[int]
    labels: list[int]  # the token itself where it is learned from, else IGNORED
    truncated: bool

    @property
    def n_trained(self) -> int:
        return sum(label != IGNORED for label in self.labels)


class Formatter:
    """Encodes messages with one tokenizer.

    Args:
        tokenizer: a fast transformers tokenizer; one without a chat template is given
            `FALLBACK_TEMPLATE`.
        max_length: tokens kept of a row; the rest is cut at the end.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        if not tokenizer.is_fast:
            raise UserError(
                "tokenizer_slow",
                "The tokenizer of this model cannot tell which characters a token stands for.",
                "Choose a model with a tokenizer.json.",
                field="model.id",
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.used_fallback = not tokenizer.chat_template
        if self.used_fallback:
            tokenizer.chat_template = FALLBACK_TEMPLATE

    def encode(self, messages: list[Message]) -> Encoded:
        """Raises `RowProblem` when nothing of the row is left to learn from."""
        if messages[0]["role"] == TEXT:
            encoded = self._encode_text(messages[0]["content"])
        else:
            encoded = self._encode_chat(messages)
        if not encoded.n_trained:
            raise RowProblem(f"has no answer within the first {self.max_length} tokens")
        return encoded

    def _encode_text(self, text: str) -> Encoded:
        ids = self.tokenizer(text)["input_ids"]
        if ids[-1:] != [self.tokenizer.eos_token_id]:
            ids = [*ids, self.tokenizer.eos_token_id]
        return self._cut(ids, ids)

    def _encode_chat(self, messages: list[Message]) -> Encoded:
        text = self.render(messages)
        spans = [
            self._span(messages, index, text)
            for index, message in enumerate(messages)
            if message["role"] == "assistant"
        ]
        # The template writes special tokens, BOS included, into the text itself.
        tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = tokens["input_ids"]
        labels = [
            token if _is_within(start, end, spans) else IGNORED
            for token, (start, end) in zip(ids, tokens["offset_mapping"], strict=True)
        ]
        return self._cut(ids, labels)

    def _span(self, messages: list[Message], index: int, text: str) -> tuple[int, int]:
        """The characters of `text` that answer `index` takes, its end token included."""
        before = self.render(messages[:index], add_generation_prompt=True)
        until = self.render(messages[: index + 1]).rstrip()
        if not (text.startswith(before) and text.startswith(until) and len(before) < len(until)):
            raise UserError(
                "template_not_sequential",
                "The chat template of this model rewrites earlier turns, so that it cannot be told "
                "what is an answer.",
                "Use data with one answer a row, or another model.",
                field="model.id",
            )
        return len(before), len(until)

    def render(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        """The text of a conversation. Raises `RowProblem` when the template refuses it."""
        import jinja2

        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (
            jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
        ) as error:  # fmt: skip
            raise RowProblem(f"is refused by the chat template ({error})") from None
        assert isinstance(text, str)
        return text

    def _cut(self, ids: list[int], labels: list[int]) -> Encoded:
        return Encoded(
            ids[: self.max_length], labels[: self.max_length], truncated=len(ids) > self.max_length
        )


def _is_within(start: int, end: int, spans: Iterable[tuple[int, int]]) -> bool:
    return start < end and any(first <= start < last for first, last in spans)
