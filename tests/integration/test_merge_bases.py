"""What a merge adds to: a real model in 16 bits, the base as 4-bit training saw it; its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

# ------------------------------------------------------------------------- the demo model, exactly


def make_adapter(base: str, folder: str, options: dict[str, Any]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **options))  # in fp32
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
        elif parameter.requires_grad and "lora_A" not in name:
            parameter.data *= 1 + 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)


def compare_exactly(base: str, adapter: str, merged: str) -> dict[str, Any]:
    """In rounding steps of bfloat16: how far from W + s B A in float64, and from PEFT's merge."""
    import json
    import math
    from pathlib import Path

    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    def steps(one: torch.Tensor, other: torch.Tensor, at_least: torch.Tensor) -> float:
        larger = torch.maximum(one.abs(), other.abs()).maximum(at_least).clamp(min=2.0**-126)
        step = torch.exp2(torch.floor(torch.log2(larger)) - 7)
        return float(((one - other).abs() / step).max())

    config = json.loads((Path(adapter) / "adapter_config.json").read_text())
    halves = load_file(Path(adapter) / "adapter_model.safetensors")
    before, after = (load_file(Path(p) / "model.safetensors") for p in (base, merged))
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
    # PEFT brings lengths about in the base's type, so it is given a base in 32 bits for them.
    dtype = torch.float32 if config["use_dora"] else torch.bfloat16
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=dtype), adapter
    )
    theirs = model.merge_and_unload().state_dict()
    exact_off = peft_off = 0.0
    changed = 0
    for name, weight in before.items():
        stem = "base_model.model." + name.removesuffix(".weight")
        peft = theirs[name].to(torch.bfloat16)
        if torch.equal(weight, after[name]):
            assert torch.equal(weight, peft)
            continue
        changed += 1
        exact = weight.double()
        if f"{stem}.lora_A.weight" in halves:
            a, b = (halves[f"{stem}.lora_{half}.weight"].double() for half in "AB")
            exact = exact + scale * (b @ a)
            lengths = halves.get(f"{stem}.lora_magnitude_vector")
            if lengths is not None:
                exact *= (lengths.double() / exact.norm(dim=1))[:, None]
        exact = halves.get(f"{stem}.weight", exact).double()
        got = after[name].double()
        exact_off = max(exact_off, steps(got, exact, torch.zeros(())))
        # Where base and update cancel, float32, in which PEFT adds, is off by many steps.
        peft_off = max(peft_off, steps(got, peft.double(), weight.double().abs() / 64))
    return {"exact": exact_off, "peft": peft_off, "changed": changed}


