"""What servers make of an adapter's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from training_backend.models import vllm

PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none", "use_rslora": True,
    "target_modules": ["q_proj", "v_proj"], "modules_to_save": None, "rank_pattern": {},
    "alpha_pattern": {}, "use_dora": False, "lora_bias": False, "trainable_token_indices": None,
}  # fmt: skip


def test_a_plain_adapter_can_be_served() -> None:
    assert vllm.beyond(PLAIN) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "LOHA"}, "LOHA instead of LoRA"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["norm"]}, "layers that were trained whole"),
        ({"trainable_token_indices": [1]}, "trained tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "vocabulary"),
        ({"target_parameters": ["experts.down_proj"]}, "experts"),
        ({"rank_pattern": {"q_proj": 4}}, "other ranks"),
        ({"alpha_pattern": {"q_proj": 4}}, "other ranks"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"fan_in_fan_out": True}, "transposed layers"),
        ({"layer_replication": [[0, 2]]}, "repeated layers"),
        ({"alora_invocation_tokens": [1]}, "switches it on"),
        ({"r": 513}, "a rank above 512"),
    ],
    ids=str,
)
def test_what_servers_would_refuse_or_misread_is_named(change: dict[str, Any], words: str) -> None:
    assert words in vllm.beyond({**PLAIN, **change})


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (64, 64), (300, 320)])
def test_the_room_is_one_that_vllm_knows(rank: int, room: int) -> None:
    assert vllm.max_lora_rank({**PLAIN, "r": rank}) == room
