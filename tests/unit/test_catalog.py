"""Which base models are offered, and what each wrong one is told."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from training_backend import preferences
from training_backend.catalog import CatalogEntry, describe_model, list_models, resolve_model
from training_backend.errors import UserError
from training_backend.models.model_folder import read_model_config
from training_backend.preferences import Preferences

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def make_model(folder: Path, config: dict[str, Any] = LLAMA, weights: bool = True) -> Path:
    """A folder that looks like a model of 12 parameters."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        write_safetensors(folder / "model.safetensors")
    return folder


def write_safetensors(path: Path, name: str = "w") -> None:
    tensor = {"dtype": "BF16", "shape": [3, 4], "data_offsets": [0, 24]}
    head = json.dumps({"__metadata__": {"format": "pt"}, name: tensor}).encode()
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
    demo, *others = list_models()
    assert (demo.id, demo.source, demo.location) == ("demo", "demo", None)
    assert {entry.source for entry in others} == {"catalogue"}
    assert refused("demo").code == "demo_model_not_ready"


def test_a_prepared_demo_model_is_offered_and_resolved(lorasmith_home: Path) -> None:
    folder = make_model(lorasmith_home / "models" / "SmolLM2-135M-Instruct")
    assert refused("demo").code == "demo_model_not_ready"  # its tokenizer is missing
    (folder / "tokenizer.json").write_text("{}")
    assert list_models()[0].location == folder
    assert resolve_model("demo") == resolve_model("smollm2-demo") == folder


def cached(cache: Path, name: str, config: dict[str, Any] = LLAMA, weights: bool = True) -> Path:
    """A model as huggingface_hub keeps it; returns the folder with its files."""
    repo = cache / ("models--" + name.replace("/", "--"))
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0123abc")
    return make_model(repo / "snapshots" / "0123abc", config, weights)


@pytest.fixture
def cache(lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


def in_cache() -> dict[str, CatalogEntry]:
    return {entry.id: entry for entry in list_models() if entry.source == "cache"}


def test_fitting_models_in_the_hub_cache_are_found(cache: Path) -> None:
    config = {**LLAMA, "max_position_embeddings": 4096}
    good = cached(cache, "Acme/Llama-Writer", config)
    (good / "README.md").write_text("---\nlanguage: en\nlicense: 'mit'\n---\n# Writer\n")
    (good / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    (cache / "models--acme--empty").mkdir()
    (cache / "datasets--acme--rows").mkdir()

    (found,) = in_cache().values()
    assert list_models()[1] == describe_model("Acme/Llama-Writer") == found
    assert (found.id, found.location) == ("Acme/Llama-Writer", good)
    assert (found.parameters, found.licence, found.family) == (12, "mit", "Llama")
    assert found.licence_note.startswith("MIT License:")
    assert (found.context_length, found.chat_template) == (4096, True)
    assert found.size_bytes == (good / "model.safetensors").stat().st_size
    assert found.problem == ""


def test_a_half_downloaded_model_can_be_chosen_and_is_not_here(cache: Path) -> None:
    parts = cached(cache, "acme/half", weights=False)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (parts / "model.safetensors.index.json").write_text(json.dumps(index))
    write_safetensors(parts / "model-1.safetensors", "a")
    cached(cache, "acme/config-only", weights=False)
    for name in ("acme/half", "acme/config-only"):
        half = in_cache()[name]
        assert half == describe_model(name)
        assert (half.location, half.size_bytes, half.problem) == (None, None, "")
        assert "rest is downloaded" in half.description

    write_safetensors(parts / "model-2.safetensors", "b")
    assert in_cache()["acme/half"].parameters == 24
    assert in_cache()["acme/half"].location == parts


def test_what_cannot_be_trained_stands_last_with_the_reason(cache: Path) -> None:
    gptq = {**LLAMA, "quantization_config": {"quant_method": "gptq"}}
    vision = {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}
    cached(cache, "acme/encoder", {"architectures": ["BertForMaskedLM"]})
    cached(cache, "acme/packed", gptq)
    cached(cache, "acme/seeing", vision)
    cached(cache, "acme/writer")
    unsafe = cached(cache, "acme/pickled", weights=False)
    (unsafe / "pytorch_model.bin").write_bytes(b"x")
    for name, file in (("acme/gguf", "model.Q4.gguf"), ("acme/painter", "model_index.json")):
        folder = cached(cache, name, weights=False)
        (folder / "config.json").unlink()
        (folder / file).write_bytes(b"{}")

    assert [entry.id for entry in list_models()[-6:]] == [
        f"acme/{name}" for name in ("encoder", "gguf", "packed", "painter", "pickled", "seeing")
    ]
    problems = {entry.id: entry.problem for entry in list_models() if entry.problem}
    assert "encoder that reads" in problems["acme/encoder"]
    assert problems["acme/packed"] == "It is quantised already (GPTQ)."
    assert "images" in problems["acme/seeing"]
    assert "GGUF" in problems["acme/gguf"]
    assert "pictures" in problems["acme/painter"]
    assert "pytorch_model.bin" in problems["acme/pickled"]
    assert not any(str(cache) in problem for problem in problems.values())


def test_a_catalogue_model_in_the_cache_is_listed_once_as_here(cache: Path) -> None:
    name = "Qwen/Qwen3-0.6B"
    assert describe_model(name).source == "catalogue"
    folder = cached(cache, name)
    (entry,) = [entry for entry in list_models() if entry.id == name]
    assert (entry.source, entry.location, entry.title) == ("cache", folder, "Qwen3 0.6B")
    assert entry.parameters == 596_049_920
    assert describe_model(name) == entry
    (folder / "model.safetensors").unlink()  # only a part of it is left
    (entry,) = [entry for entry in list_models() if entry.id == name]
    assert (entry.source, entry.location) == ("catalogue", None)


def test_the_folder_that_the_person_chose_for_models_is_searched_too(
    cache: Path, tmp_path: Path
) -> None:
    cached(cache, "acme/here")
    cached(tmp_path / "big-drive", "acme/there")
    preferences.save(Preferences(models_folder=str(tmp_path / "big-drive")))
    assert set(in_cache()) == {"acme/here", "acme/there"}


def test_an_adapter_folder_names_its_base_model(cache: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": "acme/base", "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    entry = describe_model(str(adapter))
    assert (entry.adapter_of, entry.location) == ("acme/base", adapter)
    assert entry.problem


def test_an_entry_survives_the_way_to_another_process(cache: Path) -> None:
    for entry in (*list_models(), describe_model(str(cached(cache, "acme/writer")))):
        document = json.loads(json.dumps(entry.to_json()))
        assert CatalogEntry.from_json(document) == entry


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


def test_an_address_elsewhere_is_not_taken_for_a_folder() -> None:
    with pytest.raises(UserError) as caught:
        resolve_model("https://example.org/../owner/name")
    assert caught.value.code == "model_is_an_address"
    assert "owner/name" in caught.value.remedy
