"""Whether vLLM can serve an adapter beside its base model, and with which rank. Light.

By what vLLM says of an adapter's configuration (`vllm/lora/peft_helper.py`) and of
`--max-lora-rank` (`vllm/config/lora.py`). It reads one rank and one strength for the whole
adapter, and passes over settings that it does not know: what those change would be wrong
without a word.
"""

from __future__ import annotations

from typing import Any

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

_UNKNOWN = {
    "use_dora": "it was trained with DoRA",
    "modules_to_save": "parts of the model were trained in full beside it",
    "trainable_token_indices": "single tokens were trained beside it",
    "lora_bias": "it changes biases",
    "rank_pattern": "its layers have different ranks",
    "alpha_pattern": "its layers are changed with different strengths",
    "target_parameters": "it changes experts as a whole",
    "fan_in_fan_out": "its layers are transposed",
    "layer_replication": "it repeats layers",
    "alora_invocation_tokens": "a text switches it on",
}
_OF_THE_VOCABULARY = {"embed_tokens", "lm_head", "wte", "embed_in", "embed_out"}


def problem(config: dict[str, Any]) -> str:
    """Why vLLM cannot take it as one of `--lora-modules`, in words after a colon; "" if it can.

    Args:
        config: the adapter's `adapter_config.json`.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        return f"it is {kind} instead of LoRA" if kind else "it does not say what kind it is"
    for key, reason in _UNKNOWN.items():
        if config.get(key):
            return reason
    if config.get("bias", "none") != "none":
        return "it changes biases"
    targets = config.get("target_modules")
    if isinstance(targets, list) and _OF_THE_VOCABULARY.intersection(targets):
        return "it changes the vocabulary's layers"
    return "" if _rank(config) <= RANKS[-1] else f"its rank is above {RANKS[-1]}"


def max_lora_rank(config: dict[str, Any]) -> int:
    """What `--max-lora-rank` has to be: one of the few that vLLM knows, 16 if nothing is said."""
    return next((rank for rank in RANKS if rank >= _rank(config)), RANKS[-1])


def _rank(config: dict[str, Any]) -> int:
    rank = config.get("r")
    return rank if isinstance(rank, int) else 8  # PEFT's own
