"""What the proof needs of a loaded model, whatever program runs it. Light.

`proof_torch` has it for transformers and PEFT, `gguf_engine` for llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]
Messages = Sequence[dict[str, str]]  # each with `role` and `content`


class Speaker(Protocol):
    """A model with its own tokenizer and chat template, used as its program uses them.

    Attributes:
        vocabulary: how many tokens it has numbers for.
        ends: the tokens at which this program ends an answer, as the model's files tell it.
        begin: the token for the beginning of a text, where the model has one.
    """

    @property
    def vocabulary(self) -> int: ...

    @property
    def ends(self) -> frozenset[int]: ...

    @property
    def begin(self) -> int | None: ...

    def prompt(self, messages: Messages) -> str | None:
        """A chat in the model's own template, up to where the answer begins; None: it has none.

        Raises `UserError` where the template refuses it.
        """
        ...

    def read(self, text: str, *, is_chat: bool) -> list[int]:
        """Token ids as this program feeds them to the model, whatever it adds itself included.

        Args:
            is_chat: a rendered chat, in which special tokens are written out; else plain text.
        """
        ...

    def logits(self, tokens: Sequence[int], last: int) -> Array:
        """Float32 [last, vocabulary]: of what follows each of the last tokens, in order."""
        ...

    def close(self) -> None:
        """Give back the memory."""
        ...
