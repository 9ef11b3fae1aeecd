"""What an export is said to take, against what files of that kind really have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.model_files import model_files
from training_backend import runs
from training_backend.computer import drive
from training_backend.export import needs
from training_backend.export.needs import Material
from training_backend.job import ExportJob, parse_job
from training_backend.models.model_folder import read_head

# Of a Llama of 1.2 billion: a table, a vector and layers whose rows are multiples of 256.
WIDE: dict[str, tuple[str, tuple[int, ...]]] = {
    "model.embed_tokens.weight": ("BF16", (128_256, 2_048)),
    "model.norm.weight": ("BF16", (2_048,)),
    **{f"model.layers.{n}.mlp.up_proj.weight": ("BF16", (8_192, 2_048)) for n in range(16)},
}
MATERIAL = Material(WIDE, file_bytes=2_000_000_000, adapter_bytes=40_000_000)


def _needs(of: Material = MATERIAL, **options: object) -> needs.Needs:
    return needs.needs(of, ExportJob.model_validate({"run": "r", "out": "o", **options}))


def test_a_smaller_kind_of_gguf_file_is_smaller_and_none_below_its_bits() -> None:
    kinds = ("bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")
    sizes = [needs.gguf_bytes(WIDE, kind) for kind in kinds]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > MATERIAL.parameters * 4.5 / 8


def test_rows_that_are_no_multiple_of_256_keep_more_bits() -> None:
    """As those of SmolLM2-135M, whose files docs/export.md has measured: 145, 138, 117, 105 MB."""
    narrow = {
        "model.embed_tokens.weight": ("BF16", (49_152, 576)),
        **{
            f"model.layers.{n}.{part}": ("BF16", shape)
            for n in range(30)
            for part, shape in {
                "self_attn.q_proj.weight": (576, 576),
                "self_attn.k_proj.weight": (192, 576),
                "self_attn.v_proj.weight": (192, 576),
                "self_attn.o_proj.weight": (576, 576),
                "mlp.gate_proj.weight": (1_536, 576),
                "mlp.up_proj.weight": (1_536, 576),
                "mlp.down_proj.weight": (576, 1_536),
            }.items()
        },
    }
    measured = {"q8_0": 145e6, "q6_k": 138e6, "q5_k_m": 117e6, "q4_k_m": 105e6}
    for kind, size in measured.items():
        guess = needs.gguf_bytes(narrow, kind)  # type: ignore[arg-type]
        assert guess == pytest.approx(size, rel=0.08), kind


def test_what_lies_on_the_disk_meanwhile_is_never_less_than_the_result() -> None:
    for form in ("safetensors", "adapter", "gguf", "gguf_adapter", "bnb_4bit"):
        found = _needs(format=form)
        assert found.disk_bytes >= found.size_bytes > 0
    merged = _needs().size_bytes
    assert _needs(format="gguf", quantization="q4_k_m").disk_bytes > 2 * merged
    assert _needs(format="bnb_4bit").size_bytes < merged < _needs(format="bnb_4bit").disk_bytes


def test_memory_does_not_grow_with_the_number_of_layers() -> None:
    more = {**WIDE, **{f"model.layers.{n}.x": ("BF16", (8_192, 2_048)) for n in range(99, 400)}}
    deeper = Material(more, file_bytes=0, adapter_bytes=0)
    for form in ("safetensors", "gguf", "bnb_4bit"):
        assert _needs(deeper, format=form).ram_bytes == _needs(format=form).ram_bytes
    assert _needs(deeper).proof_ram_bytes > _needs().proof_ram_bytes
    assert _needs(verify=False).proof_ram_bytes == 0


def test_no_file_is_longer_than_asked_for_unless_one_weight_is() -> None:
    assert _needs(max_shard_gb=0.6).largest_file_bytes == 600_000_000
    table = 128_256 * 2_048 * 2
    assert _needs(max_shard_gb=0.1).largest_file_bytes == table
    assert _needs().largest_file_bytes <= MATERIAL.file_bytes


def test_float32_weights_become_half_as_large_in_float16() -> None:
    wide = {name: ("F32", shape) for name, (_, shape) in WIDE.items()}
    kept, halved = (_needs(Material(wide, 0, 0), dtype=dtype) for dtype in ("auto", "float16"))
    assert kept.size_bytes > 1.9 * halved.size_bytes


def test_a_model_that_was_trained_whole_is_copied_and_has_nothing_to_merge() -> None:
    assert list(_needs(Material(WIDE, 0, None)).stages) == ["copy", "save", "prove"]
    assert list(_needs().stages) == ["merge", "save", "prove"]


def test_material_is_read_from_the_heads_of_the_base_model(
    lorasmith_home: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name, content in model_files().items():
        (base / name).write_bytes(content)
    document = {"name": "x", "model": {"id": str(base)}, "dataset": {"path": "demo"}}
    run = runs.create(parse_job({"version": 1, **document}))
    run.adapter.mkdir()
    (run.adapter / "adapter_model.safetensors").write_bytes(bytes(1_234))
    about = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (run.adapter / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    found = needs.material(str(run.folder))
    head = read_head(base / "model.safetensors")
    assert (found.tensors, found.file_bytes) == (head.tensors, head.file_bytes)
    assert (found.adapter_bytes, found.download_bytes) == (1_234, 0)


def test_a_base_that_is_not_here_is_told_by_the_catalogue_and_its_download_counts(
    lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(10))
    about = {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen3-0.6B"}
    (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    found = needs.material(str(folder))
    assert 0.5e9 < found.parameters < 0.9e9
    assert found.download_bytes > 1e9
    assert "download" in _needs(found).stages


def test_the_drive_of_a_folder_that_is_not_made_yet_is_told(tmp_path: Path) -> None:
    there = drive.of(tmp_path / "not" / "made")
    assert there.free_bytes is not None and there.free_bytes > 0
    assert tmp_path.is_relative_to(there.name)


def test_a_fat_drive_holds_no_file_of_4_gib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "_file_system", lambda _: ("vfat", ["rw"]))
    assert drive.of(tmp_path).largest_file_bytes == 2**32 - 1
    monkeypatch.setattr(drive, "_file_system", lambda _: ("ntfs", ["rw", "remote"]))
    assert drive.of(tmp_path) == drive.Drive(
        drive.of(tmp_path).name, drive.of(tmp_path).free_bytes, network=True
    )


def test_a_server_is_not_looked_at_while_its_name_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: Path) -> int:
        raise AssertionError("looked at")

    monkeypatch.setattr(drive, "free_bytes", never)
    monkeypatch.setattr(drive, "drive_of", never)
    assert drive.of(Path("//server/share/folder")).network
