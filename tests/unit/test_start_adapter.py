"""What is said of an adapter to start from before a run exists, each at its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training_backend.errors import UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.models import start_adapter

LAYER = "model.layers.0.self_attn.q_proj"
CONFIG = {
    "peft_type": "LORA",
    "base_model_name_or_path": "owner/Model-1B",
    "r": 8,
    "lora_alpha": 24,
    "use_rslora": False,
    "target_modules": ["v_proj", "q_proj"],
}


def write_tensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file of zeros."""
    head, end = {}, 0
    for name, (rows, columns) in shapes.items():
        size = rows * columns * 4
        head[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of rank 8 for a layer of 16 x 32."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    halves = {"lora_A.weight": [8, 32], "lora_B.weight": [16, 8]}
    write_tensors(
        folder / "adapter_model.safetensors",
        {f"base_model.model.{LAYER}.{half}": shape for half, shape in halves.items()},
    )
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The weights that it belongs to."""
    folder = tmp_path / "base"
    folder.mkdir()
    write_tensors(folder / "model.safetensors", {f"{LAYER}.weight": [16, 32]})
    return folder


def job(adapter: Path | str, model: str = "owner/Model-1B", **lora: Any) -> TrainingJob:
    fits = {"r": 8, "lora_alpha": 24, "target_modules": ["q_proj", "v_proj"]}
    parsed = parse_job(
        {
            "model": {"id": model, "adapter": str(adapter)},
            "dataset": {"path": "rows.jsonl"},
            "lora": {**fits, **lora},
        }
    )
    assert isinstance(parsed, TrainingJob)
    return parsed


def refused(job: TrainingJob, base: Path | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        start_adapter.check(job, base)
    assert caught.value.field is not None and caught.value.remedy
    return caught.value


def change(adapter: Path, **values: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**CONFIG, **values}), encoding="utf-8")


def test_an_adapter_that_fits_is_taken_also_out_of_a_runs_folder(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    start_adapter.check(job(adapter), base)
    start_adapter.check(job(adapter), None)
    start_adapter.check(job(adapter, target_modules="all-linear"), base)
    found = start_adapter.find(job(tmp_path))  # which holds "adapter"
    assert found is not None and found.folder == adapter
    assert start_adapter.settings(found) == {
        "lora.r": 8,
        "lora.lora_alpha": 24,
        "lora.use_rslora": False,
        "lora.use_dora": False,
        "lora.target_modules": ["q_proj", "v_proj"],
        "lora.layers_to_transform": "all",
    }


def test_a_folder_that_is_not_there_or_holds_no_adapter(adapter: Path, base: Path) -> None:
    assert refused(job("/no/such/folder")).code == "adapter_missing"
    assert refused(job(base)).code == "adapter_damaged"
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    found = refused(job(adapter))
    assert found.field == "model.adapter" and "adapter_model.safetensors" in str(found)


@pytest.mark.parametrize(
    "values",
    [{"peft_type": "LOHA"}, {"lora_bias": True}, {"modules_to_save": ["lm_head"]}],
    ids=str,
)
def test_what_is_no_plain_lora_is_refused(adapter: Path, values: dict[str, Any]) -> None:
    change(adapter, **values)
    found = refused(job(adapter))
    assert (found.code, found.field) == ("adapter_not_plain_lora", "model.adapter")


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"r": 16}, "r is 16 here, but 8 in"),
        ({"lora_alpha": 8}, "lora_alpha is 8 here, but 24 in"),
        ({"use_rslora": True}, "use_rslora is True here, but False in"),
        ({"use_dora": True}, "use_dora is True here, but False in"),
        ({"layers_to_transform": [1, 0]}, "layers_to_transform is 0, 1 here, but all in"),
        ({"target_modules": ["q_proj"]}, "target_modules is q_proj here, but q_proj, v_proj in"),
    ],
)
def test_a_setting_that_contradicts_the_adapter_names_both_values(
    adapter: Path, lora: dict[str, Any], words: str
) -> None:
    found = refused(job(adapter, **lora))
    assert found.field == f"lora.{next(iter(lora))}"
    assert words in str(found)


def test_another_base_is_told_by_its_name_and_by_its_shapes(adapter: Path, base: Path) -> None:
    found = refused(job(adapter, model="owner/Model-1B-Instruct"))
    assert (found.code, found.field) == ("adapter_other_base", "model.adapter")
    assert "owner/Model-1B, not for owner/Model-1B-Instruct" in str(found)
    start_adapter.check(job(adapter, model="mirror/model-1b"), None)
    write_tensors(base / "model.safetensors", {f"{LAYER}.weight": [16, 48]})
    assert f"{LAYER} has another shape" in str(refused(job(adapter), base))
    write_tensors(base / "model.safetensors", {"transformer.h.0.weight": [16, 32]})
    assert "none of its layers" in str(refused(job(adapter), base))


def test_damaged_weights_are_said_to_be_so(adapter: Path, base: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"version https://git-lfs")
    found = refused(job(adapter), base)
    assert (found.code, found.field) == ("adapter_damaged", "model.adapter")
