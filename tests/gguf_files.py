"""Small GGUF files: a head, as the converter writes it, and one tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

CHATML = Path(__file__).with_name("assets") / "chat_templates" / "chatml.jinja"

# Texts and kinds of the tokens: 1 is a piece of text, 3 is one that steers.
TOKENS = {
    "<unk>": 2, "<s>": 3, "</s>": 3, "<|im_start|>": 3, "<|im_end|>": 3, "hello": 1, "<": 1,
}  # fmt: skip


def write_gguf(path: Path, template: str | None = None, **more: Any) -> Path:
    """A file with the tokens above; `more` are entries, with __ for dots."""
    entries: dict[str, Any] = {
        "general.type": "model",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.tokens": list(TOKENS),
        "tokenizer.ggml.token_type": list(TOKENS.values()),
        "tokenizer.chat_template": CHATML.read_text("utf-8") if template is None else template,
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in entries.items():
        match value:
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case list():
                writer.add_array(name, value)
            case _:
                writer.add_string(name, value)
    writer.add_tensor("one", np.ones((4, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
