"""The file that tells Ollama what a GGUF file is: its template, and where an answer ends.

Ollama leaves the Jinja template in a GGUF file alone, and joins texts as it guesses or not at
all: a model that answers well elsewhere then writes rubbish.

Format: https://docs.ollama.com/modelfile
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export import gguf_file, ollama_template
from training_backend.export.gguf_file import GgufFile
from training_backend.export.ollama_template import NotExpressible, Shape
from training_backend.files import write_text_atomic

NAME = "Modelfile"

_CONTROL, _USER_DEFINED = 3, 4  # of `enum llama_token_type`
_ENDS = ("eos", "eot", "eom")
_BEGINS_BY_ITSELF = ("llama", "bert")  # kinds of tokenizers, where the file does not say it
# How the converter calls what stood in generation_config.json, and how Ollama does.
_PARAMETERS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repeat_penalty",
}


@dataclass(frozen=True)
class Modelfile:
    """Its text, and why there is no template in it, where there is none."""

    text: str
    problem: UserError | None


def write(gguf: Path, generation_config: Path | None = None) -> UserError | None:
    """Write the Modelfile of a GGUF file beside it.

    Args:
        generation_config: of the same model; names more tokens that end an answer.

    Returns why Ollama is not told the chat template, where it is not. Raises `UserError` for a
    damaged GGUF file and for a name that no Modelfile can hold; `OSError`.
    """
    if not gguf.name.isprintable():
        raise UserError(
            "gguf_name_unprintable",
            "The name of the GGUF file in {folder} has signs that cannot be seen.",
            "Rename the file.",
            folder=gguf.parent,
        )
    file = gguf_file.read(gguf)
    made = compose(file, list(_named_ends(file, generation_config)))
    write_text_atomic(gguf.with_name(NAME), made.text)
    return made.problem


def compose(file: GgufFile, ends: Sequence[str] = ()) -> Modelfile:
    """The Modelfile of a GGUF file in the same folder.

    Args:
        ends: texts of tokens that end an answer, beside those that the file and its template name.
    """
    shape, problem = _shape(file)
    lines = ["# How Ollama is to use the model.  ollama create NAME -f Modelfile"]
    if problem is not None:
        lines.append(f"# {' '.join(str(problem).split())}")  # one line, whatever a template says
    lines.append(f"FROM ./{file.path.name}")
    if shape is not None:
        lines += ["", f'TEMPLATE """{ollama_template.go_template(_as_engine(shape, file))}"""', ""]
    stops = [_after_answer(shape, file), *(file.token_text(which) for which in _ENDS), *ends]
    for stop in dict.fromkeys(stops):
        if not _can_stand_quoted(stop):
            continue
        mark = '"""' if '"' in stop else '"'
        lines.append(f"PARAMETER stop {mark}{stop}{mark}")
    for key, name in _PARAMETERS.items():
        value = file.metadata.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            lines.append(f"PARAMETER {name} {value:.6g}")
    return Modelfile("\n".join(lines) + "\n", problem)


def _shape(file: GgufFile) -> tuple[Shape | None, UserError | None]:
    if not file.template:
        return None, UserError(
            "ollama_no_template",
            "The model has no chat template, so Ollama lets it go on with a text.",
        )
    variables = {f"{which}_token": file.token_text(which) for which in ("bos", "eos", "unknown")}
    variables["unk_token"] = variables.pop("unknown_token")
    try:
        return ollama_template.find_shape(file.template, variables), None
    except (NotExpressible, UserError) as error:
        reason = str(error) if isinstance(error, NotExpressible) else error.message.rstrip(".")
        reason = reason[:1].lower() + reason[1:]
        return None, UserError(
            "ollama_template_left_out",
            "Ollama cannot be given this model's chat template: {reason}.",
            "Its answers would be poor there. Use llama.cpp or LM Studio, which read the template "
            "in the file itself.",
            reason=reason,
        )


def _as_engine(shape: Shape, file: GgufFile) -> Shape:
    """Without the first token, where the engine puts it before every text: it would be doubled."""
    adds = file.metadata.get("tokenizer.ggml.add_bos_token")
    if adds is None:
        adds = file.metadata.get("tokenizer.ggml.model") in _BEGINS_BY_ITSELF
    return shape.without(file.token_text("bos")) if adds else shape


def _after_answer(shape: Shape | None, file: GgufFile) -> str:
    """What the template writes right after an answer: the token, else its first line."""
    if shape is None:
        return ""
    written = shape.assistant_user.lstrip()
    tokens = file.metadata.get("tokenizer.ggml.tokens") or []
    kinds = file.metadata.get("tokenizer.ggml.token_type") or []
    special = [
        token
        for token, kind in zip(tokens, kinds, strict=False)
        if kind in (_CONTROL, _USER_DEFINED) and token and written.startswith(token)
    ]
    return max(special, key=len) if special else written.partition("\n")[0].rstrip()


def _can_stand_quoted(text: str) -> bool:
    """Whether a text from the file says nothing but itself between quotation marks."""
    plain = all(sign.isprintable() or sign in "\n\t" for sign in text)
    return bool(text) and plain and '"""' not in text


def _named_ends(file: GgufFile, generation_config: Path | None) -> Iterator[str]:
    """The tokens that `generation_config.json` names as ends."""
    if generation_config is None:
        return
    try:
        ids: Any = json.loads(generation_config.read_text(encoding="utf-8"))["eos_token_id"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    tokens = file.metadata.get("tokenizer.ggml.tokens") or []
    for place in ids if isinstance(ids, list) else [ids]:
        if isinstance(place, int) and 0 <= place < len(tokens):
            yield str(tokens[place])
