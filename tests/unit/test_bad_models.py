"""Every model folder that cannot be trained is told so before anything heavy is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.model_files import CONFIG, model_files
from training_backend.catalog import resolve_model
from training_backend.errors import UserError
from training_backend.models.model_folder import check_model_folder
from training_backend.models.model_kinds import without_code

WEIGHTS = "model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 706848\n"


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def refused(folder: Path) -> UserError:
    with pytest.raises(UserError) as caught:
        resolve_model(str(folder))
    error = caught.value
    assert error.field == "model.id"
    assert error.message.endswith(".") and error.remedy.endswith(".")
    return error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model."""
    return write(tmp_path / "model", model_files())


def reconfigure(folder: Path, **changes: Any) -> None:
    config = {**CONFIG, **changes}
    (folder / "config.json").write_text(json.dumps(config))


def test_a_sound_folder_passes(folder: Path, tmp_path: Path) -> None:
    check_model_folder(folder)
    check_model_folder(write(tmp_path / "shards", model_files(shards=3)))


def test_a_pointer_of_git_lfs_is_not_taken_for_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(POINTER)
    error = refused(folder)
    assert error.code == "model_lfs_pointer"
    assert WEIGHTS in error.message and "git lfs pull" in error.remedy


def test_a_configuration_that_is_a_pointer_is_named_so(folder: Path) -> None:
    (folder / "config.json").write_bytes(POINTER)
    assert "Git LFS pointer" in refused(folder).message


@pytest.mark.parametrize("kept", [0, 7, 100, 50_000])
def test_a_file_that_was_cut_off_is_named(folder: Path, kept: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:kept])
    error = refused(folder)
    assert error.code == ("model_weights_truncated" if kept > 20_000 else "model_weights_damaged")
    assert WEIGHTS in error.message


def test_a_cut_off_part_among_several_is_found_by_its_head(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", model_files(shards=3))
    part = folder / "model-00002-of-00003.safetensors"
    size = part.stat().st_size
    part.write_bytes(part.read_bytes()[:-1])
    error = refused(folder)
    assert part.name in error.message
    assert f"{size:,}" in error.message and f"{size - 1:,}" in error.message


def test_bytes_too_many_are_damage_too(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")
    assert refused(folder).code == "model_weights_truncated"


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", model_files(shards=3))
    (folder / "model-00003-of-00003.safetensors").unlink()
    error = refused(folder)
    assert error.code == "model_incomplete"
    assert "model-00003-of-00003.safetensors is missing" in error.message


def test_a_part_of_another_model_is_noticed(tmp_path: Path) -> None:
    files = model_files(shards=3)
    files["model-00002-of-00003.safetensors"] = files["model-00001-of-00003.safetensors"]
    error = refused(write(tmp_path / "m", files))
    assert error.code == "model_incomplete"
    assert "lack" in error.message


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"weight_map": 3}', b'{"weight_map": {}}'])
def test_a_broken_index_is_no_model(tmp_path: Path, index: bytes) -> None:
    files = {**model_files(shards=2), "model.safetensors.index.json": index}
    assert refused(write(tmp_path / "m", files)).code == "model_weights_missing"


def test_an_index_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, {"outside.safetensors": model_files()[WEIGHTS]})
    index = {"weight_map": {"model.norm.weight": "../outside.safetensors"}}
    files = {**model_files(shards=2), "model.safetensors.index.json": json.dumps(index).encode()}
    assert refused(write(tmp_path / "m", files)).code == "model_weights_missing"