LORA = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
FEW = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                          "down_proj"], "layers_to_transform": [0, 9, 19, 29]}  # fmt: skip
DEMO_ADAPTERS: dict[str, tuple[dict[str, Any], int]] = {
    "LoRA": ({"target_modules": ["q_proj", "down_proj"]}, 60),
    "rsLoRA": ({"use_rslora": True, **FEW}, 28),
    "DoRA": ({"use_dora": True, **FEW}, 28),
    "modules_to_save": (
        {"modules_to_save": ["norm", "input_layernorm"], "target_modules": ["v_proj"]}, 91,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DEMO_ADAPTERS)
def test_the_demo_model_merges_to_rounding_and_as_peft_does(
    backend: Any, do: Any, demo_model_dir: Path, tmp_path: Path, kind: str
) -> None:
    options, changed = DEMO_ADAPTERS[kind]
    backend(make_adapter, demo_model_dir, tmp_path / "adapter", {**LORA, **options})
    job = {"kind": "export", "run": str(tmp_path / "adapter"), "out": str(tmp_path / "out"),
           "verify": False}  # fmt: skip
    done = do(job)
    assert done.exit_code == 0, done.terminal
    found = backend(compare_exactly, demo_model_dir, tmp_path / "adapter", tmp_path / "out")
    assert found["exact"] <= 0.5 + 1e-4  # float32, where nothing cancels, before the 16 bits
    assert found["peft"] <= 1.0
    assert found["changed"] == changed


# ------------------------------------------------------------------------------- the base in 4 bits


def seen_differs(quant_type: str, double: bool) -> list[str]:
    """Shapes of weights for which bitsandbytes has other numbers than we, bit for bit."""
    import numpy as np
    import torch
    from bitsandbytes import functional as bnb

    from training_backend.export import seen_base

    torch.manual_seed(5)
    chunk, seen_base.CHUNK_VALUES = seen_base.CHUNK_VALUES, 64 * 100
    differs = []
    try:
        for shape in ((1, 64), (7, 64), (96, 100), (33, 31), (576, 192), (192, 1536), (64, 9)):
            weight = (torch.randn(shape) * torch.rand(shape[0], 1)).to(torch.bfloat16)
            weight[0, :3] = torch.tensor([0.0, 3.0, -0.0])
            codes, state = bnb.quantize_4bit(
                weight, quant_type=quant_type, compress_statistics=double
            )
            expected = bnb.dequantize_4bit(codes, state).view(torch.uint16).numpy()
            values = weight.view(torch.uint16).numpy().copy()
            got = seen_base.to_4_bits_and_back(values, quant_type, double)
            if got.shape != shape or not np.array_equal(got, expected):
                differs.append(str(shape))
    finally:
        seen_base.CHUNK_VALUES = chunk
    return differs


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_four_bits_and_back_is_bitsandbytes_bit_for_bit(
    backend: Any, quant_type: str, double: bool
) -> None:
    assert backend(seen_differs, quant_type, double) == []


def compare_with_training(run: str, adapter: str, merged: str) -> dict[str, Any]:
    """Against the very model that training had, loaded as it loads it."""
    from pathlib import Path

    import torch
    from bitsandbytes.functional import dequantize_4bit
    from safetensors.torch import load_file

    from training_backend.models import base_model
    from training_backend.runs import Run

    class Silent:
        def __getattr__(self, _: str):
            return lambda *_, **__: None

    job = Run(Path(run)).training_job()
    model = base_model.load_model(job, Path(job.model.id), Silent())
    halves = load_file(Path(adapter) / "adapter_model.safetensors")
    after = load_file(Path(merged) / "model.safetensors")
    wrong, in_4_bits, adapted = [], 0, 0
    for name, parameter in model.named_parameters():
        if name not in after:
            continue
        seen = parameter.data
        if type(parameter).__name__ == "Params4bit":
            in_4_bits += 1
            seen = dequantize_4bit(parameter.data, parameter.quant_state)
        stem = "base_model.model." + name.removesuffix(".weight")
        exact = seen.double()
        if f"{stem}.lora_A.weight" in halves:
            adapted += 1
            a, b = (halves[f"{stem}.lora_{half}.weight"].double() for half in "AB")
            exact = exact + job.lora.lora_alpha / job.lora.r * (b @ a)
        if not torch.equal(exact.float().to(torch.bfloat16), after[name]):
            wrong.append(name)
    return {"wrong": wrong, "in_4_bits": in_4_bits, "adapted": adapted}


def test_a_merge_into_the_4_bit_base_is_into_what_training_saw(
    backend: Any, do: Any, job_document: Any, tmp_path: Path
) -> None:
    run = do(
        job_document(
            quantization={"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
            lora={"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 8},
            training={"learning_rate": 1e-2},
        )
    ).run
    job = {"kind": "export", "run": str(run.folder), "out": str(tmp_path / "out"),
           "base": "4-bit", "verify": False}  # fmt: skip
    done = do(job)
    assert done.exit_code == 0, done.terminal
    found = backend(compare_with_training, run.folder, run.adapter, tmp_path / "out")
    assert found == {"wrong": [], "in_4_bits": 14, "adapted": 4}


def test_a_run_on_the_16_bit_base_is_not_merged_into_one_of_4_bits(
    do: Any, job_document: Any, tmp_path: Path
) -> None:
    run = do(job_document(quantization={"load_in_4bit": False})).run
    job = {"kind": "export", "run": str(run.folder), "out": str(tmp_path / "out"),
           "base": "4-bit", "verify": False}  # fmt: skip
    done = do(job)
    assert done.terminal.code == "base_was_16_bit" and done.terminal.field == "base"
    assert not list(tmp_path.glob("out*"))


# ------------------------------------------------------------------------------------- its type


def types_of(merged: str, exact: str) -> dict[str, Any]:
    from pathlib import Path

    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    got, wide = (load_file(Path(p) / "model.safetensors") for p in (merged, exact))
    return {
        "types": sorted({str(value.dtype) for value in got.values()}),
        "same": all(torch.equal(wide[name].to(got[name].dtype), got[name]) for name in wide),
        "loaded": str(AutoModelForCausalLM.from_pretrained(merged, dtype="auto").dtype),
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_merged_model_has_the_type_that_was_asked_for(
    backend: Any, make_model: Any, do: Any, tmp_path: Path, dtype: str
) -> None:
    base = make_model(dtype="float32")
    config = json.loads((base / "config.json").read_text("utf-8"))
    part = {"dtype": "float32", "hidden_size": 8}
    config.update(torch_dtype="float32", some_part=part)  # as older programs wrote it
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    options = {**LORA, "target_modules": ["q_proj", "up_proj"]}
    backend(make_adapter, base, tmp_path / "adapter", options)
    for out, asked in (("wide", "auto"), ("out", dtype)):
        job = {"kind": "export", "run": str(tmp_path / "adapter"), "dtype": asked,
               "out": str(tmp_path / out), "verify": False}  # fmt: skip
        done = do(job)
        assert done.exit_code == 0, done.terminal
    found = backend(types_of, tmp_path / "out", tmp_path / "wide")
    assert found == {"types": [f"torch.{dtype}"], "same": True, "loaded": f"torch.{dtype}"}
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["dtype"] == config["torch_dtype"] == dtype
    assert config["some_part"] == {"dtype": dtype, "hidden_size": 8}


def spoil(base: str, name: str, value: float) -> None:
    from pathlib import Path

    from safetensors.torch import load_file, save_file

    path = Path(base) / "model.safetensors"
    tensors = load_file(path)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("value", "dtype", "code"),
    [
        (1e30, "float16", "too_large_for_type"),
        (float("nan"), "auto", "weights_not_finite"),
        (float("-inf"), "auto", "weights_not_finite"),
    ],
)
def test_a_base_with_numbers_that_are_none_is_refused_by_name(
    backend: Any, make_model: Any, do: Any, tmp_path: Path, value: float, dtype: str, code: str
) -> None:
    base, name = make_model(), "model.layers.1.mlp.gate_proj.weight"
    backend(make_adapter, base, tmp_path / "adapter", {**LORA, "target_modules": ["q_proj"]})
    backend(spoil, base, name, value)
    done = do({"kind": "export", "run": str(tmp_path / "adapter"), "out": str(tmp_path / "out"),
               "dtype": dtype, "verify": False})  # fmt: skip
    assert done.terminal.code == code, done.terminal
    assert name in done.sentence and "\n" not in done.sentence
    assert not list(tmp_path.glob("out*"))
