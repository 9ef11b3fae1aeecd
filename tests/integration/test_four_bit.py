"""A folder in 4 bits: what transformers would have saved, number by number, and loads as it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_merge import ALL, make_adapter
from training_backend import runs
from training_backend.errors import UserError
from training_backend.export import four_bit
from training_backend.job import parse_job


def make_family(folder: str, family: str, options: dict[str, Any], dtype: str) -> None:
    """A random model of two layers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    if family == "gpt2":
        settings = {"vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**settings, **options})
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder)


def quantise(model: str, out: str, shard_bytes: int) -> dict[str, Any]:
    """As the child process does; returns what was planned."""
    import json
    from dataclasses import asdict
    from pathlib import Path

    from training_backend.export import four_bit_tools
    from training_backend.models.model_folder import weight_files

    Path(out).mkdir()
    files = weight_files(Path(model))
    tensors = [tensor for path in files for tensor in four_bit_tools.read_tensors(path)]
    plan = four_bit_tools.plan(model, tensors)
    told = []
    four_bit_tools.TOLD_SECONDS = -1
    four_bit_tools.quantise(lambda share, _: told.append(share), model, out, plan, shard_bytes)
    assert told == sorted(told) and told[-1] == 1.0
    config = json.loads(Path(model, "config.json").read_text())
    Path(out, "config.json").write_text(
        json.dumps({**config, "quantization_config": plan.settings})
    )
    return asdict(plan)


def compare_with_transformers(model: str, out: str) -> dict[str, Any]:
    """The files against those of transformers' own way; and what comes of loading them."""
    import json
    import tempfile
    from pathlib import Path

    import bitsandbytes as bnb
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    half = json.loads(Path(model, "config.json").read_text())["dtype"] == "float16"
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16 if half else torch.bfloat16,
    )
    theirs = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=settings, dtype="auto", device_map="cpu"
    )
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        expected, got = (
            {k: v for path in Path(p).glob("*.safetensors") for k, v in load_file(path).items()}
            for p in (folder, out)
        )
    differs = [
        name
        for name, tensor in expected.items()
        if name in got and not (tensor.dtype == got[name].dtype and torch.equal(tensor, got[name]))
    ]
    ours, told = AutoModelForCausalLM.from_pretrained(
        out, device_map="cpu", output_loading_info=True, dtype="auto"
    )
    tokens = torch.arange(3, 20)[None]
    with torch.no_grad():
        same = torch.equal(ours(tokens).logits, theirs(tokens).logits)
    return {
        "names": sorted(expected.keys() ^ got.keys()),
        "differs": differs,
        "problems": [name for kind in told.values() for name in kind],
        "layers": sum(isinstance(m, bnb.nn.Linear4bit) for m in ours.modules()),
        "answers_alike": same,
        "bytes": sum(tensor.nbytes for tensor in got.values()),
        "tensors": len(got),
    }


FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", {"tie_word_embeddings": True}, "bfloat16"),
    "half precision": ("llama", {}, "float16"),
    "32 bits": ("llama", {}, "float32"),
    "odd shapes and biases": (
        "llama",
        {"hidden_size": 36, "intermediate_size": 51, "head_dim": 10, "attention_bias": True},
        "bfloat16",
    ),
    "transposed": ("gpt2", {}, "bfloat16"),
    "fused": ("phi3", {}, "bfloat16"),
    "experts": ("mixtral", {"num_local_experts": 4}, "bfloat16"),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_folder_in_4_bits_is_what_transformers_saves(
    backend: Any, tmp_path: Path, kind: str
) -> None:
    backend(make_family, tmp_path / "model", *FAMILIES[kind])
    plan = backend(quantise, tmp_path / "model", tmp_path / "out", 10**9)
    found = backend(compare_with_transformers, tmp_path / "model", tmp_path / "out")
    assert found["names"] == [] and found["differs"] == [] and found["problems"] == []
    assert found["layers"] == len(plan["layers"]) >= 8
    assert found["answers_alike"]
    assert plan["size"] == pytest.approx(found["bytes"], rel=0.01)


def test_the_demo_model_in_4_bits_is_what_transformers_saves(
    backend: Any, demo_model_dir: Path, tmp_path: Path
) -> None:
    plan = backend(quantise, demo_model_dir, tmp_path / "out", 10**9)
    found = backend(compare_with_transformers, demo_model_dir, tmp_path / "out")
    assert found["names"] == [] and found["differs"] == [] and found["problems"] == []
    assert found["layers"] == len(plan["layers"]) == 210 and found["answers_alike"]
    assert found["bytes"] < 0.42 * (demo_model_dir / "model.safetensors").stat().st_size


def test_no_file_is_larger_than_was_asked_for_and_the_index_names_all_tensors(
    backend: Any, tmp_path: Path
) -> None:
    backend(make_family, tmp_path / "model", "qwen2", {}, "bfloat16")
    backend(quantise, tmp_path / "model", tmp_path / "out", 50_000)
    found = backend(compare_with_transformers, tmp_path / "model", tmp_path / "out")
    assert found["names"] == [] and found["differs"] == [] and found["answers_alike"]
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert [path.name for path in files] == [
        f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)
    ]
    assert len(files) > 2 and all(path.stat().st_size <= 60_000 for path in files)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text("utf-8"))
    assert set(index["weight_map"].values()) == {path.name for path in files}
    assert len(index["weight_map"]) == found["tensors"]


