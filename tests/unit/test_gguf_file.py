"""The head of a GGUF file: read as the library of its inventors writes it, or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from training_backend.data.safe_template import render_here
from training_backend.errors import UserError
from training_backend.export import gguf_file

TEMPLATE = "{{ bos_token }}{% for message in messages %}<{{ message.content }}>{% endfor %}"
ENTRIES: dict[str, Any] = {
    "general.name": "Größe",
    "tokenizer.chat_template": TEMPLATE,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 7,
    "tokenizer.ggml.tokens": ["a", "<s>", "b"],
    "tokenizer.ggml.scores": [0.5, -1.0, 2.0],
    "tokenizer.ggml.add_bos_token": True,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two tensors; the last is of 3 rows, 64 wide, in Q8_0."""
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in ENTRIES.items():
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.add_tensor("first", np.arange(6, dtype=np.float32).reshape(2, 3))
    rows = gguf.quants.quantize(np.ones((3, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("last", rows, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_and_tensors_are_those_that_were_written(file: Path) -> None:
    read = gguf_file.read(file)
    assert read.metadata == {"general.architecture": "llama", **ENTRIES}
    first, last = read.tensors
    assert (first.name, first.shape, first.type) == ("first", (3, 2), 0)
    assert (last.name, last.shape, last.type) == ("last", (64, 3), 8)
    data = file.read_bytes()
    assert data[first.start : first.start + 24] == np.arange(6, dtype=np.float32).tobytes()
    assert read.token_text("bos") == "<s>"
    assert read.token_text("eos") == "", "there is no token 7"


def test_a_chat_is_written_with_the_files_own_template_and_tokens(file: Path) -> None:
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    read = gguf_file.read(file)
    assert render_here(*gguf_file.chat(read, messages)).text == "<s><one><two>"


def test_a_template_that_does_harm_is_refused(file: Path) -> None:
    read = gguf_file.read(file)
    gguf_file.try_template(read)
    broken = "{% for message in messages %}"
    read.metadata["tokenizer.chat_template"] = broken
    with pytest.raises(UserError, match="not a valid one"):
        gguf_file.try_template(read)


def test_a_file_cut_anywhere_is_refused_in_a_sentence(file: Path) -> None:
    whole = file.read_bytes()
    end = gguf_file.read(file).tensors[-1].start + 3 * 2 * 34
    for length in [*range(0, 700, 7), end - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(UserError) as refused:
            gguf_file.read(file)
        assert refused.value.code == "gguf_damaged"
        assert str(file.parent) not in str(refused.value)
    file.write_bytes(whole[:end])
    gguf_file.read(file)


def test_numbers_that_make_no_sense_are_refused_and_never_believed(file: Path) -> None:
    whole = file.read_bytes()
    refused = 0
    for place in range(400):
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            gguf_file.read(file)
        except UserError:
            refused += 1
    assert refused > 100


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UserError, match="does not begin as one does"):
        gguf_file.read(path)
