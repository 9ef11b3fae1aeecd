"""A model's tokenizer: with an end, with padding, and no larger than the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model_files import VOCABULARY, model_files
from training_backend.errors import UserError
from training_backend.models.tokenizer import load_tokenizer


def model(folder: Path, add: dict[str, int] | None = None, **told: Any) -> Path:
    """A model's folder: more tokens by name and number, and other words in the tokenizer's
    configuration (None takes one out)."""
    files = model_files()
    tokenizer = json.loads(files["tokenizer.json"])
    if VOCABULARY in (add or {}).values():  # numbers are given without a gap
        add = {**{f"<{n}>": n for n in range(258, VOCABULARY)}, **(add or {})}
    for token, number in (add or {}).items():
        entry = {**tokenizer["added_tokens"][0], "id": number, "content": token}
        tokenizer["added_tokens"].append(entry)
    files["tokenizer.json"] = json.dumps(tokenizer).encode()
    config = {**json.loads(files["tokenizer_config.json"]), **told}
    config = {key: value for key, value in config.items() if value is not None}
    files["tokenizer_config.json"] = json.dumps(config).encode()
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        load_tokenizer(folder)
    assert caught.value.field == "model.id" and caught.value.remedy
    return caught.value


def test_without_a_padding_token_the_end_pads(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model(tmp_path))
    assert tokenizer.eos_token == tokenizer.pad_token == "</s>"
    own = load_tokenizer(model(tmp_path, {"<pad>": 258}, pad_token="<pad>"))
    assert (own.eos_token, own.pad_token) == ("</s>", "<pad>")


def test_an_end_that_only_the_models_configuration_names_is_taken(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model(tmp_path, eos_token=None))
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("</s>", 257)


def test_without_any_end_the_model_would_never_stop(tmp_path: Path) -> None:
    folder = model(tmp_path, eos_token=None)
    config = json.loads((folder / "config.json").read_text())
    del config["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(config))
    error = refused(folder)
    assert error.code == "tokenizer_without_end"
    assert "never" in error.message and "eos_token" in error.remedy


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "tokenizer.json").unlink()
    assert refused(folder).code == "model_tokenizer_missing"


def test_a_broken_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    error = refused(folder)
    assert error.code == "model_unloadable"
    assert "\n" not in error.message


def test_a_token_beyond_the_weights_that_text_meets_is_refused(tmp_path: Path) -> None:
    used = "{{ messages }}<|new|>"
    error = refused(model(tmp_path, {"<|new|>": VOCABULARY}, chat_template=used))
    assert error.code == "tokenizer_too_large"
    assert "<|new|>" in error.message and str(VOCABULARY) in error.message
    assert refused(model(tmp_path, {"<|end|>": VOCABULARY}, eos_token="<|end|>")).code == error.code


def test_a_token_beyond_the_weights_that_never_comes_up_is_left_alone(tmp_path: Path) -> None:
    load_tokenizer(model(tmp_path, {"<image>": VOCABULARY}))
    tokenizer = load_tokenizer(model(tmp_path, {"<pad>": VOCABULARY}, pad_token="<pad>"))
    assert tokenizer.pad_token == "</s>"