# --------------------------------------------------------------------------------- the export


def quantised_alike(model: str, out: str) -> list[str]:
    """The tensors of a 4-bit export that are not those of the model's, quantised."""
    import tempfile
    from pathlib import Path

    import torch
    from safetensors.torch import load_file

    from training_backend.export import four_bit_tools

    with tempfile.TemporaryDirectory() as folder:
        tensors = four_bit_tools.read_tensors(Path(model, "model.safetensors"))
        plan = four_bit_tools.plan(model, tensors)
        four_bit_tools.quantise(lambda *_: None, model, folder, plan, 10**9)
        expected, got = (load_file(Path(p, "model.safetensors")) for p in (folder, out))
    assert expected.keys() == got.keys() and len(plan.layers) == 14
    return [name for name, tensor in expected.items() if not torch.equal(tensor, got[name])]


def test_an_export_in_4_bits_is_the_merged_model_with_its_layers_quantised(
    backend: Any, do: Any, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"r": 4, "lora_alpha": 8, "target_modules": ALL}
    backend(make_adapter, tiny_model, tmp_path / "adapter", options)
    job = {"kind": "export", "run": str(tmp_path / "adapter"), "verify": False}
    assert do({**job, "out": str(tmp_path / "16")}).exit_code == 0
    done = do({**job, "out": str(tmp_path / "4"), "format": "bnb_4bit"})
    assert done.exit_code == 0, done.terminal
    assert backend(quantised_alike, tmp_path / "16", tmp_path / "4") == []
    found = backend(compare_with_transformers, tmp_path / "16", tmp_path / "4")
    assert found["differs"] == [] and found["problems"] == [] and found["answers_alike"]
    here, there = ({path.name for path in (tmp_path / name).iterdir()} for name in ("4", "16"))
    assert here == there
    assert "14 layers have 4 bits now" in " ".join(event.message for event in done.of("LogLine"))
    # It is next to nothing but a vocabulary, which stays in 16 bits.
    assert [event.code for event in done.of("WarningRaised")] == ["four_bit_partly"]


def stop_while_looking(folder: str) -> int:
    """As `work`, with a request to stop while the other process is at it."""
    import queue
    from pathlib import Path

    from training_backend import worker
    from training_backend.export import four_bit
    from training_backend.runs import Run

    run = Run(Path(folder))
    in_child = four_bit.in_child

    def asked_to_stop(*arguments, **options):
        run.request("stop")
        return in_child(*arguments, **options)

    four_bit.in_child = asked_to_stop
    try:
        return worker._work(run, queue.Queue())
    finally:
        four_bit.in_child = in_child


def test_a_cancelled_export_in_4_bits_leaves_nothing(
    backend: Any, tiny_model: Path, tmp_path: Path, lorasmith_home: Path
) -> None:
    options = {"r": 4, "lora_alpha": 8, "target_modules": ALL}
    backend(make_adapter, tiny_model, tmp_path / "adapter", options)
    job = {"kind": "export", "run": str(tmp_path / "adapter"), "out": str(tmp_path / "out"),
           "format": "bnb_4bit", "verify": False}  # fmt: skip
    run = runs.create(parse_job(job))
    assert backend(stop_while_looking, run.folder) == 3
    assert run.state() == "stopped"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []


class _Reporter:
    def check_stop(self) -> None:
        pass


def test_what_ends_the_other_process_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError) as died:
        four_bit._in_child(os.abort, reporter=_Reporter())  # type: ignore[arg-type]
    assert died.value.code == "four_bit_died" and "exit code" in died.value.message
    with pytest.raises(UserError) as failed:
        four_bit._in_child(int, "seven", reporter=_Reporter())  # type: ignore[arg-type]
    assert failed.value.code == "four_bit_refused" and "seven" in failed.value.message
    assert failed.value.field == "format" and "\n" not in str(failed.value)


def refusal_of(model: str, renamed: dict[str, str]) -> str:
    """What is said of a model of which some weights have another name."""
    import tempfile
    from pathlib import Path

    from safetensors.torch import load_file, save_file

    from training_backend.errors import UserError
    from training_backend.export import four_bit_tools

    tensors = load_file(Path(model, "model.safetensors"))
    tensors = {renamed.get(name, name): tensor for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory() as folder:
        save_file(tensors, Path(folder, "model.safetensors"))
        try:
            names = four_bit_tools.read_tensors(Path(folder, "model.safetensors"))
            four_bit_tools.plan(model, names)
        except UserError as error:
            return f"{error.code}: {error}"
    return ""


def test_layers_that_are_not_in_the_files_under_their_name_are_not_passed_over(
    backend: Any, tiny_model: Path
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    said = backend(refusal_of, tiny_model, {name: "model.layers.1.mlp.other.weight"})
    assert said.startswith("four_bit_refused: ") and name in said
    assert backend(refusal_of, tiny_model, {}) == ""