def test_pickled_weights_alone_are_refused_for_what_they_can_do(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    error = refused(folder)
    assert error.code == "model_weights_unsafe"
    assert "pytorch_model.bin" in error.message and "run programs" in error.remedy


def test_weights_in_the_layout_of_their_makers_are_named(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "consolidated.safetensors")
    error = refused(folder)
    assert error.code == "model_weights_elsewhere"
    assert "consolidated.safetensors" in error.message
    (folder / "consolidated.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert refused(folder).code == "model_weights_missing"  # as if half downloaded


@pytest.mark.parametrize("with_config", [True, False])
def test_a_gguf_alone_is_told_from_a_folder_without_config(
    tmp_path: Path, with_config: bool
) -> None:
    files = {"Mistral-7B-Instruct-v0.3.Q4_K_M.gguf": b"GGUF", "README.md": b""}
    if with_config:
        files["config.json"] = json.dumps(CONFIG).encode()
    error = refused(write(tmp_path / "Mistral-7B-Instruct-v0.3-GGUF", files))
    assert error.code == "model_is_gguf"
    assert "Q4_K_M.gguf" in error.message
    assert "mistralai/Mistral-7B-Instruct-v0.3" in error.remedy


@pytest.mark.parametrize(
    ("keys", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ"),
        ({"quantization_config": {"quant_method": "awq"}}, "AWQ"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "BITSANDBYTES"),
        ({"quantization_config": {"quant_method": "fp8"}}, "FP8"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "MXFP4"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "COMPRESSED-TENSORS"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX"),
    ],
)
def test_a_quantised_model_names_its_method_and_the_nearest_original(
    tmp_path: Path, keys: dict[str, Any], method: str
) -> None:
    folder = write(tmp_path / "Mistral-7B-Instruct-v0.3-packed", model_files(**keys))
    error = refused(folder)
    assert error.code == "model_quantised_already"
    assert f"({method})" in error.message
    assert "mistralai/Mistral-7B-Instruct-v0.3" in error.remedy


@pytest.mark.parametrize("value", [None, {}])
def test_an_empty_word_on_quantisation_means_none(folder: Path, value: object) -> None:
    reconfigure(folder, quantization_config=value)
    check_model_folder(folder)


def test_eight_bit_floats_are_quantised_whatever_the_config_says(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    for name, tensor in head.items():
        if name != "__metadata__":
            tensor["dtype"] = "F8_E4M3"
    text = json.dumps(head).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert "(FP8)" in refused(folder).message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "encoder"),
        ({"architectures": ["BertModel"], "model_type": "bert"}, "encoder"),
        (
            {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}},
            "images or sound",
        ),
        ({"architectures": ["Phi4MMForCausalLM"], "audio_config": {}}, "images or sound"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "translat"),
        ({"architectures": []}, "nothing about its architecture"),
    ],
)
def test_a_model_of_another_kind_is_told_what_it_is(
    folder: Path, keys: dict[str, Any], words: str
) -> None:
    reconfigure(folder, **keys)
    error = refused(folder)
    assert error.code == "model_not_causal"
    assert words in error.message


def test_a_picture_model_in_a_family_with_text_models_names_one(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"architectures": ["Qwen2VLForConditionalGeneration"]}
    folder = write(tmp_path / "Qwen2-VL-7B-Instruct", model_files(vision_config={}, **keys))
    assert "Qwen/Qwen" in refused(folder).remedy


def test_pictures_makers_and_adapters_are_no_base_models(tmp_path: Path) -> None:
    painter = write(tmp_path / "painter", {"model_index.json": b"{}"})
    assert "pictures" in refused(painter).message
    adapter = write(tmp_path / "adapter", {"adapter_config.json": b"{}"})
    assert refused(adapter).code == "model_is_an_adapter"


def test_program_code_is_needed_only_by_kinds_that_transformers_does_not_know(
    folder: Path,
) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    reconfigure(folder, auto_map=auto_map)  # a llama with code beside it: the code is left alone
    check_model_folder(folder)
    reconfigure(folder, auto_map=auto_map, model_type="evil", architectures=["EvilForCausalLM"])
    error = refused(folder)
    assert error.code == "model_needs_code"
    assert "never run" in error.message
    reconfigure(folder, model_type="llama9", architectures=["Llama9ForCausalLM"])
    assert refused(folder).code == "model_type_unknown"


def test_config_and_weights_of_different_vocabularies_do_not_fit(folder: Path) -> None:
    reconfigure(folder, vocab_size=321)
    error = refused(folder)
    assert error.code == "model_vocabulary_differs"
    assert "321" in error.message and "320" in error.message


def test_keys_that_could_bring_in_code_are_taken_out_at_any_depth() -> None:
    kernels = {"attn_implementation": "someone/kernel", "use_kernels": True, "auto_map": {"a": "b"}}
    config = {**CONFIG, **kernels, "text_config": {**kernels, "hidden_size": 8}}
    assert without_code(config) == {**CONFIG, "text_config": {"hidden_size": 8}}


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/acme/tiny",
        "huggingface.co/acme/tiny/",
        "https://huggingface.co/acme/tiny/tree/main",
        "https://huggingface.co/acme/tiny/blob/main/config.json?download=true#L3",
        "https://hf.co/acme/tiny",
        "hf://acme/tiny",
        "  acme/tiny ",
        "acme/tiny\n",
    ],
)
def test_the_address_of_a_models_page_means_the_model(text: str) -> None:
    assert resolve_model(text) == "acme/tiny"


@pytest.mark.parametrize(
    "text",
    [
        "https://huggingface.co/datasets/acme/rows",
        "https://huggingface.co/acme",
        "https://example.com/acme/tiny",
        "https://huggingface.co.evil.example/acme/tiny",
        "https://huggingface.co/../../etc/passwd",
        "acme/../../etc",
        "file:///etc/passwd",
        "acme/ti\x00ny",
    ],
)
def test_any_other_address_or_path_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_model(text)
    expected = (
        ("model_is_an_address",) if "://" in text else ("model_unknown", "model_folder_missing")
    )
    assert caught.value.code in expected
    assert caught.value.remedy
