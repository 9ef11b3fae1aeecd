"""llama.cpp in a process of its own: `python llama_engine.py FILE.gguf WORK.json LOGITS.npy`.

WORK.json is `{"texts": […], "prompts": […], "sequences": [[token id, …], …]}`, and perhaps the
path of an `adapter`. Prints the token ids of the texts, read as a user's words, and of the
prompts, read as chats.
LOGITS.npy gets a float32 array [all tokens of all sequences, vocabulary].
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np


def main(file: str, work: str, logits: str) -> None:
    from training_backend.export.gguf_engine import Engine

    os.environ["OMP_NUM_THREADS"] = "1"
    asked = json.loads(Path(work).read_text(encoding="utf-8"))
    adapter = Path(asked["adapter"]) if "adapter" in asked else None
    with Engine(Path(file), adapter=adapter, context=512) as engine:
        told = {
            "texts": [engine.read(text, is_chat=False) for text in asked["texts"]],
            "prompts": [engine.read(text, is_chat=True) for text in asked["prompts"]],
            "adds_bos": engine.adds_bos,
        }
        rows = [engine.logits(sequence, len(sequence)) for sequence in asked["sequences"]]
        np.save(logits, np.concatenate(rows))
    print(json.dumps(told))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(*sys.argv[1:])
