"""What may become of a weight of a base model, and where its files hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from training_backend.errors import UserError
from training_backend.export.tensor_file import TensorInfo

HEAD = "lm_head"
INPUT_TABLES = (
    "embed_tokens", "wte", "word_embeddings", "embed_in", "tokens_embed", "embeddings",
)  # fmt: skip
# The parts of a file's names that the loaded model has otherwise, each tried where it occurs.
_RENAMED = (
    (".mlp.", ".block_sparse_moe."),  # Mixtral
    ("model.language_model.", "language_model.model."),  # the text part of a model that also sees
    ("model.language_model.", "model."),
    ("lm_head.", "language_model.lm_head."),
    ("lm_head.", "embed_out."),  # GPT-NeoX
)


@dataclass(frozen=True)
class Expert:
    """One of the fused experts, and where its rows begin in what is fused."""

    index: int
    count: int
    first_row: int = 0


@dataclass(frozen=True)
class Update:
    """What is added to a weight: scale * B A, and with DoRA the length of each output after it.

    A is r x in and B out x r. PEFT has fused experts' A as (experts * r) x in, expert by expert,
    and B as out x (r * experts), rank by rank.
    """

    a: TensorInfo
    b: TensorInfo
    scale: float
    lengths: TensorInfo | None = None
    transposed: bool = False  # the weight is stored in x out
    expert: Expert | None = None
    start: TensorInfo | None = None  # the base's weight as the adapter saved it along


@dataclass(frozen=True)
class Fused:
    """The updates of experts that lie in one tensor, one after the other."""

    experts: tuple[Update, ...]


@dataclass(frozen=True)
class Whole:
    """A weight that was trained in full."""

    tensor: TensorInfo
    expert: Expert | None = None


@dataclass(frozen=True)
class Tokens:
    """Rows of a table that were trained in full; `start` as in `Update`."""

    tensor: TensorInfo
    rows: tuple[int, ...]
    start: TensorInfo | None = None


@dataclass(frozen=True)
class Shift:
    """What is added to a bias: scale times the bias of B."""

    tensor: TensorInfo
    scale: float


Change = Update | Fused | Whole | Tokens | Shift


@dataclass(frozen=True)
class Base:
    """A base model: what is in its files, and its `config.json`."""

    tensors: Mapping[str, TensorInfo]
    config: Mapping[str, Any]

    def find(self, parameter: str) -> str | None:
        """The name in the files of a parameter of the loaded model."""
        names = [parameter]
        names += [parameter.replace(old, new) for old, new in _RENAMED if old in parameter]
        names += [name.partition(".")[2] for name in names]  # saved without its head
        return next((name for name in names if name in self.tensors), None)


@dataclass
class Changes:
    """What becomes of a base model."""

    of: dict[str, Change] = field(default_factory=dict)  # by the name in the base's files
    # Weights that begin as another of the base's: their name, that one's, and their change.
    added: dict[str, tuple[str, Change | None]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # what is otherwise in config.json


def result_shape(change: Change | None, tensor: TensorInfo) -> tuple[int, ...]:
    """The shape of a weight after its change; another than before is a misfit, but for tables."""
    match change:
        case Whole(whole, None):
            return whole.shape
        case Update(a, b, transposed=transposed, expert=None, start=start):
            shape = (a.shape[1], b.shape[0]) if transposed else (b.shape[0], a.shape[1])
            return (-1,) if start is not None and start.shape != shape else shape
        case Shift(bias):
            return bias.shape
        case Tokens(rows, _, start):
            return (*(start or tensor).shape[:1], *rows.shape[1:])
        case _:
            return tensor.shape


def misfit(reason: str) -> UserError:
    return UserError(
        "adapter_does_not_fit",
        "The adapter cannot be merged into this base model: {reason}.",
        "Choose the base model that it was trained on.",
        field="run",
        reason=reason,
    )


def last_name(parameter: str) -> str:
    """The name of a parameter's module without what contains it."""
    return parameter.rpartition(".")[0].rpartition(".")[2]


def is_table(parameter: str) -> bool:
    """Whether it has one row for every token."""
    return last_name(parameter) in (*INPUT_TABLES, HEAD)
