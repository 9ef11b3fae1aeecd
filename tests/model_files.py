"""The files of a model of a few hundred kilobytes, made without torch."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

VOCABULARY, WIDTH, LAYERS = 320, 64, 8

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "dtype": "bfloat16",
}


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of CONFIG as transformers names them."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        for part in "qkvo":
            found[f"{name}self_attn.{part}_proj.weight"] = (WIDTH, WIDTH)
        found[f"{name}mlp.gate_proj.weight"] = (2 * WIDTH, WIDTH)
        found[f"{name}mlp.up_proj.weight"] = (2 * WIDTH, WIDTH)
        found[f"{name}mlp.down_proj.weight"] = (WIDTH, 2 * WIDTH)
        found[f"{name}input_layernorm.weight"] = (WIDTH,)
        found[f"{name}post_attention_layernorm.weight"] = (WIDTH,)
    found["model.norm.weight"] = (WIDTH,)
    return found


def safetensors(tensors: dict[str, tuple[int, ...]], rng: random.Random) -> bytes:
    """A file of bfloat16 tensors between -0.06 and 0.06."""
    head: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in tensors.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        head[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    numbers = bytearray(rng.randbytes(offset))
    # The upper byte of a bfloat16: sign and most of the exponent.
    numbers[1::2] = bytes(rng.choices((0x3C, 0x3D, 0xBC, 0xBD), k=offset // 2))
    return struct.pack("<Q", len(text)) + text + bytes(numbers)


def tokenizer_json() -> bytes:
    """A tokenizer of bytes, with a beginning and an end."""
    alphabet = [*range(33, 127), *range(161, 173), *range(174, 256)]
    signs = [chr(byte) for byte in alphabet] + [chr(256 + n) for n in range(256 - len(alphabet))]
    special = [
        {"id": 256 + n, "content": text, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for n, text in enumerate(("<s>", "</s>"))
    ]  # fmt: skip
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": None, "post_processor": None,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True
        },
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True
        },
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": {sign: n for n, sign in enumerate(signs)}, "merges": [],
        },
    }  # fmt: skip
    return json.dumps(document).encode()


TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}</s>{% endfor %}"
)


def model_files(seed: int = 0, shards: int = 1, **config: Any) -> dict[str, bytes]:
    """Every file of the model by name; keyword arguments change its config.json."""
    rng = random.Random(seed)
    files = {
        "config.json": json.dumps({**CONFIG, **config}).encode(),
        "tokenizer.json": tokenizer_json(),
        "tokenizer_config.json": json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<s>",
                "eos_token": "</s>",
                "chat_template": TEMPLATE,
            }
        ).encode(),
        "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny\n",
    }
    tensors = shapes()
    if shards == 1:
        return {**files, "model.safetensors": safetensors(tensors, rng)}
    weight_map = {}
    names = list(tensors)
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        mine = names[number::shards]
        files[file] = safetensors({name: tensors[name] for name in mine}, rng)
        weight_map.update(dict.fromkeys(mine, file))
    index = {"metadata": {}, "weight_map": weight_map}
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}
