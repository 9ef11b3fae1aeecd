"""Which chat templates Ollama can be given: all that TRL carries, tried one by one.

    python tests/benchmarks/template_bench.py

Each is put into Ollama's language and held against its own Jinja on six chats. Takes a minute.
"""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from training_backend.errors import UserError
from training_backend.export import ollama_template
from training_backend.export.ollama_template import NotExpressible

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def main() -> None:
    trl = util.find_spec("trl")
    assert trl is not None and trl.origin is not None
    files = sorted(Path(trl.origin).with_name("chat_templates").glob("*.jinja"))
    given = unusable = 0
    for file in files:
        try:
            ollama_template.find_shape(file.read_text("utf-8"), TOKENS)
            given += 1
        except UserError as error:  # no text model's: it cannot be trained with here, either
            unusable += 1
            print(f"{file.stem}: {error.message}")
        except NotExpressible as error:
            print(f"{file.stem}: {error}")
    print(f"{len(files)} templates, {unusable} not for text; Ollama can be given {given}.")


if __name__ == "__main__":
    main()
