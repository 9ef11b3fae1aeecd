"""One real step: what it takes is measured, running out is a result, and a stop is at once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.errors import JobError
from training_backend.job import ProbeJob, TrainingJob, parse_job
from training_backend.lifecycle import preflight
from training_backend.lifecycle.launch import Worker


def probe_of(document: dict[str, Any]) -> dict[str, Any]:
    job = parse_job(document)
    assert isinstance(job, TrainingJob)
    found: dict[str, Any] = ProbeJob(job=job).model_dump(mode="json")
    return found


def test_a_probe_measures_a_step_on_the_longest_row(
    do: Any, job_document: Any, write_rows: Any
) -> None:
    answers = ["Yes.", "word " * 60 + "end.", "No."]
    write_rows([{"prompt": "Really?", "completion": answer} for answer in answers])
    training = {"max_steps": -1, "gradient_accumulation_steps": 4, "num_train_epochs": 8.0}
    done = do(probe_of(job_document(training=training)))
    assert done.exit_code == 0, done.terminal
    (found,) = done.of("MemoryMeasured")
    assert found.fits and found.device == "cpu"
    assert 60 < found.longest_tokens < 128 and not found.full_length
    # r * (in + out) of all linear layers, in fp32; AdamW keeps two numbers of each and a count.
    one_layer = (64 + 64) + (64 + 32) * 2 + (64 + 64) + (64 + 96) * 3
    adapter = 4 * one_layer * 2 * 4
    assert found.parts["adapter"] == found.parts["gradients"] == adapter
    assert found.parts["optimizer"] == 2 * adapter + 28 * 4
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
    rest = 2 * (49152 * 64 + 5 * 64)
    scales = found.parts["weights"] - rest - linear // 2
    assert 14 * 1024 < scales < 14 * 1500  # mostly the table of the double quantisation
    assert found.parts["weights"] < found.measured_bytes < found.device_total_bytes
    # Two batches an epoch, four to a step: one step, eight times.
    assert found.run_seconds == pytest.approx(8 * found.seconds_per_step, rel=0.5)
    assert [e.phase for e in done.of("PhaseChanged")][:3] == ["loading", "tokenising", "quantising"]
    told = [e for e in done.of("PhaseChanged") if e.phase == "measuring"]
    assert [e.fraction for e in told] == [0, 0.25, 0.5, 0.75, 1]  # two batches a step, two steps
    assert told[0].seconds_left is None and told[-1].seconds_left == 0
    assert not list(done.run.folder.glob("checkpoints/*")) and not done.run.adapter.exists()


@pytest.mark.parametrize(
    ("sections", "batch", "tokens"),
    [
        pytest.param({}, 2, 128, id="without data"),
        pytest.param({"training": {"packing": True}}, 1, 256, id="packed"),
    ],
)
def test_without_data_batches_are_full(
    backend: Any, job_document: Any, lorasmith_home: Path, sections: Any, batch: int, tokens: int
) -> None:
    document = job_document(dataset={"path": "/no/such/rows.jsonl"}, **sections)
    run = runs.create(ProbeJob(job=parse_job(document)))  # type: ignore[arg-type]
    shapes = backend(shapes_of_batches, run.folder)
    assert shapes == [[batch, tokens]] * 2
    (found,) = [event for event in run.events() if event.type == "MemoryMeasured"]
    assert found.longest_tokens == 128 and found.full_length
    # From now on this is what the estimate says; and it was near before.
    known = backend(what_is_known_now, run.folder)
    assert known["measured"] and known["total"] == found.measured_bytes
    stays = ("weights", "adapter", "optimizer")
    assert sum(found.parts[name] for name in stays) < found.allocated_bytes < found.measured_bytes
    traced = found.estimate_bytes - known["overhead"]
    assert found.allocated_bytes == pytest.approx(traced, rel=0.1)
    assert found.run_seconds == pytest.approx(3 * found.seconds_per_step)


def what_is_known_now(folder: str) -> dict[str, Any]:
    from pathlib import Path

    from training_backend.computer.devices import this_device
    from training_backend.runs import Run
    from training_backend.vram import estimate_job

    job = Run(Path(folder)).job().job
    now = estimate_job(job, this_device())
    traced = estimate_job(job, this_device(), corrected=False)
    return {
        "measured": now.measured,
        "total": now.total_bytes,
        "overhead": traced.part("overhead").bytes,
    }


def shapes_of_batches(folder: str) -> list[list[int]]:
    import queue
    from pathlib import Path

    from training_backend import train, worker
    from training_backend.runs import Run

    seen = []

    class Spy(train._Trainer):
        def training_step(self, model, inputs, *rest):
            seen.append(list(inputs["input_ids"].shape))
            if "attention_mask" in inputs:  # not with packing
                assert not inputs["attention_mask"].all()
            return super().training_step(model, inputs, *rest)

    kept, train._Trainer = train._Trainer, Spy
    try:
        assert worker._work(Run(Path(folder)), queue.Queue()) == 0
    finally:
        train._Trainer = kept
    return seen


def probe_with_too_little_memory(folder: str, step: int) -> int:
    """As `work`, but the given batch asks the system for more than there is."""
    import queue
    from pathlib import Path

    import torch

    from training_backend import train, worker
    from training_backend.runs import Run

    class Greedy(train._Trainer):
        def training_step(self, *arguments):
            if self.state.global_step == step:
                torch.empty(2**55)
            return super().training_step(*arguments)

    kept, train._Trainer = train._Trainer, Greedy
    try:
        return worker._work(Run(Path(folder)), queue.Queue())
    finally:
        train._Trainer = kept


@pytest.mark.parametrize(("step", "where"), [(0, "in the first step"), (1, "in the second step")])
def test_running_out_of_memory_is_a_result(
    backend: Any, job_document: Any, lorasmith_home: Path, step: int, where: str
) -> None:
    run = runs.create(ProbeJob(job=parse_job(job_document())))  # type: ignore[arg-type]
    assert backend(probe_with_too_little_memory, run.folder, step) == 0
    (found,) = [event for event in run.events() if event.type == "MemoryMeasured"]
    assert not found.fits and found.ran_out == where
    assert found.measured_bytes > 0 and found.seconds_per_step is None
    assert run.state() == "completed"


def test_a_mistake_in_the_job_fails_the_probe_at_its_field(do: Any, job_document: Any) -> None:
    done = do(probe_of(job_document(lora={"target_modules": ["w_qkv"]})))
    assert done.exit_code == 1
    assert done.terminal.code == "target_unknown"
    assert done.terminal.field == "lora.target_modules"
    assert not done.of("MemoryMeasured")


def test_what_cannot_be_tried_is_said_before_anything_is_loaded(job_document: Any) -> None:
    job = parse_job(job_document(training={"objective": "dpo"}))
    assert isinstance(job, TrainingJob)
    with pytest.raises(JobError) as caught:
        preflight.check(ProbeJob(job=job))
    assert [problem.field for problem in caught.value.problems] == ["training.objective"]


@pytest.mark.slow
def test_a_stop_ends_a_probe_in_the_midst_of_a_long_step(
    lorasmith_home: Path, make_model: Any, job_document: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    model = make_model(num_hidden_layers=8, hidden_size=512, intermediate_size=2048, head_dim=128)
    training = {
        "max_length": 4096, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    document = job_document(
        model={"id": str(model)}, dataset={"path": "/no/such/rows.jsonl"}, training=training
    )
    run = runs.create(ProbeJob(job=parse_job(document)))  # type: ignore[arg-type]
    worker = Worker()
    worker.start(run)
    asked = False
    for event in worker.follow(run):
        if event is not None and event.type == "PhaseChanged" and event.phase == "measuring":
            assert not asked  # the first of four batches, at more than ten seconds each
            time.sleep(1)  # into the forward pass
            run.request("stop")
            asked = True
    worker.process.join(120)
    assert asked and run.state() == "stopped" and worker.process.exitcode == 3


@pytest.mark.slow
def test_the_command_prints_one_document_and_leaves_nothing_behind(
    command_line: Any, lorasmith_home: Path, job_document: Any, tmp_path: Path
) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps(job_document()), encoding="utf-8")
    answer = command_line("probe", path, "--json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert document["fits"] is True and document["measured_bytes"] > 0
    assert not {"type", "seq", "time"} & document.keys()
    assert list((lorasmith_home / "probe-runs").iterdir()) == []
    assert not (lorasmith_home / "runs").exists()
