"""What kind of export a folder holds, whether its files are whole, and what it was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from training_backend import runs
from training_backend.errors import UserError
from training_backend.export import proof, proof_files
from training_backend.hub import push_files
from training_backend.job import ExportJob
from training_backend.models import weight_damage

TENSORS = {"a": np.arange(64, dtype=np.float32), "b": np.ones((4, 4), np.float32)}


def sound(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(TENSORS, folder / "model.safetensors")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_kind_is_told_by_the_files(tmp_path: Path) -> None:
    folder = sound(tmp_path)
    assert proof_files.kind(folder)[0] == "safetensors"
    quantised = {"quantization_config": {"quant_method": "bitsandbytes"}}
    (folder / "config.json").write_text(json.dumps(quantised), encoding="utf-8")
    assert proof_files.kind(folder)[0] == "bnb_4bit"
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert proof_files.kind(folder)[0] == "adapter"
    (folder / "my-model-Q4_K_M.gguf").write_bytes(b"damaged")
    assert proof_files.kind(folder) == ("gguf", "q4_k_m")
    (folder / "my-model-Q4_K_M.gguf").rename(folder / "other.gguf")
    assert proof_files.kind(folder) == ("gguf", "q8_0")
    assert push_files.look(folder).form == "gguf", "for all the same"


def test_what_holds_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        proof_files.kind(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no export"):
        proof_files.kind(tmp_path)
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="There are 2"):
        proof_files.only_gguf(tmp_path)


def test_damage_is_named_with_its_file(tmp_path: Path) -> None:
    folder = sound(tmp_path)
    assert weight_damage.find(folder) is None
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for content, code in (
        (whole[:-1], "export_file_cut"),
        (whole + b"\0", "export_file_cut"),
        (whole[:20], "export_file_damaged"),
        (b"", "export_file_damaged"),
    ):
        file.write_bytes(content)
        found = weight_damage.find(folder)
        assert found is not None and found.code == code
        assert "model.safetensors" in found.message and str(tmp_path) not in str(found)


def test_a_part_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    folder = sound(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = json.dumps({"weight_map": names})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    found = weight_damage.find(folder)
    assert found is not None and found.code == "export_file_missing"
    assert "model-00002-of-00002.safetensors is missing" in found.message


def test_how_an_export_was_made_is_known_from_its_job(tmp_path: Path, lorasmith_home: Path) -> None:
    out = tmp_path / "out"
    assert proof._made_by(out) is None
    runs.create(ExportJob(run="a", out=str(out), base="4-bit", checkpoint="checkpoint-3"))
    runs.create(ExportJob(run="b", out=str(tmp_path / "another")))
    made = proof._made_by(out)
    assert made is not None
    assert (made.run, made.base, made.checkpoint) == ("a", "4-bit", "checkpoint-3")
