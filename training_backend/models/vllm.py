"""Whether servers can put an adapter on its base model as it answers, and with which rank. Light.

By what vLLM says of an adapter's configuration (`vllm/lora/peft_helper.py`) and of
`--max-lora-rank` (`vllm/config/lora.py`); TGI takes no more. They read one rank and one strength
for the whole adapter, and pass over settings that they do not know: what those change would be
wrong without a word.
"""

from __future__ import annotations

from typing import Any

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_VOCABULARY = {"embed_tokens", "lm_head", "wte", "embed_in", "embed_out"}


def beyond(config: dict[str, Any]) -> str:
    """What of an adapter they refuse, or read as something else: nouns after “it has”; "" for none.

    Args:
        config: the adapter's `adapter_config.json`.
    """
    targets = config.get("target_modules")
    found = {
        f"{config.get('peft_type')} instead of LoRA": config.get("peft_type", "LORA") != "LORA",
        "DoRA": config.get("use_dora"),
        "layers that were trained whole": config.get("modules_to_save"),
        "trained tokens": config.get("trainable_token_indices"),
        "changes to the vocabulary's layers": isinstance(targets, list)
        and not _VOCABULARY.isdisjoint(targets),
        "changes to whole groups of experts": config.get("target_parameters"),
        "layers of other ranks": config.get("rank_pattern") or config.get("alpha_pattern"),
        "biases": config.get("bias", "none") != "none" or config.get("lora_bias"),
        "transposed layers": config.get("fan_in_fan_out"),
        "repeated layers": config.get("layer_replication"),
        "a text that switches it on": config.get("alora_invocation_tokens"),
        f"a rank above {RANKS[-1]}": _rank(config) > RANKS[-1],
    }
    return ", ".join(what for what, there in found.items() if there)


def max_lora_rank(config: dict[str, Any]) -> int:
    """What `--max-lora-rank` has to be: one of the few that vLLM knows, 16 if nothing is said."""
    return next((rank for rank in RANKS if rank >= _rank(config)), RANKS[-1])


def _rank(config: dict[str, Any]) -> int:
    rank = config.get("r")
    return rank if isinstance(rank, int) else 8  # PEFT's own
