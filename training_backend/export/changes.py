"""What an adapter does to each weight of its base model, by the weights' names in the base's files.

The adapter's names are those of the loaded model, which PEFT wrapped; the files may name a weight
otherwise, and hold apart what is fused when it is loaded: experts of a mixture lie in one tensor
each then. Every tensor of the adapter must find its weight here, else there is no merge: one that
silently does nothing is the worst outcome there is.

How PEFT lays out what it saves: `peft.tuners.lora.layer` (`ParamWrapper` for experts),
`peft.tuners.trainable_tokens`, `peft.utils.save_and_load`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from training_backend.errors import UserError
from training_backend.export.tensor_file import FLOATS, TensorInfo
from training_backend.models.adapters import beyond_merging

PREFIX = "base_model.model."

_PART = re.compile(
    r"(?P<module>.+?)(?P<depth>(?:\.base_layer)*)\."
    r"(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector|token_adapter\.trainable_tokens_delta)"
)
_TOKENS = "token_adapter.trainable_tokens_delta"
# The parts of a file's names that the loaded model has otherwise, each tried where it occurs.
_RENAMED = (
    (".mlp.", ".block_sparse_moe."),  # Mixtral
    ("model.language_model.", "language_model.model."),  # the text part of a model that also sees
    ("model.language_model.", "model."),
    ("lm_head.", "language_model.lm_head."),
    ("lm_head.", "embed_out."),  # GPT-NeoX
)
# Of fused experts: the weights of one expert in the files, from the first row on.
_EXPERT_WEIGHTS = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_FIRST_COLUMN_IN = ("gpt2", "openai-gpt")  # families whose layers are stored in x out (Conv1D)
_INPUT_TABLES = (
    "embed_tokens", "wte", "word_embeddings", "embed_in", "tokens_embed", "embeddings",
)  # fmt: skip
_HEAD = "lm_head"


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

    @property
    def is_nested(self) -> bool:
        return "text_config" in self.config


@dataclass
class Changes:
    """What becomes of a base model."""

    of: dict[str, Change] = field(default_factory=dict)  # by the name in the base's files
    # Weights that the base's files lack: name, the base's weight that it begins as, its change.
    added: dict[str, tuple[str, Change | None]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # what is otherwise in config.json


def find(
    adapter: Mapping[str, TensorInfo],
    settings: Mapping[str, Any],
    base: Base,
    same: Callable[[TensorInfo, TensorInfo], bool],
) -> Changes:
    """What an adapter does to a base model.

    Args:
        adapter: its tensors by name.
        settings: its `adapter_config.json`.
        same: whether two of its tensors hold the same.

    Raises `UserError` for an adapter that does not fit, or that we cannot merge.
    """
    beyond = beyond_merging(dict(settings))
    if beyond:
        raise misfit(f"an adapter that uses {beyond} cannot be merged")
    for tensor in adapter.values():
        if tensor.dtype not in FLOATS or not tensor.name.startswith(PREFIX):
            raise misfit(f"it is not known what {tensor.name} is for")
    found = _Found(base, settings, same)
    layers: dict[str, dict[int, dict[str, TensorInfo]]] = {}
    for tensor in adapter.values():
        name = tensor.name.removeprefix(PREFIX)
        part = _PART.fullmatch(name)
        if part is None and not _is_second_copy(name, adapter):
            found.whole[_unwrapped(name)] = tensor
        elif part is None:
            continue
        else:
            depth = part["depth"].count(".")
            layers.setdefault(part["module"], {}).setdefault(depth, {})[part["part"]] = tensor
    for module, levels in layers.items():
        if module.endswith(".experts"):
            found.add_experts(module, levels)
        else:
            found.add_layer(module, levels)
    for parameter, tensor in found.whole.items():
        found.add_whole(parameter, tensor)
    found.check_promises()
    return found.placed()


@dataclass
class _Found:
    """What was found so far, by the loaded model's names."""

    base: Base
    settings: Mapping[str, Any]
    same: Callable[[TensorInfo, TensorInfo], bool]
    whole: dict[str, TensorInfo] = field(default_factory=dict)
    by_parameter: dict[str, Change] = field(default_factory=dict)
    by_name: dict[str, Change] = field(default_factory=dict)  # experts: several names a parameter

    # --- the kinds of change --------------------------------------------------------------

    def add_layer(self, module: str, levels: dict[int, dict[str, TensorInfo]]) -> None:
        if set(levels) != {0}:
            raise misfit(f"it is not known which parts of {module} it changes")
        parts = levels[0]
        if _TOKENS in parts:
            self.add_tokens(module, parts.pop(_TOKENS))
            if parts:
                raise misfit(f"{module} has trained tokens and an update at once")
            return
        is_table = "lora_embedding_A" in parts
        kind = ("lora_embedding_A", "lora_embedding_B") if is_table else (
            "lora_A.weight", "lora_B.weight"
        )  # fmt: skip
        a, b = parts.pop(kind[0], None), parts.pop(kind[1], None)
        if a is None or b is None or not _belong_together(a, b):
            raise misfit(f"the two halves of {module} do not belong together")
        lengths = parts.pop("lora_magnitude_vector", None)
        if bool(self.settings.get("use_dora")) != (lengths is not None):
            raise misfit(f"it is not clear whether {module} was trained with DoRA")
        if lengths is not None and lengths.shape != (b.shape[0],):
            raise misfit(f"the lengths of {module} do not belong to it")
        parameter = f"{module}.weight"
        scale = self._scale(module, parameter, a.shape[0])
        bias = parts.pop("lora_B.bias", None)
        if bias is not None:
            self._add_shift(module, bias, scale, b, lengths)
        if parts:
            raise misfit(f"it is not known what {min(parts)} of {module} is for")
        start = self.whole.pop(parameter, None)
        transposed = is_table or self._is_stored_in_by_out(module)
        self.by_parameter[parameter] = Update(a, b, scale, lengths, transposed, start=start)

    def _add_shift(
        self, module: str, bias: TensorInfo, scale: float, b: TensorInfo, lengths: TensorInfo | None
    ) -> None:
        if lengths is not None:
            raise misfit("DoRA together with LoRA biases cannot be merged")
        if bias.shape != (b.shape[0],):
            raise misfit(f"the bias of {module} does not belong to it")
        if self.base.find(f"{module}.bias") is None:
            raise misfit(f"it adds a bias to {module}, which has none in this base model")
        self.by_parameter[f"{module}.bias"] = Shift(bias, scale)

    def add_tokens(self, module: str, tensor: TensorInfo) -> None:
        asked = self.settings.get("trainable_token_indices")
        if isinstance(asked, dict):
            fitting = [v for k, v in asked.items() if f".{module}".endswith(f".{k}")]
            asked = fitting[0] if len(fitting) == 1 else None
        if (
            not isinstance(asked, list)
            or not all(isinstance(row, int) and row >= 0 for row in asked)
            or len(tensor.shape) != 2
            or len(asked) != tensor.shape[0]
        ):
            raise misfit(f"it does not say which tokens of {module} were trained")
        start = self.whole.pop(f"{module}.weight", None)
        self.by_parameter[f"{module}.weight"] = Tokens(tensor, tuple(asked), start)

    def add_whole(self, parameter: str, tensor: TensorInfo) -> None:
        module = parameter.rpartition(".")[0]
        was_asked_for = (
            self._is_saved_whole(parameter, self.settings.get("modules_to_save"))
            or (parameter.endswith(".bias") and self.settings.get("bias") in ("all", "lora_only"))
            or ".base_layer." in tensor.name
            or _is_table(module)
        )
        if not was_asked_for:
            raise misfit(f"it is not known what {tensor.name} is for")
        container, _, part = parameter.rpartition(".")
        if container.endswith(".experts") and part in _EXPERT_WEIGHTS:
            weights = self._expert_weights(container, part)
            if weights:
                self._add_whole_experts(container, part, tensor, weights)
                return
        self.by_parameter[parameter] = Whole(tensor)

    def _add_whole_experts(
        self, container: str, part: str, tensor: TensorInfo, weights: list[tuple[str, ...]]
    ) -> None:
        rows, columns = self._fused_shape(weights)
        if tensor.shape != (len(weights), rows, columns):
            raise misfit(f"{container}.{part} has another shape in this base model")
        for name, expert in _split(weights, self.base):
            self.by_name[name] = Whole(tensor, expert)

    def add_experts(self, module: str, levels: dict[int, dict[str, TensorInfo]]) -> None:
        """Experts that are fused when the model is loaded: which of the two, by their shapes."""
        for parts in levels.values():
            a, b = parts.pop("lora_A.weight", None), parts.pop("lora_B.weight", None)
            if a is None or b is None or parts or len(a.shape) != 2 or len(b.shape) != 2:
                raise misfit(f"the two halves of {module} do not belong together")
            if a.shape[0] != b.shape[1] or a.shape[0] == 0:
                raise misfit(f"the two halves of {module} do not belong together")
            fitting = [part for part in _EXPERT_WEIGHTS if self._fits_experts(module, part, a, b)]
            if len(fitting) != 1:
                raise misfit(
                    f"what it changes of {module} does not fit how this base model holds "
                    "its experts"
                )
            part = fitting[0]
            weights = self._expert_weights(module, part)
            count = len(weights) or self.base.tensors[self._fused(module, part)].shape[0]
            if a.shape[0] % count:
                raise misfit(f"{module} has another number of experts in this base model")
            scale = self._scale(module, f"{module}.{part}", a.shape[0] // count)
            if weights:
                for name, expert in _split(weights, self.base):
                    self._add_once(name, Update(a, b, scale, expert=expert))
                continue
            name = self._fused(module, part)
            transposed = self._is_transposed(module)
            self._add_once(name, Fused(tuple(
                Update(a, b, scale, transposed=transposed, expert=Expert(n, count))
                for n in range(count)
            )))  # fmt: skip

    def _add_once(self, name: str, change: Change) -> None:
        if name in self.by_name:
            raise misfit(f"it changes {name} twice")
        self.by_name[name] = change

    def check_promises(self) -> None:
        """What the settings speak of must be among the tensors, as PEFT asks of them too."""
        if not self.by_parameter and not self.by_name:
            raise misfit("it holds no weights")
        changes = list(self.by_parameter.values())
        if self.settings.get("trainable_token_indices") and not any(
            isinstance(change, Tokens) for change in changes
        ):
            raise misfit("the tokens that it speaks of are missing")
        if self.settings.get("lora_bias") and not any(
            isinstance(change, Shift) for change in changes
        ):
            raise misfit("the biases that it speaks of are missing")
        for wanted in self.settings.get("modules_to_save") or ():
            if not any(self._is_saved_whole(parameter, [wanted]) for parameter in self.whole):
                raise misfit(f"the part {wanted} that it speaks of is missing")

    # --- experts --------------------------------------------------------------------------

    def _expert_weights(self, module: str, part: str) -> list[tuple[str, ...]]:
        """The names in the files of every expert's weights; empty where they are fused there."""
        for names in _EXPERT_WEIGHTS[part]:
            found: list[tuple[str, ...]] = []
            while True:
                stem = f"{module}.{len(found)}"
                files = [self.base.find(f"{stem}.{name}.weight") for name in names]
                if None in files:
                    break
                found.append(tuple(map(str, files)))
            if found:
                return found
        return []

    def _fused(self, module: str, part: str) -> str:
        return self.base.find(f"{module}.{part}") or ""

    def _fits_experts(self, module: str, part: str, a: TensorInfo, b: TensorInfo) -> bool:
        weights = self._expert_weights(module, part)
        if weights:
            return (b.shape[0], a.shape[1]) == self._fused_shape(weights)
        fused = self.base.tensors.get(self._fused(module, part))
        if fused is None or len(fused.shape) != 3:
            return False
        wanted = (a.shape[1], b.shape[0]) if self._is_transposed(module) else (
            b.shape[0], a.shape[1]
        )  # fmt: skip
        return fused.shape[1:] == wanted

    def _fused_shape(self, weights: list[tuple[str, ...]]) -> tuple[int, int]:
        """Rows and columns of one expert's weights below one another."""
        shapes = [self.base.tensors[name].shape for name in weights[0]]
        if any(self.base.tensors[name].shape != shape for names in weights
               for name, shape in zip(names, shapes, strict=True)):  # fmt: skip
            return (0, 0)
        return sum(shape[0] for shape in shapes), shapes[0][-1]

    def _is_transposed(self, module: str) -> bool:
        """Whether fused experts lie in x out: gate and up side by side, not below one another.

        Both are as wide as the model, so the one side that they share is the model's.
        """
        gate_up, down = (self.base.tensors.get(self._fused(module, part))
                         for part in ("gate_up_proj", "down_proj"))  # fmt: skip
        if gate_up is None or down is None or len(gate_up.shape) != 3 or len(down.shape) != 3:
            raise misfit(
                f"what it changes of {module} does not fit how this base model holds its experts"
            )
        return gate_up.shape[2] == 2 * down.shape[1] and gate_up.shape[1] == down.shape[2]

    # --- settings -------------------------------------------------------------------------

    def _scale(self, module: str, parameter: str, rank: int) -> float:
        targets = self.settings.get("target_parameters") or []
        is_parameter = any(f".{parameter}".endswith(f".{target}") for target in targets)
        key = parameter if is_parameter else module
        try:
            asked = _pattern(self.settings.get("alpha_pattern"), key)
            alpha = float(self.settings["lora_alpha"] if asked is None else asked)
        except (LookupError, TypeError, ValueError, AttributeError, re.error):
            raise misfit(f"its settings do not say how strongly {module} is changed") from None
        return alpha / math.sqrt(rank) if self.settings.get("use_rslora") else alpha / rank

    def _is_saved_whole(self, parameter: str, names: Any) -> bool:
        """PEFT's rule: a part is trained in full whose name ends with one of `modules_to_save`."""
        if not isinstance(names, list):
            return False
        parts = parameter.split(".")
        return any(
            ".".join(parts[:length]).endswith(str(wanted))
            for wanted in names
            for length in range(1, len(parts))
        )

    def _is_stored_in_by_out(self, module: str) -> bool:
        """`fan_in_fan_out` in PEFT's settings is that of the last layer only."""
        return self.base.config.get("model_type") in _FIRST_COLUMN_IN and not module.endswith(_HEAD)

    # --- where it goes --------------------------------------------------------------------

    def placed(self) -> Changes:
        """By the names in the files, with the two ends of the model apart where they must be."""
        changes = Changes(of=dict(self.by_name))
        head = next((p for p in self.by_parameter if _last(p) == _HEAD), None)
        table = next((p for p in self.by_parameter if _last(p) in _INPUT_TABLES), None)
        if (head or table) and self._is_tied():
            self._place_tied(head, table, changes)
        for parameter, change in self.by_parameter.items():
            name = self.base.find(parameter)
            if name is None:
                raise misfit(f"there is no weight {parameter} in the base model")
            if name in changes.of:
                raise misfit(f"it changes {name} twice")
            changes.of[name] = change
        self._check_shapes(changes)
        return changes

    def _is_tied(self) -> bool:
        if self.base.is_nested:
            raise misfit(
                "it changes the table of tokens of a model with several parts, which cannot be "
                "merged"
            )
        return bool(self.base.config.get("tie_word_embeddings")) or (
            self.base.find(f"{_HEAD}.weight") is None
        )

    def _place_tied(self, head: str | None, table: str | None, changes: Changes) -> None:
        """One table for input and output in the base: does it stay one?

        PEFT keeps it one for trained tokens, and saves it twice where it was asked to keep it
        one; else only the end that was named is changed, and the other remains what it was.
        """
        source = table or next(
            (f"{name.removesuffix('.weight')}.weight" for name in self.base.tensors
             if name.endswith(".weight") and _last(name) in _INPUT_TABLES), None
        )  # fmt: skip
        name = self.base.find(source) if source else None
        if name is None:
            raise misfit("there is no table of tokens in this base model")
        of_table = self.by_parameter.get(table) if table else None
        of_head = self.by_parameter.pop(head) if head else None
        if self._stays_one(of_table, of_head):
            return
        changes.config["tie_word_embeddings"] = False
        in_files = self.base.find(f"{_HEAD}.weight")
        if in_files is None:
            self._check_alone(name)
            changes.added[f"{_HEAD}.weight"] = (name, of_head)
        elif of_head is not None:
            changes.of[in_files] = of_head

    def _check_alone(self, table: str) -> None:
        """That the base has no head by another name, which a second one would not replace."""
        shape = self.base.tensors[table].shape
        for name, tensor in self.base.tensors.items():
            if name != table and tensor.shape == shape and not re.search(r"\.\d+\.", name):
                raise misfit(f"it is not clear what {name} of the base model is for")

    def _stays_one(self, of_table: Change | None, of_head: Change | None) -> bool:
        match of_table, of_head:
            case Tokens(), None:
                return True
            case Tokens(table, rows, start), Tokens(head, others, head_start):
                return rows == others and self._same(table, head) and self._same(start, head_start)
            case Whole(table), Whole(head):
                return self._same(table, head)
        return False

    def _same(self, one: TensorInfo | None, other: TensorInfo | None) -> bool:
        if one is None or other is None:
            return one is other
        return (one.dtype, one.shape) == (other.dtype, other.shape) and self.same(one, other)

    def _check_shapes(self, changes: Changes) -> None:
        sources = {name: (name, change) for name, change in changes.of.items()}
        rows = set()
        for name, (source, change) in (sources | changes.added).items():
            tensor = self.base.tensors[source]
            if tensor.dtype not in FLOATS:
                raise misfit(
                    f"{source} of the base model is {tensor.dtype}; a 16-bit base is needed"
                )
            shape = result_shape(change, tensor)
            if _last(name) in (*_INPUT_TABLES, _HEAD):
                rows.add(shape[0])
            elif shape != tensor.shape:
                raise misfit(f"{name} has another shape in this base model")
            grows = isinstance(change, Whole) or (
                isinstance(change, Update | Tokens) and change.start is not None
            )
            if shape[1:] != tensor.shape[1:] or (shape != tensor.shape and not grows):
                raise misfit(f"{name} has another shape in this base model")
            if isinstance(change, Tokens) and max(change.rows, default=0) >= shape[0]:
                raise misfit(f"{name} has too few rows for the tokens that were trained")
        if rows and rows != {self._vocabulary_rows(sources | changes.added)}:
            self._resize(rows, sources | changes.added, changes)

    def _vocabulary_rows(self, ends: Mapping[str, tuple[str, Change | None]]) -> int:
        return next(
            self.base.tensors[source].shape[0]
            for name, (source, _) in ends.items()
            if _last(name) in (*_INPUT_TABLES, _HEAD)
        )

    def _resize(
        self, rows: set[int], ends: Mapping[str, tuple[str, Change | None]], changes: Changes
    ) -> None:
        """The vocabulary was made larger for the training: both ends must have been saved."""
        tables = [name for name in self.base.tensors if _last(name) in (*_INPUT_TABLES, _HEAD)]
        if len(rows) != 1 or any(name not in ends for name in tables if name.endswith(".weight")):
            raise misfit("its table of tokens has another number of rows than this base model's")
        changes.config["vocab_size"] = rows.pop()


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


def _split(weights: list[tuple[str, ...]], base: Base) -> Iterator[tuple[str, Expert]]:
    """Every expert's weights, and where each begins among the fused rows."""
    for index, names in enumerate(weights):
        first = 0
        for name in names:
            yield name, Expert(index, len(weights), first)
            first += base.tensors[name].shape[0]


def _unwrapped(name: str) -> str:
    """What PEFT saves of a layer that it wrapped, by the name that it had before."""
    module, _, parameter = name.rpartition(".")
    for wrapper in (".token_adapter.base_layer", ".base_layer", ".modules_to_save"):
        module = module.removesuffix(wrapper)
    return f"{module}.{parameter}"


def _is_second_copy(name: str, adapter: Mapping[str, TensorInfo]) -> bool:
    """Of a table that grew PEFT saves the wrapper's parts as well: what it was, and is."""
    stem, wrapper, parameter = name.rpartition(".original_module.")
    if not wrapper:
        stem, wrapper, parameter = name.rpartition(".modules_to_save.")
    return bool(wrapper) and f"{PREFIX}{stem}.{parameter}" in adapter


def _belong_together(a: TensorInfo, b: TensorInfo) -> bool:
    return len(a.shape) == len(b.shape) == 2 and a.shape[0] == b.shape[1] > 0


def _pattern(patterns: Mapping[str, Any] | None, key: str) -> Any:
    """PEFT's rule: a pattern is a regular expression that matches the end of the layer's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", key):
            return value
    return None


def _last(parameter: str) -> str:
    """The name of a parameter's module without what contains it."""
    return parameter.rpartition(".")[0].rpartition(".")[2]


def _is_table(module: str) -> bool:
    return module.rpartition(".")[2] in (*_INPUT_TABLES, _HEAD)
