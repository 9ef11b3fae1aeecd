"""Which linear layers of a model an adapter is put on, and how many numbers that trains. Light.

The rule is PEFT's: a name stands for every layer that is called so or whose name ends with it
after a dot; a block's number is the one that follows the list it is in (`layers.7.`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from training_backend.errors import UserError
from training_backend.job_training import LoraSection

_BLOCK = re.compile(r".*\.[^.]*\.(\d+)\.")
_ATTENTION = re.compile(r"(^|[._])(self_)?(attn|attention)([._]|$)")


@dataclass(frozen=True)
class Layer:
    """A linear layer; its weight is rows x columns, out x in."""

    name: str
    rows: int
    columns: int

    @property
    def block(self) -> int | None:
        found = _BLOCK.match(self.name)
        return int(found[1]) if found else None


def names(layers: Sequence[Layer], lora: LoraSection) -> list[str]:
    """What PEFT's `target_modules` must be, less all-linear, which it knows itself.

    Raises:
        UserError: about `lora.target_modules`, for a name that no layer has.
    """
    if lora.target_modules == "attention":
        found = {
            ".".join(layer.name.split(".")[-2:])
            for layer in layers
            if _ATTENTION.search(layer.name.rpartition(".")[0])
        }
        if not found:
            raise UserError(
                "no_attention",
                "This model has no layers of attention that can be told by their names.",
                "Write all-linear, or name the layers.",
                field="lora.target_modules",
            )
        return sorted(found)
    if lora.target_modules == "all-linear":
        return sorted({layer.name.rpartition(".")[2] for layer in layers})
    targets = [name.strip() for name in lora.target_modules]
    for target in targets:
        if not any(_called(layer, target) for layer in layers):
            raise UserError(
                "target_unknown",
                "This model has no linear layer named {target}.",
                "Write all-linear, or names such as q_proj.",
                field="lora.target_modules",
                target=target,
            )
    return targets


def adapted(layers: Sequence[Layer], lora: LoraSection) -> list[Layer]:
    """The layers that get an adapter.

    Args:
        layers: all that all-linear stands for.

    Raises:
        UserError: about `lora.target_modules` or `lora.layers_to_transform`, for what is not there.
    """
    if lora.target_modules == "all-linear":
        chosen = list(layers)
    else:
        targets = names(layers, lora)
        chosen = [layer for layer in layers if any(_called(layer, name) for name in targets)]
    if lora.layers_to_transform == "all":
        return chosen
    blocks = {layer.block for layer in chosen} - {None}
    missing = sorted(set(lora.layers_to_transform) - blocks)
    if missing:
        raise UserError(
            "block_unknown",
            "This model has no block {block} with such layers; there are {count}, counted from 0.",
            "Name other blocks, or write all.",
            field="lora.layers_to_transform",
            block=missing[0],
            count=len(blocks),
        )
    return [layer for layer in chosen if layer.block in lora.layers_to_transform]


def trained(layers: Sequence[Layer], lora: LoraSection) -> int:
    """Numbers that are trained on these layers: A is r x columns, B rows x r; with DoRA also a
    size for every row (arXiv:2402.09353)."""
    return sum(
        lora.r * (layer.rows + layer.columns) + layer.rows * lora.use_dora for layer in layers
    )


def _called(layer: Layer, name: str) -> bool:
    return layer.name == name or layer.name.endswith(f".{name}")
