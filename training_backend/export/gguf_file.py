"""What a GGUF file says of itself, and whether all of it is there. Light: plain reads.

A file is a magic number, a version, the number of tensors and of metadata entries, the entries,
then each tensor's name, shape, type and place; the tensors' bytes follow. The C library that
will load the file trusts these numbers, so they are looked at here first.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from training_backend.data.safe_template import render_safely
from training_backend.errors import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_DIMENSIONS = 4
MOST_NESTED = 4

# `enum gguf_metadata_value_type`; 8 is a text, 9 a list.
_NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_TEXT, _LIST = 8, 9

# `enum ggml_type`: how many weights a block has, and how many bytes it takes.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2),
}  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """One tensor; `shape` begins with the length of a row, as ggml counts."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int  # byte offset in the file


@dataclass(frozen=True)
class GgufFile:
    """A file's metadata by name, as plain Python values, and its tensors."""

    path: Path
    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def template(self) -> str:
        """The chat template that programs use; "" if there is none."""
        return str(self.metadata.get("tokenizer.chat_template") or "")

    def token_text(self, which: str) -> str:
        """The text of the `bos` or `eos` token; "" if the file names none."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        place = self.metadata.get(f"tokenizer.ggml.{which}_token_id")
        if isinstance(tokens, list) and isinstance(place, int) and 0 <= place < len(tokens):
            return str(tokens[place])
        return ""


def read(path: Path) -> GgufFile:
    """Raises `UserError` for a file that is damaged, cut short or of another kind; `OSError`."""
    with path.open("rb") as file:
        try:
            return _Reader(file, path.stat().st_size).whole(path)
        except (ValueError, struct.error, UnicodeDecodeError) as error:
            raise UserError(
                "gguf_damaged",
                "{name} is no whole GGUF file ({reason}).",
                "Export it again.",
                name=path.name,
                reason=error,
            ) from None


def chat(
    file: GgufFile, messages: Sequence[dict[str, str]]
) -> tuple[str, dict[str, str], dict[str, Any]]:
    """What a rendering of a chat takes, up to where an answer begins: as llama.cpp does it.

    Returns the file's template, the special tokens that it may name, and the request, as
    `safe_template` wants them.
    """
    tokens = {f"{which}_token": file.token_text(which) for which in ("bos", "eos")}
    return file.template, tokens, {"messages": list(messages), "add_generation_prompt": True}


def try_template(file: GgufFile) -> None:
    """Render the file's chat template where it can do no harm.

    Raises `UserError` for one that is none, does not come to an end or asks for too much.
    """
    if file.template:
        template, tokens, request = chat(file, [{"role": "user", "content": "Hello"}])
        render_safely(template, tokens, [request])


class _Reader:
    """Reads forward through a head; raises `ValueError` where it makes no sense."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def whole(self, path: Path) -> GgufFile:
        if self._bytes(4) != MAGIC:
            raise ValueError("it does not begin as one does")
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(f"version {version} is not known")
        tensor_count, entry_count = self._count(), self._count()
        metadata = {}
        for _ in range(entry_count):
            name = self._text()
            metadata[name] = self._value(self._number("I"), MOST_NESTED)
        found = [self._tensor() for _ in range(tensor_count)]
        step = metadata.get("general.alignment", 32)
        if not isinstance(step, int) or step <= 0:
            raise ValueError("its alignment is no number")
        begin = -(-self._file.tell() // step) * step
        tensors = tuple(replace(tensor, start=begin + tensor.start) for tensor in found)
        for tensor in tensors:
            if tensor.start + _bytes_of(tensor) > self._size:
                raise ValueError(f"it is cut short: {tensor.name} is not all there")
        return GgufFile(path, metadata, tensors)

    def _tensor(self) -> GgufTensor:
        """Its `start` is counted from the first tensor's."""
        name, dimensions = self._text(), self._number("I")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise ValueError(f"{name} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return GgufTensor(name, shape, self._number("I"), self._number("Q"))

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind == _LIST and depth:
            inner, count = self._number("I"), self._count()
            if inner in _NUMBERS:
                form = f"<{count}{_NUMBERS[inner]}"
                return list(struct.unpack(form, self._bytes(struct.calcsize(form))))
            return [self._value(inner, depth - 1) for _ in range(count)]
        if kind not in _NUMBERS:
            raise ValueError(f"its metadata holds a value of the unknown kind {kind}")
        return self._number(_NUMBERS[kind])

    def _text(self) -> str:
        # Tokens of some vocabularies are no whole characters.
        return self._bytes(self._count()).decode("utf-8", errors="replace")

    def _count(self) -> int:
        count = self._number("Q")
        if count > self._size:  # each takes a byte at least
            raise ValueError("it counts more than it can hold")
        return count

    def _number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self._bytes(struct.calcsize(f"<{form}")))[0]

    def _bytes(self, count: int) -> bytes:
        if count > self._size:
            raise ValueError("it counts more than it can hold")
        data = self._file.read(count)
        if len(data) < count:
            raise ValueError("it is cut short")
        return data


def _bytes_of(tensor: GgufTensor) -> int:
    """At least; types that no export writes are taken for empty."""
    weights, size = _BLOCKS.get(tensor.type, (1, 0))
    return math.prod(tensor.shape) // weights * size
