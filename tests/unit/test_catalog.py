"""Which base models are offered, and what each wrong one is told."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from training_backend.catalog import list_models, resolve_model
from training_backend.errors import UserError
from training_backend.model_folder import read_model_config

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def make_model(folder: Path, config: dict[str, Any] = LLAMA, weights: bool = True) -> Path:
    """A folder that looks like a model of 12 parameters."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        write_safetensors(folder / "model.safetensors")
    return folder


def write_safetensors(path: Path) -> None:
    tensor = {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}
    head = json.dumps({"__metadata__": {"format": "pt"}, "w": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(24))


def refused(id: object) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve_model(str(id))
    assert caught.value.field == "model.id"
    assert caught.value.remedy
    return caught.value


def test_the_demo_model_is_first_even_before_it_is_here(
    lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-cache"))
    (demo,) = list_models()
    assert demo.id == "demo"
    assert demo.location is None
    assert refused("demo").code == "demo_model_not_ready"


def test_a_prepared_demo_model_is_offered_and_resolved(lorasmith_home: Path) -> None:
    folder = make_model(lorasmith_home / "models" / "SmolLM2-135M-Instruct")
    assert refused("demo").code == "demo_model_not_ready"  # its tokenizer is missing
    (folder / "tokenizer.json").write_text("{}")
    assert list_models()[0].location == folder
    assert resolve_model("demo") == resolve_model("smollm2-demo") == folder


def test_fitting_models_in_the_hub_cache_are_found(
    lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def cached(name: str, config: dict[str, Any] = LLAMA, weights: bool = True) -> Path:
        repo = tmp_path / ("models--" + name.replace("/", "--"))
        (repo / "refs").mkdir(parents=True)
        (repo / "refs" / "main").write_text("0123abc")
        return make_model(repo / "snapshots" / "0123abc", config, weights)

    good = cached("Acme/Writer--2")
    (good / "README.md").write_text("---\nlanguage: en\nlicense: 'mit'\n---\n# Writer\n")
    cached("acme/encoder", {"architectures": ["BertForMaskedLM"]})
    cached("acme/not-downloaded", weights=False)
    parts = cached("acme/half-downloaded", weights=False)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (parts / "model.safetensors.index.json").write_text(json.dumps(index))
    write_safetensors(parts / "model-1.safetensors")
    (tmp_path / "models--acme--empty").mkdir()
    (tmp_path / "datasets--acme--rows").mkdir()

    _, found = list_models()
    assert found.id == "Acme/Writer--2"
    assert found.location == good
    assert found.parameters == 12
    assert found.licence == "mit"
    assert found.size_bytes == (good / "model.safetensors").stat().st_size

    write_safetensors(parts / "model-2.safetensors")
    entries = {entry.id: entry for entry in list_models()}
    assert entries["acme/half-downloaded"].parameters == 24


def test_a_sound_folder_is_taken_as_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    assert resolve_model(str(folder)) == folder
    assert resolve_model("models/mine") == folder  # a folder goes before a Hub id


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", " a/b.c_d "])
def test_owner_and_name_is_a_hub_id(name: str) -> None:
    assert resolve_model(name) == name.strip()


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "~/nowhere/model", "a/b/c", "C:\\m"])
def test_a_missing_folder_is_named(name: str) -> None:
    error = refused(name)
    assert error.code == "model_folder_missing"
    assert str(Path(name).expanduser().absolute()) in error.message


@pytest.mark.parametrize(
    "name", ["", "gpt2", "own er/name", "owner/../name", "{0}", "~nobody-here/x", "a" * 5000]
)
def test_anything_else_is_refused(name: str) -> None:
    assert refused(name).code in ("model_unknown", "model_folder_missing")


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert "is a file" in refused(tmp_path / "model.gguf").message


def test_a_folder_without_config(tmp_path: Path) -> None:
    assert f"There is no config.json in {tmp_path}." in refused(tmp_path).message
    (tmp_path / "adapter_config.json").write_text("{}")
    assert refused(tmp_path).code == "model_is_an_adapter"


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_a_broken_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    error = refused(tmp_path)
    assert error.code == "model_config_broken"
    assert "config.json" in error.message


@pytest.mark.parametrize(
    ("name", "remedy"), [("pytorch_model.bin", "run programs"), ("model.gguf", "GGUF")]
)
def test_weights_of_the_wrong_kind_are_named(tmp_path: Path, name: str, remedy: str) -> None:
    folder = make_model(tmp_path / "m", weights=False)
    assert refused(folder).code == "model_weights_missing"
    (folder / name).write_bytes(b"x")
    error = refused(folder)
    assert name in error.message
    assert remedy in error.remedy


def test_a_missing_part_of_the_weights_is_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", weights=False)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_safetensors(folder / "model-1.safetensors")
    assert "model-2.safetensors is missing" in refused(folder).message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM, an encoder"),
        ({"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}, "images"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "transl"),
        ({"model_type": "llama"}, "nothing about its architecture"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "quantised already (GPTQ)"),
        ({**LLAMA, "quantization_config": {"quant_method": "awq"}}, "quantised already (AWQ)"),
    ],
)
def test_models_that_cannot_be_tuned_are_told_why(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    folder = make_model(tmp_path / "m", config)
    assert words in refused(folder).message
    with pytest.raises(UserError):
        read_model_config(folder)
