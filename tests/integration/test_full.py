"""Training of every weight: it learns, resumes exactly, and leaves a model like any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

STEPS, SAVED = 4, 2


@pytest.fixture
def full_job(job_document: Any) -> dict[str, Any]:
    training = {"method": "full", "max_steps": STEPS, "save_steps": SAVED, "learning_rate": 1e-3,
                "per_device_train_batch_size": 8, "warmup_steps": 0.0}  # fmt: skip
    job: dict[str, Any] = job_document(
        quantization={"load_in_4bit": False}, lora={"loraplus_lr_ratio": 4.0}, training=training
    )
    return job


def compare(trained: str, exported: str, from_checkpoint: str, checkpoint: str) -> dict[str, Any]:
    """A finished model, its export, that of a checkpoint, and the checkpoint in 32 bits."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = {}
    folders = {"trained": trained, "exported": exported, "from_checkpoint": from_checkpoint,
               "checkpoint": checkpoint}  # fmt: skip
    for name, folder in folders.items():
        model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not told["missing_keys"] and not told["unexpected_keys"], told
        found[name] = model
    states = {name: model.state_dict() for name, model in found.items()}

    def same(one: str, other: str) -> bool:
        return all(torch.equal(v, states[other][k].to(v.dtype)) for k, v in states[one].items())

    tokenizer = AutoTokenizer.from_pretrained(exported)
    return {
        "export_same": same("trained", "exported"),
        "checkpoint_rounded": same("from_checkpoint", "checkpoint"),
        "last_checkpoint_is_the_model": same("trained", "checkpoint"),
        "dtypes": [str(next(model.parameters()).dtype) for model in found.values()],
        "chat": bool(tokenizer.chat_template),
    }


def test_every_weight_learns_resumes_exactly_and_exports(
    backend: Any, do: Any, full_job: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    whole = do(full_job)
    assert whole.exit_code == 0, whole.terminal
    assert whole.terminal.folder == str(whole.run.model)
    known = next(e for e in whole.of("PhaseChanged") if e.trainable_parameters)
    assert known.trainable_parameters == known.total_parameters > 3_000_000
    losses = {e.step: (e.loss, e.grad_norm) for e in whole.of("MetricsLogged")}
    assert losses[STEPS][0] < losses[1][0] - 0.05
    weights = (whole.run.model / "model.safetensors").read_bytes()
    assert len(weights) == (tiny_model / "model.safetensors").stat().st_size

    shutil.rmtree(whole.run.model)
    last = whole.run.checkpoints / f"checkpoint-{STEPS}"
    kept = shutil.move(last, tmp_path / last.name)
    resumed = do(whole.run)
    assert resumed.exit_code == 0, resumed.terminal
    began = resumed.events.index(resumed.of("RunStarted")[-1])
    assert resumed.events[began].resumed_from_step == SAVED
    again = {
        e.step: (e.loss, e.grad_norm) for e in resumed.events[began:] if e.type == "MetricsLogged"
    }
    assert again == {step: told for step, told in losses.items() if step > SAVED}
    assert (whole.run.model / "model.safetensors").read_bytes() == weights

    export = {"kind": "export", "run": str(whole.run.folder)}
    for out, extra in (("out", {}), ("early", {"checkpoint": last.name})):
        done = do({**export, "out": str(tmp_path / out), **extra})
        assert done.exit_code == 0, done.terminal
    found = backend(compare, whole.run.model, tmp_path / "out", tmp_path / "early", kept)
    assert found["export_same"] and found["checkpoint_rounded"]
    assert found["last_checkpoint_is_the_model"] and found["chat"]
    assert found["dtypes"] == ["torch.bfloat16"] * 3 + ["torch.float32"]
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text("utf-8")

    refused = do({**export, "format": "adapter", "out": str(tmp_path / "adapter")})
    assert refused.terminal.code == "no_adapter_of_full" and refused.terminal.field == "format"


def test_a_run_cut_off_after_its_last_step_only_has_its_model_saved(
    do: Any, full_job: dict[str, Any]
) -> None:
    whole = do(full_job)
    weights = (whole.run.model / "model.safetensors").read_bytes()
    shutil.rmtree(whole.run.model)
    resumed = do(whole.run)
    assert resumed.exit_code == 0, resumed.terminal
    assert len(resumed.of("MetricsLogged")) == STEPS
    assert (whole.run.model / "model.safetensors").read_bytes() == weights
