"""llama.cpp in a process of its own: `python llama_engine.py FILE.gguf WORK.json LOGITS.npy`.

WORK.json is `{"texts": […], "prompts": […], "sequences": [[token id, …], …]}`. Prints the token
ids of the texts, read as a user's words, and of the prompts, read with their special tokens.
LOGITS.npy gets a float32 array [all tokens of all sequences, vocabulary].
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def main(file: str, work: str, logits: str) -> None:
    from ik_llama_cpp import _internals as llama

    asked = json.loads(Path(work).read_text(encoding="utf-8"))
    model = llama.IkModel(file)
    told = {
        "texts": [model.tokenize(text, add_bos=True, special=False) for text in asked["texts"]],
        "prompts": [model.tokenize(text, add_bos=False, special=True) for text in asked["prompts"]],
        "with_ends": [
            model.tokenize(text, add_bos=True, special=True) for text in asked["prompts"]
        ],
    }
    rows = []
    for sequence in asked["sequences"]:
        context = llama.IkContext(model, n_ctx=512, n_threads=1, flash_attn=False)
        batch = llama.make_batch(sequence)
        for place in range(len(sequence)):
            batch.logits[place] = 1
        assert context.decode(batch) == 0
        for place in range(len(sequence)):
            row = np.ctypeslib.as_array(context.get_logits(place), (model.n_vocab,))
            rows.append(row.astype(np.float32))
        context.close()
    np.save(logits, np.array(rows, np.float32))
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
