"""Numbers gone bad end a training with their cause named; the faults are planted in real runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_training import spoil
from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints
from training_backend.runs import Run


def work_with_fault(folder: str, fault: str, step: int) -> int:
    """As `work`; the fault is in the numbers of step `step` + 1."""
    import queue
    from pathlib import Path

    import pytest

    from training_backend import worker
    from training_backend.runs import Run
    from training_backend.training import lora
    from training_backend.watching.run_watch import RunWatch

    begin = RunWatch.on_step_begin
    first_weights = lora.first_weights

    def planting(self, args, state, control, **kwargs):
        begin(self, args, state, control, **kwargs)
        if state.global_step != step:
            return
        weight = next(p for p in kwargs["model"].parameters() if p.requires_grad)
        if fault == "weight":
            weight.data[0, 0] = float("nan")
        elif fault == "once":
            handle = weight.register_hook(lambda g: (handle.remove(), g * float("nan"))[1])

    def with_hook(job, model):
        def hook(module, inputs, output):
            return output.masked_fill((inputs[0] == 29106)[..., None], float("nan"))  # " zebra"

        model.get_input_embeddings().register_forward_hook(hook)
        return first_weights(job, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunWatch, "on_step_begin", planting)
        if fault == "row":
            patch.setattr(lora, "first_weights", with_hook)
        return worker._work(Run(Path(folder)), queue.Queue())


def ended(backend: Any, job: dict[str, Any], fault: str, step: int = 0) -> tuple[Run, Any]:
    """The run, and the event that it ended with."""
    run = runs.create(parse_job(job))
    assert backend(work_with_fault, run.folder, fault, step) == 1
    return run, run.events()[-1]


def spoilt(backend: Any, model: Path, folder: Path, name: str, value: float) -> Path:
    copy = shutil.copytree(model, folder / "spoilt")
    backend(spoil, copy, f"model.layers.{name}.weight", value)
    return copy


@pytest.mark.parametrize("in_4bit", [True, False])
def test_a_damaged_base_model_is_named_as_the_cause(
    do: Any, backend: Any, job_document: Any, tiny_model: Path, tmp_path: Path, in_4bit: bool
) -> None:
    model = spoilt(backend, tiny_model, tmp_path, "0.self_attn.q_proj", float("inf"))
    done = do(job_document(model={"id": str(model)}, quantization={"load_in_4bit": in_4bit}))
    assert (done.exit_code, done.terminal.code) == (1, "model_not_finite")
    assert done.terminal.field == "model.id"
    assert "model.layers.0.self_attn.q_proj.weight" in done.sentence
    assert not done.of("MetricsLogged")


ZEBRA = "What is zebra and zebra?"
SETTINGS: dict[str, dict[str, Any]] = {
    "padded": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
    "one by one": {"per_device_train_batch_size": 1},
    "packed": {"packing": True, "per_device_train_batch_size": 1},
    "end to end": {"padding_free": True, "per_device_train_batch_size": 4},
    "fast paths off": {"fast_paths": False, "per_device_train_batch_size": 4},
}


@pytest.mark.parametrize("how", SETTINGS)
def test_a_bad_row_is_found_and_named_by_its_place_in_the_file(
    backend: Any, job_document: Any, write_rows: Any, lorasmith_home: Path, how: str
) -> None:
    from tests.integration.conftest import ROWS

    rows = [dict(row) for row in ROWS]
    rows[18] = {"messages": [{"role": "user", "content": ZEBRA}, *ROWS[18]["messages"][1:]]}
    write_rows(rows)
    training = {"max_steps": 24, "save_steps": 100, **SETTINGS[how]}
    run, end = ended(backend, job_document(training=training), "row")
    assert end.code == "row_not_finite"
    assert "it comes from rows.jsonl, row 19." in end.message
    assert end.field == "dataset.path"
    told = [event.step for event in run.events() if event.type == "MetricsLogged"]
    assert end.params["step"] == str(len(told) + 1)  # no step with such numbers was done
    # All steps before it are kept, however rare the checkpoints are.
    kept = checkpoints.newest_verified(run.checkpoints)
    assert (kept.step if kept else 0) == len(told)


def test_of_a_bad_pair_the_row_is_named(
    backend: Any, job_document: Any, write_rows: Any, lorasmith_home: Path
) -> None:
    rows: list[Any] = [
        {"prompt": f"What is {n} and {n}?", "chosen": f"{2 * n}.", "rejected": "No."}
        for n in range(12)
    ]
    rows[7]["prompt"] = ZEBRA
    write_rows(rows)
    training = {"objective": "dpo", "max_steps": 6, "per_device_train_batch_size": 4}
    _, end = ended(backend, job_document(training=training), "row")
    assert (end.code, end.params["rows"]) == ("row_not_finite", "rows.jsonl, row 8")


def test_what_comes_once_and_not_again_is_no_fault_of_data_or_settings(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    run, end = ended(backend, job_document(training={"save_steps": 50}), "once", step=1)
    assert end.code == "not_repeatable" and "step 2" in end.message
    kept = checkpoints.newest_verified(run.checkpoints)
    assert kept is not None and kept.step == 1


def test_a_loss_that_rose_before_speaks_for_a_rate_too_high(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    training = {"method": "full", "max_steps": 8, "learning_rate": 1.0, "warmup_steps": 0}
    job = job_document(training=training, quantization={"load_in_4bit": False})
    run, end = ended(backend, job, "weight", step=5)
    assert end.code == "loss_diverged"
    assert end.field == "training.learning_rate"
    assert "learning rate 1 is too high: start again with a lower one, such as 0.0002" in end.remedy
    losses = [event.loss for event in run.events() if event.type == "MetricsLogged"]
    assert float(end.params["last"]) > 1.5 * float(end.params["before"]) >= min(losses)


def test_without_evidence_the_rate_is_only_suggested(
    backend: Any, job_document: Any, lorasmith_home: Path
) -> None:
    run, end = ended(backend, job_document(training={"save_steps": 1}), "weight", step=2)
    assert (end.code, end.field) == ("loss_not_finite", "training.learning_rate")
    assert "step 3" in end.message
    kept = checkpoints.newest_verified(run.checkpoints)
    assert kept is not None and kept.step == 2


def test_an_overflow_in_16_bits_is_told_with_its_layer(
    do: Any, backend: Any, job_document: Any, tiny_model: Path, tmp_path: Path
) -> None:
    def widen(folder: str) -> None:
        from pathlib import Path

        from safetensors.torch import load_file, save_file

        path = Path(folder) / "model.safetensors"
        tensors = load_file(path)
        for name in ("gate_proj", "up_proj"):
            tensors[f"model.layers.1.mlp.{name}.weight"] *= 3000
        save_file(tensors, path, metadata={"format": "pt"})

    model = shutil.copytree(tiny_model, tmp_path / "wide")
    backend(widen, model)
    job = job_document(model={"id": str(model)})
    assert do(job).exit_code == 0  # bfloat16 holds such numbers
    narrow = {"bnb_4bit_compute_dtype": "float16"}
    done = do({**job, "quantization": narrow})
    assert done.terminal.code == "overflow_16_bits"
    assert "in model.layers.1.mlp.down_proj." in done.terminal.message
