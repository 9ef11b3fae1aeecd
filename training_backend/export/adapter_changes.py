"""What an adapter does to each weight of its base model.

The adapter's names are those of the loaded model, which PEFT wrapped; the files may name a weight
otherwise (`changes`), hold experts apart (`experts`) and share one table between the model's two
ends (`placing`). Every tensor of the adapter must find its weight, else there is no merge: one
that silently does nothing is the worst outcome there is.

How PEFT lays out what it saves: `peft.tuners.lora.layer`, `peft.tuners.trainable_tokens`,
`peft.utils.save_and_load`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from training_backend.export import experts
from training_backend.export.changes import (
    HEAD,
    Base,
    Change,
    Changes,
    Shift,
    Tokens,
    Update,
    Whole,
    is_table,
    misfit,
)
from training_backend.export.placing import Placing
from training_backend.export.tensor_file import FLOATS, TensorInfo
from training_backend.models.adapters import beyond_merging

PREFIX = "base_model.model."

_PART = re.compile(
    r"(?P<module>.+?)(?P<depth>(?:\.base_layer)*)\."
    r"(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector|token_adapter\.trainable_tokens_delta)"
)
_TOKENS = "token_adapter.trainable_tokens_delta"
_STORED_IN_BY_OUT = ("gpt2", "openai-gpt")  # families with layers of kind Conv1D


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
        if tensor.dtype not in FLOATS:
            raise misfit(f"{tensor.name} of the adapter is {tensor.dtype}, not a plain float")
        if not tensor.name.startswith(PREFIX):
            raise misfit(f"it is not known what {tensor.name} is for")
    found = _Found(base, settings)
    layers: dict[str, dict[int, dict[str, TensorInfo]]] = {}
    for tensor in adapter.values():
        name = tensor.name.removeprefix(PREFIX)
        part = _PART.fullmatch(name)
        if part is None:
            if not _is_second_copy(name, adapter):
                found.whole[_unwrapped(name)] = tensor
        else:
            depth = part["depth"].count(".")
            layers.setdefault(part["module"], {}).setdefault(depth, {})[part["part"]] = tensor
    for module, levels in layers.items():
        if module.endswith(".experts"):
            for name, change in experts.updates(module, list(levels.values()), base, found.scale):
                found.add_placed(name, change)
        else:
            found.add_layer(module, levels)
    for parameter, tensor in found.whole.items():
        found.add_whole(parameter, tensor)
    found.check_promises()
    return Placing(base, same).placed(found.by_parameter, found.by_name)


@dataclass
class _Found:
    """What was found so far, by the loaded model's names."""

    base: Base
    settings: Mapping[str, Any]
    whole: dict[str, TensorInfo] = field(default_factory=dict)  # saved as it is, not as an update
    by_parameter: dict[str, Change] = field(default_factory=dict)
    by_name: dict[str, Change] = field(default_factory=dict)  # experts': by the files' names

    # --- the kinds of change --------------------------------------------------------------

    def add_layer(self, module: str, levels: dict[int, dict[str, TensorInfo]]) -> None:
        if set(levels) != {0}:
            raise misfit(f"it is not known which parts of {module} it changes")
        parts = levels[0]
        if _TOKENS in parts:
            self._add_tokens(module, parts.pop(_TOKENS))
            if parts:
                raise misfit(f"{module} has trained tokens and an update at once")
            return
        of_table = "lora_embedding_A" in parts
        kind = ("lora_embedding_A", "lora_embedding_B") if of_table else (
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
        scale = self.scale(parameter, a.shape[0])
        bias = parts.pop("lora_B.bias", None)
        if bias is not None:
            self._add_shift(module, bias, scale, b, lengths)
        if parts:
            raise misfit(f"it is not known what {min(parts)} of {module} is for")
        start = self.whole.pop(parameter, None)
        transposed = of_table or self._is_stored_in_by_out(module)
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

    def _add_tokens(self, module: str, tensor: TensorInfo) -> None:
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
        was_asked_for = (
            self._is_saved_whole(parameter, self.settings.get("modules_to_save"))
            or (parameter.endswith(".bias") and self.settings.get("bias") in ("all", "lora_only"))
            or ".base_layer." in tensor.name
            or is_table(parameter)
        )
        if not was_asked_for:
            raise misfit(f"it is not known what {tensor.name} is for")
        of_experts = experts.in_full(parameter, tensor, self.base)
        for name, change in of_experts:
            self.add_placed(name, change)
        if not of_experts:
            self.by_parameter[parameter] = Whole(tensor)

    def add_placed(self, name: str, change: Change) -> None:
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
        parts = self.settings.get("modules_to_save")
        for wanted in parts if isinstance(parts, list) else ():
            if not any(self._is_saved_whole(parameter, [wanted]) for parameter in self.whole):
                raise misfit(f"the part {wanted} that it speaks of is missing")

    # --- settings -------------------------------------------------------------------------

    def scale(self, parameter: str, rank: int) -> float:
        """What B A is multiplied with."""
        module = parameter.rpartition(".")[0]
        targets = self.settings.get("target_parameters") or []
        is_parameter = any(f".{parameter}".endswith(f".{target}") for target in targets)
        key = parameter if is_parameter else module
        try:
            alpha = float(_for_layer(self.settings, "alpha_pattern", "lora_alpha", key))
            expected = int(_for_layer(self.settings, "rank_pattern", "r", key))
        except (LookupError, TypeError, ValueError, AttributeError, re.error):
            raise misfit(f"its settings do not say how strongly {module} is changed") from None
        if expected != rank:
            raise misfit(f"{module} has rank {rank}, and {expected} by the settings")
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
        return self.base.config.get("model_type") in _STORED_IN_BY_OUT and not module.endswith(HEAD)


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


def _for_layer(settings: Mapping[str, Any], patterns: str, otherwise: str, key: str) -> Any:
    """PEFT's rule: a pattern is a regular expression that matches the end of the layer's name."""
    for pattern, value in (settings.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", key):
            return value
    return settings[otherwise]
