"""A tokenizer of bytes, made in no time, for tests that need tokens but no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parents[1] / "tests" / "assets" / "chat_templates"


def byte_tokenizer(family: str | None = "chatml") -> Any:
    """One token a byte, beside the special ones of ChatML; with or without a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({sign: number for number, sign in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    tokenizer.add_special_tokens(
        {"bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<pad>"}
    )
    tokenizer.add_tokens(["<|im_start|>"], special_tokens=True)
    if family is not None:
        tokenizer.chat_template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    return tokenizer
