"""The token that closes an answer is named as an end in what is exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training_backend.export.ends import GENERATION, name_end

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
WITH_EOS = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}{{ eos_token }}"


def model(folder: Path, template: str | None, generation: Any, **config: Any) -> Path:
    added = [(0, "<|endoftext|>"), (1, "<|im_start|>"), (2, "<|im_end|>"), (3, "<|im_end|>x")]
    tokens = [{"id": id, "content": text, "special": True} for id, text in added]
    files: dict[str, Any] = {
        "tokenizer.json": {"added_tokens": tokens},
        "tokenizer_config.json": {"eos_token": {"content": "<|endoftext|>"}, "bos_token": None},
        "config.json": config,
    }
    if generation is not None:
        files[GENERATION] = generation
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def generation(folder: Path) -> Any:
    file = folder / GENERATION
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


@pytest.mark.parametrize(
    ("template", "before", "after"),
    [
        (CHATML, {"eos_token_id": 0, "top_p": 0.8}, {"eos_token_id": [0, 2], "top_p": 0.8}),
        (CHATML, {"eos_token_id": [0, 1]}, {"eos_token_id": [0, 1, 2]}),
        (CHATML, {"top_p": 0.8}, {"eos_token_id": [2], "top_p": 0.8}),
        (CHATML, {"eos_token_id": 2}, {"eos_token_id": 2}),
        (WITH_EOS, {"eos_token_id": 2}, {"eos_token_id": [2, 0]}),
        ("{{ messages[-1].content }} over", {"eos_token_id": 0}, {"eos_token_id": 0}),
        ("{{ raise_exception('no') }}", {"eos_token_id": 0}, {"eos_token_id": 0}),
        ("{% no template", {"eos_token_id": 0}, {"eos_token_id": 0}),
        (None, {"eos_token_id": 0}, {"eos_token_id": 0}),
    ],
)
def test_the_closing_token_becomes_an_end(
    tmp_path: Path, template: str | None, before: Any, after: Any
) -> None:
    folder = model(tmp_path, template, before)
    name_end(folder)
    assert generation(folder) == after


def test_what_the_config_names_stays_an_end(tmp_path: Path) -> None:
    folder = model(tmp_path, CHATML, None, bos_token_id=1, eos_token_id=0, hidden_size=8)
    name_end(folder)
    assert generation(folder) == {"bos_token_id": 1, "eos_token_id": [0, 2]}


def test_a_template_within_the_tokenizers_settings_counts_too(tmp_path: Path) -> None:
    folder = model(tmp_path, None, {"eos_token_id": 0})
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    name_end(folder)
    assert generation(folder) == {"eos_token_id": [0, 2]}
