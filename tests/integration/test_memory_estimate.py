"""The estimate against the real thing: tracked steps, real 4-bit layers, fresh traces."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training_backend.job import TrainingJob, parse_job
from training_backend.memory import memory_traces
from training_backend.models.model_config import demo_config

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]

TINY = {
    "hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 6,
    "num_key_value_heads": 2, "num_hidden_layers": 4, "vocab_size": 600,
}  # fmt: skip
SHAPES = {
    "llama": {"model_type": "llama", **TINY},
    "gemma2": {"model_type": "gemma2", "head_dim": 16, "sliding_window": 32, **TINY},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 32, **TINY},
    "two layers": {"model_type": "qwen3", "head_dim": 16, **TINY, "num_hidden_layers": 2},
}


def measured_and_estimated(shape: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    import sys

    if "tests/benchmarks" not in sys.path:
        sys.path.insert(0, "tests/benchmarks")
    import memory_bench

    memory_bench._SMALL["this"] = shape
    return memory_bench.run_one(memory_bench.Case("this", **case), on_card=False)


@pytest.mark.parametrize(
    ("shape", "case"),
    [
        ("llama", {"in_4bit": True, "batch": 2, "length": 192}),
        ("llama", {"in_4bit": False, "batch": 3, "length": 64, "recomputed": 0, "dropout": 0.1}),
        ("llama", {"in_4bit": False, "batch": 1, "length": 64, "rank": 64, "accumulation": 1}),
        ("gemma2", {"in_4bit": True, "batch": 2, "length": 64, "recomputed": 2}),
        ("gemma3", {"in_4bit": False, "batch": 2, "length": 64, "packing": True}),
        ("llama", {"in_4bit": False, "batch": 4, "length": 64, "padding_free": True}),
        ("llama", {"in_4bit": True, "batch": 2, "length": 96, "fast_paths": False}),
        ("llama", {"in_4bit": True, "batch": 2, "length": 96, "dora": True}),
        ("llama", {"in_4bit": False, "batch": 2, "length": 96, "recomputed": 0, "dora": True}),
        ("two layers", {"in_4bit": False, "batch": 1, "length": 128, "recomputed": 0}),
    ],
)
def test_the_estimate_is_what_real_steps_allocate(
    backend: Any, shape: str, case: dict[str, Any]
) -> None:
    found = backend(measured_and_estimated, SHAPES[shape], case)
    assert found["allocated"] > 3_000_000
    # What kernels take for themselves is not traced.
    assert found["estimate"] == pytest.approx(found["allocated"], rel=0.04)


def real_4bit_bytes(rows: int, columns: int, double: bool) -> int:
    import bitsandbytes as bnb
    import torch

    weight = bnb.nn.Params4bit(
        torch.randn(rows, columns, dtype=torch.bfloat16),
        requires_grad=False,
        compress_statistics=double,
        quant_type="nf4",
    ).to("cpu")
    state = weight.quant_state
    tensors = [weight, state.absmax, state.code]
    if double:
        tensors += [state.offset, state.state2.absmax]  # its table is shared by all layers
    return sum(t.untyped_storage().nbytes() for t in tensors)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", [(576, 1536), (192, 576), (100, 64), (4096, 512)])
def test_4_bit_arithmetic_is_bitsandbytes_own(
    backend: Any, shape: tuple[int, int], double: bool
) -> None:
    from training_backend.memory.memory_parts import bytes_in_4bit

    assert bytes_in_4bit(shape[0] * shape[1], double) == backend(real_4bit_bytes, *shape, double)


def fresh_trace(config: dict[str, Any]) -> dict[str, Any]:
    from training_backend.job import parse_job
    from training_backend.memory import trace_model

    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "none"}})
    return trace_model.trace(config, job, cards=(True,)).model_dump(mode="json")


@pytest.mark.parametrize("model", ["demo", "google/gemma-3-270m-it"])
def test_a_trace_that_ships_is_what_tracing_gives(backend: Any, model: str) -> None:
    from training_backend.models import curated

    config = demo_config() if model == "demo" else curated.config(model)
    assert config is not None
    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "none"}})
    assert isinstance(job, TrainingJob)
    fresh = memory_traces.Trace.model_validate(backend(fresh_trace, config))
    shipped = memory_traces.find(memory_traces.fingerprint(config, job))
    assert shipped is not None, "run: python -m training_backend.memory.trace_model --catalogue"
    assert len(fresh.steps) == len(shipped.steps) / 2  # the processor's take as long again
    steps = {name: shipped.steps[name] for name in fresh.steps}
    assert fresh == shipped.model_copy(update={"steps": steps, "versions": fresh.versions})


def test_a_job_is_estimated_from_a_config_alone(command_line: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"architectures": ["LlamaForCausalLM"], **SHAPES["llama"]}
    (folder / "config.json").write_text(json.dumps(config))
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"model": {"id": "model"}, "dataset": {"path": "missing.jsonl"}}))

    first = command_line("estimate", job, "--json", "--device", "cuda:24GiB")
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert document["total_bytes"] == sum(document["parts"].values())
    assert document["fits"] is True and document["device"]["total_bytes"] == 24 * 2**30
    assert set(document["formulas"]) == set(document["parts"])

    # Now that it is traced, at once; the table names every part.
    again = command_line("estimate", job, "--device", "cuda:24GiB")
    assert again.returncode == 0 and "Finding out" in first.stderr
    assert "Finding out" not in again.stderr
    assert all(part.capitalize() in again.stdout for part in document["parts"])


@pytest.mark.parametrize(
    ("config", "device", "code", "said"),
    [
        (
            {"model_type": "no_such_kind", "architectures": ["XForCausalLM"]},
            "cuda:24GiB",
            1,
            "model",
        ),
        ({"architectures": ["LlamaForCausalLM"], **SHAPES["llama"]}, "a big one", 2, "device"),
    ],
)
def test_what_cannot_be_estimated_is_said_in_a_sentence(
    command_line: CommandLine,
    tmp_path: Path,
    config: dict[str, Any],
    device: str,
    code: int,
    said: str,
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"model": {"id": str(tmp_path)}, "dataset": {"path": "d.jsonl"}}))
    answer = command_line("estimate", job, "--json", "--device", device)
    assert answer.returncode == code and not answer.stdout
    assert said in answer.stderr and "Traceback" not in answer.stderr
