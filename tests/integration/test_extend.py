"""A run that has ended goes on for longer, as if it had been planned so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs
from training_backend.errors import JobError, UserError
from training_backend.job import ExportJob, parse_job
from training_backend.lifecycle import checkpoints, extend
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import MetricsLogged, RunCompleted, RunFailed, RunStarted, RunStopped
from training_backend.runs import Run


def steps(events: list[Any]) -> dict[int, tuple[Any, ...]]:
    return {
        event.step: (event.loss, event.grad_norm, event.learning_rate)
        for event in events
        if event.type == "MetricsLogged"
    }


def extended(run: Run, **by: Any) -> None:
    runs.revise(run, extend.longer(extend.reached(run), **by))


@pytest.mark.parametrize(
    ("method", "training", "by"),
    [
        pytest.param("lora", {"max_steps": 3}, {"steps": 2}, id="by steps"),
        # Of 24 rows in batches of 6 an epoch has 4 steps.
        pytest.param("lora", {"max_steps": -1, "num_train_epochs": 1.0,
                              "per_device_train_batch_size": 6}, {"epochs": 0.5}, id="by epochs"),
        pytest.param("full", {"max_steps": 3, "method": "full"}, {"steps": 2}, id="full"),
    ],
)  # fmt: skip
def test_an_extended_run_equals_one_that_was_as_long_from_the_start(
    do: Any, job_document: Any, method: str, training: dict[str, Any], by: dict[str, Any]
) -> None:
    def job(**changes: Any) -> dict[str, Any]:
        document: dict[str, Any] = job_document(
            lora={"lora_dropout": 0.2},
            quantization={"load_in_4bit": method == "lora"},
            training={"lr_scheduler_type": "constant", **training, **changes},
        )
        return document

    short = do(job())
    assert short.exit_code == 0
    made = (short.run.folder / "job.json").stat().st_mtime_ns
    before = (short.run.folder / "job.json").read_bytes()
    extended(short.run, **by)
    longer = do(short.run)
    assert longer.exit_code == 0
    if "steps" in by:
        whole = do(job(max_steps=training["max_steps"] + by["steps"]))
    else:
        whole = do(job(num_train_epochs=1.5))
    assert steps(longer.events) == steps(whole.events)
    assert len(steps(longer.events)) == (6 if "epochs" in by else 3 + by["steps"])
    name = "model/model.safetensors" if method == "full" else "adapter/adapter_model.safetensors"
    assert (longer.run.folder / name).read_bytes() == (whole.run.folder / name).read_bytes()

    first, second = longer.of("RunStarted")
    assert not first.extended and second.extended
    assert second.resumed_from_step == short.terminal.step
    assert (short.run.folder / "job.1.json").read_bytes() == before
    assert (short.run.folder / "job.json").stat().st_mtime_ns == made
    assert runs.summary(short.run).total_steps == longer.terminal.step


def test_a_run_of_pairs_can_be_extended(do: Any, job_document: Any, write_rows: Any) -> None:
    write_rows([{"prompt": f"{n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(12)])
    short = do(job_document(training={"objective": "dpo", "max_steps": 2, "learning_rate": 1e-5}))
    assert short.exit_code == 0, short.sentence
    extended(short.run, steps=1)
    longer = do(short.run)
    assert longer.exit_code == 0
    assert sorted(steps(longer.events)) == [1, 2, 3]


def test_a_rate_that_has_fallen_rises_to_where_the_longer_schedule_stands(
    do: Any, job_document: Any
) -> None:
    cosine = {"lr_scheduler_type": "cosine", "warmup_steps": 0.5}
    short = do(job_document(training={**cosine, "max_steps": 4}))
    extended(short.run, steps=4)
    rates = {step: told[2] for step, told in steps(do(short.run).events).items()}
    whole = do(job_document(training={**cosine, "max_steps": 8, "warmup_steps": 2}))
    planned = {step: told[2] for step, told in steps(whole.events).items()}
    assert {step: rates[step] for step in (5, 6, 7, 8)} == {
        step: planned[step] for step in (5, 6, 7, 8)
    }
    assert rates[5] > rates[4] and rates[8] < rates[5]
    assert short.run.training_job().training.warmup_steps == 2


# -------------------------------------------------------------------------- without a worker


@pytest.fixture
def ended(job_document: Any, lorasmith_home: Path) -> Run:
    """A run of 3 epochs, 12 steps each, that says it has completed."""
    run = runs.create(parse_job(job_document(training={"max_steps": -1, "num_train_epochs": 3.0})))
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    for step in range(1, 37):
        writer.append(MetricsLogged(step=step, total_steps=36, epoch=step / 12, loss=1.0))
    writer.append(RunCompleted(folder=str(run.adapter), step=36))
    writer.close()
    staged = run.folder / "staging" / "checkpoint-36"
    staged.mkdir(parents=True)
    run.adapter.mkdir()
    for folder in (run.adapter, staged):
        config = {"peft_type": "LORA", "base_model_name_or_path": "x"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
    checkpoints.commit(staged, run.checkpoints)
    return run


def test_what_is_added_is_told_beforehand(ended: Run) -> None:
    told = extend.reached(ended)
    assert (told.step, told.end, told.checkpoint) == (36, 36, 36)
    assert told.steps_of(1.0) == 12 and told.counts_epochs()
    assert extend.longer(told, epochs=1).training.num_train_epochs == 4
    assert extend.longer(told, steps=5).training.max_steps == 41
    assert extend.longer(told, epochs=1).training.warmup_steps == 2  # 3 % of 36


def test_a_stopped_run_gets_the_steps_on_top_of_those_it_was_to_make(ended: Run) -> None:
    writer = JournalWriter(ended.folder)
    writer.append(MetricsLogged(step=20, total_steps=36, epoch=20 / 12, loss=1.0))
    writer.append(RunStopped(step=20, checkpoint="x"))
    writer.close()
    told = extend.reached(ended)
    assert (told.step, told.end) == (20, 36)
    assert extend.longer(told, epochs=1).training.num_train_epochs == 4
    assert extend.longer(told, steps=5).training.max_steps == 41


def test_extending_again_adds_to_the_longer_job(ended: Run) -> None:
    extended(ended, epochs=1)
    extended(ended, epochs=0.5)
    assert ended.training_job().training.num_train_epochs == 4.5
    assert ended.revisions() == 2
    earlier = json.loads((ended.folder / "job.2.json").read_text())
    assert earlier["training"]["num_train_epochs"] == 4.0


def test_what_cannot_be_extended_is_refused_with_the_reason(ended: Run) -> None:
    with pytest.raises(JobError, match="num_train_epochs"):
        extended(ended, epochs=5_000)
    with ended.worker_lock().acquire(), pytest.raises(UserError, match="Another process"):
        extended(ended, epochs=1)
    shutil.rmtree(ended.checkpoints)
    with pytest.raises(UserError, match="no checkpoint left"):
        extended(ended, epochs=1)
    writer = JournalWriter(ended.folder)
    writer.append(RunFailed(code="x", message="It failed."))
    writer.close()
    with pytest.raises(UserError, match=r"is failed.*Resume it first"):
        extended(ended, epochs=1)
    assert ended.revisions() == 0


def test_a_run_that_stopped_early_is_extended_from_where_it_did(ended: Run) -> None:
    writer = JournalWriter(ended.folder)
    writer.append(MetricsLogged(step=36, total_steps=90, epoch=3.0, loss=1.0))
    writer.append(RunCompleted(folder="x", step=36, early_stopped_after=3))
    writer.close()
    told = extend.reached(ended)
    assert told.stopped_early and told.end == 36
    assert extend.longer(told, epochs=1).training.max_steps == 48


def test_a_run_that_stopped_early_can_go_on_to_its_planned_end(
    do: Any, job_document: Any, write_rows: Any, tmp_path: Path
) -> None:
    write_rows([{"prompt": f"What is {n}?", "completion": f"It is red {n}."} for n in range(4)])
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "What is 1?", "completion": "Blue whale 1"}\n')
    job = job_document(
        quantization={"load_in_4bit": False},
        dataset={"held_out_path": str(held_out)},
        training={"method": "full", "learning_rate": 0.03, "max_steps": 12,
                  "per_device_train_batch_size": 4},
        evaluation={"eval_steps": 1, "early_stopping_patience": 2},
    )  # fmt: skip
    early = do(job)
    assert early.exit_code == 0 and early.terminal.early_stopped_after == 2
    assert early.terminal.step < 12
    runs.revise(early.run, extend.longer(extend.reached(early.run), steps=12 - early.terminal.step))
    later = do(early.run)
    assert later.exit_code == 0 and later.terminal.step > early.terminal.step


def test_while_an_extension_is_unfinished_its_newest_checkpoint_is_what_is_exported(
    ended: Run,
) -> None:
    from training_backend.models.adapters import Adapter, find_source

    def source() -> Path:
        found = find_source(ExportJob(run=str(ended.folder), out="x"))
        assert isinstance(found, Adapter)
        return found.folder

    assert source() == ended.adapter
    extended(ended, epochs=1)
    assert source() == ended.adapter  # nothing has been added yet
    writer = JournalWriter(ended.folder)
    writer.append(RunStarted(run_id=ended.id, folder="x", pid=1, attempt=2, extended=True))
    writer.append(RunFailed(code="x", message="It failed."))
    writer.close()
    assert source() == ended.checkpoints / "checkpoint-36"
    shutil.rmtree(ended.checkpoints)
    assert source() == ended.adapter
