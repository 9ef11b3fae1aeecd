"""A run that starts from an adapter begins where that one ended, and says so when it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_merge import compare_with_peft, make_adapter
from training_backend import runs
from training_backend.errors import JobError
from training_backend.job import parse_job
from training_backend.lifecycle import preflight


def first_step(folder: str) -> dict[str, Any]:
    """Does a run; its first loss, and that of base + adapter by PEFT alone on the same rows."""
    import queue
    from pathlib import Path

    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from training_backend import train, worker
    from training_backend.runs import Run

    batches = []

    class Spy(train._Trainer):
        def training_step(self, model, inputs, *rest):
            batches.append({name: value.clone() for name, value in inputs.items()})
            return super().training_step(model, inputs, *rest)

    run = Run(Path(folder))
    kept, train._Trainer = train._Trainer, Spy
    try:
        code = worker._work(run, queue.Queue())
    finally:
        train._Trainer = kept
    assert code == 0, run.events()[-1]
    job = run.training_job()
    base = str(train.base_folder(job.model.id, None, None))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    batch = {key: batches[0][key] for key in ("input_ids", "attention_mask", "labels")}
    with torch.no_grad():
        plain = model(**batch).loss.item()
        adapted = PeftModel.from_pretrained(model, job.model.adapter).eval()(**batch).loss.item()
    told = next(event.loss for event in run.events() if event.type == "MetricsLogged")
    return {"told": told, "base": plain, "adapter": adapted}


LEARNED = {"max_steps": 12, "learning_rate": 1e-2, "lr_scheduler_type": "constant",
           "warmup_steps": 0.0}  # fmt: skip


@pytest.fixture
def first(do: Any, job_document: Any) -> Any:
    """A run that learned a good deal; the next one can start from it."""
    done = do(job_document(training=LEARNED, quantization={"load_in_4bit": False}))
    assert done.exit_code == 0
    return done.run


@pytest.fixture
def second_job(job_document: Any, first: Any) -> Any:
    def document(**sections: Any) -> dict[str, Any]:
        sections["model"] = {"adapter": str(first.adapter), **sections.get("model", {})}
        job: dict[str, Any] = job_document(**sections)
        return job

    return document


@pytest.mark.parametrize("in_4bit", [False, True])
def test_the_first_loss_is_that_of_the_adapter_and_what_comes_out_is_trained_on(
    backend: Any, do: Any, second_job: Any, first: Any, tiny_model: Path, tmp_path: Path,
    in_4bit: bool,
) -> None:  # fmt: skip
    run = runs.create(parse_job(second_job(quantization={"load_in_4bit": in_4bit})))
    found = backend(first_step, run.folder)
    assert found["base"] - found["adapter"] > 0.5
    assert found["told"] == pytest.approx(found["adapter"], abs=0.15 if in_4bit else 0.03)
    weights = [
        (folder / "adapter_model.safetensors").read_bytes()
        for folder in (first.adapter, run.adapter)
    ]
    assert weights[0] != weights[1] and len(weights[0]) == len(weights[1])
    exported = do({"kind": "export", "run": str(run.folder), "out": str(tmp_path / "out")})
    assert exported.exit_code == 0, exported.terminal
    merged = backend(compare_with_peft, tiny_model, run.adapter, tmp_path / "out")
    assert merged["wrong"] == [] and merged["changed"] == 14


@pytest.mark.slow
def test_the_demo_model_too_goes_on_from_its_adapter(
    backend: Any, do: Any, job_document: Any, home_with_demo_model: Path
) -> None:
    sections = {"model": {"id": "demo"}, "quantization": {"load_in_4bit": False}}
    done = do(job_document(**sections, training={**LEARNED, "max_steps": 4}))
    assert done.exit_code == 0, done.terminal
    sections["model"]["adapter"] = str(done.run.adapter)
    run = runs.create(parse_job(job_document(**sections, training={"max_steps": 1})))
    found = backend(first_step, run.folder)
    assert found["base"] - found["adapter"] > 0.3
    assert found["told"] == pytest.approx(found["adapter"], abs=0.05)


def test_ranks_and_strengths_of_single_layers_are_taken_over(
    backend: Any, do: Any, job_document: Any, tiny_model: Path, tmp_path: Path
) -> None:
    options = {
        "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 3},
    }  # fmt: skip
    backend(make_adapter, tiny_model, tmp_path / "adapter", options)
    job = job_document(
        model={"adapter": str(tmp_path / "adapter")}, lora={"target_modules": ["v_proj", "q_proj"]}
    )
    done = do(job)
    assert done.exit_code == 0, done.terminal
    one, other = (
        (folder / "adapter_model.safetensors").stat().st_size
        for folder in (tmp_path / "adapter", done.run.adapter)
    )
    assert one == other
    exported = do({"kind": "export", "run": str(done.run.folder), "out": str(tmp_path / "out")})
    assert exported.exit_code == 0
    merged = backend(compare_with_peft, tiny_model, done.run.adapter, tmp_path / "out")
    assert merged["wrong"] == [] and merged["changed"] == 4


def test_a_resume_is_exact_and_no_longer_needs_the_adapter_it_started_from(
    do: Any, second_job: Any, first: Any
) -> None:
    run = do(second_job(training={"max_steps": 4, "save_steps": 2})).run
    whole = (run.adapter / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoints / "checkpoint-4")
    shutil.rmtree(first.folder)
    resumed = do(run)
    assert resumed.exit_code == 0, resumed.terminal
    assert resumed.of("RunStarted")[-1].resumed_from_step == 2
    assert (run.adapter / "adapter_model.safetensors").read_bytes() == whole


def test_all_linear_is_refused_where_the_adapter_has_fewer_layers(
    backend: Any, do: Any, job_document: Any, tiny_model: Path, tmp_path: Path
) -> None:
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    backend(make_adapter, tiny_model, tmp_path / "adapter", options)
    done = do(job_document(model={"adapter": str(tmp_path / "adapter")}))
    assert done.terminal.code == "adapter_settings_differ"
    assert done.terminal.field == "lora.target_modules"
    assert "q_proj, v_proj" in done.sentence


def spoil_adapter(folder: str) -> None:
    from pathlib import Path

    from safetensors.torch import load_file, save_file

    path = Path(folder) / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[min(tensors)][0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


def test_an_adapter_with_numbers_that_are_none_is_refused(
    backend: Any, do: Any, second_job: Any, first: Any
) -> None:
    backend(spoil_adapter, first.adapter)
    done = do(second_job())
    assert done.terminal.code == "adapter_unusable" and done.terminal.field == "model.adapter"


def test_an_adapter_of_another_model_is_refused_before_a_run_exists(
    second_job: Any, make_model: Any
) -> None:
    preflight.check(parse_job(second_job()))
    other = make_model(intermediate_size=128)
    with pytest.raises(JobError) as caught:
        preflight.check(parse_job(second_job(model={"id": str(other)})))
    (problem,) = caught.value.problems
    assert problem.field == "model.adapter" and "another shape" in problem.message
