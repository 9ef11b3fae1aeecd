"""Which layers get an adapter, and how many numbers that trains."""

from __future__ import annotations

from typing import Any

import pytest

from training_backend.errors import UserError
from training_backend.job import LoraSection
from training_backend.models import targets
from training_backend.models.targets import Layer


def block(number: int) -> list[Layer]:
    name = f"model.layers.{number}."
    return [
        *(Layer(f"{name}self_attn.{part}_proj", 32 if part in "kv" else 64, 64) for part in "qkvo"),
        Layer(f"{name}mlp.gate_proj", 96, 64),
        Layer(f"{name}mlp.up_proj", 96, 64),
        Layer(f"{name}mlp.down_proj", 64, 96),
    ]


LAYERS = [layer for number in range(4) for layer in block(number)]
GPT2 = [
    Layer(f"transformer.h.{number}.{name}", 8, 8)
    for number in range(2)
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
]


def lora(**values: Any) -> LoraSection:
    return LoraSection(r=4, **values)


def chosen(layers: list[Layer], section: LoraSection) -> list[str]:
    return [layer.name for layer in targets.adapted(layers, section)]


def test_words_and_names_stand_for_the_layers_that_they_say() -> None:
    assert len(chosen(LAYERS, lora())) == 28
    attention = chosen(LAYERS, lora(target_modules="attention"))
    assert len(attention) == 16 and all("self_attn" in name for name in attention)
    assert len(chosen(LAYERS, lora(target_modules=("q_proj", " v_proj ")))) == 8
    assert chosen(LAYERS, lora(target_modules=("layers.2.mlp.up_proj",))) == [
        "model.layers.2.mlp.up_proj"
    ]


def test_attention_leaves_alone_what_is_called_alike_elsewhere() -> None:
    found = chosen(GPT2, lora(target_modules="attention"))
    assert found == [
        f"transformer.h.{n}.attn.{part}" for n in (0, 1) for part in ("c_attn", "c_proj")
    ]


def test_only_the_named_blocks_are_adapted() -> None:
    found = targets.adapted(LAYERS, lora(layers_to_transform=(1, 3)))
    assert {layer.block for layer in found} == {1, 3} and len(found) == 14


def test_trained_numbers_are_those_of_both_matrices_and_with_dora_a_size_a_row() -> None:
    found = targets.adapted(LAYERS, lora(target_modules=("v_proj",)))
    assert targets.trained(found, lora()) == 4 * 4 * (32 + 64)
    assert targets.trained(found, lora(use_dora=True)) == 4 * (4 * (32 + 64) + 32)


@pytest.mark.parametrize(
    ("layers", "values", "code", "field", "words"),
    [
        (LAYERS, {"target_modules": ("q",)}, "target_unknown", "target_modules", "named q"),
        (
            LAYERS,
            {"layers_to_transform": (3, 4)},
            "block_unknown",
            "layers_to_transform",
            "block 4",
        ),
        (
            [Layer("mixer.in_proj", 8, 8)],
            {"target_modules": "attention"},
            "no_attention",
            "target_modules",
            "all-linear",
        ),
    ],
)
def test_what_is_not_there_is_said_at_its_field(
    layers: list[Layer], values: dict[str, Any], code: str, field: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        targets.adapted(layers, lora(**values))
    assert (caught.value.code, caught.value.field) == (code, f"lora.{field}")
    assert words in str(caught.value)
