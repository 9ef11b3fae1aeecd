"""What is offered after a run that ran out of memory, and what becomes of the run by each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training_backend import runs, vram
from training_backend.computer.devices import parse_device
from training_backend.job import parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.memory import make_fit, memory_fixes
from training_backend.protocol import MemorySampled, MetricsLogged, RunFailed, RunStarted
from training_backend.runs import Run

CARD = parse_device("cuda:24GiB")
pytestmark = pytest.mark.usefixtures("lorasmith_home")


def failed_run(
    code: str = "out_of_vram", saved_step: int | None = 7, log: str = "", **sections: Any
) -> Run:
    job = {"model": {"id": "Qwen/Qwen3-4B"}, "dataset": {"path": "demo"}, **sections}
    run = runs.create(parse_job(job))
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    writer.append(
        MemorySampled(
            device="cuda:0", process_bytes=22 * 2**30, device_used_bytes=23 * 2**30,
            device_total_bytes=24 * 2**30,
        )
    )  # fmt: skip
    writer.append(MetricsLogged(step=7, total_steps=20, epoch=0.1, loss=1.0))
    writer.append(RunFailed(code=code, message="The card ran out of memory."))
    writer.close()
    if saved_step is not None:
        folder = run.checkpoints / f"checkpoint-{saved_step}"
        folder.mkdir(parents=True)
        (folder / "COMPLETE.json").write_text(json.dumps({"step": saved_step}))
    run.log_path.write_text(log, encoding="utf-8")
    return run


def test_that_it_did_not_fit_is_better_knowledge_than_the_estimate() -> None:
    run = failed_run(log="torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.50 GiB.")
    job = run.training_job()
    estimated = vram.estimate_job(job, CARD)
    assert estimated.fit != "does_not_fit"
    fixes = memory_fixes.find(run, CARD)
    assert fixes.estimate is not None and fixes.estimate.fit == "does_not_fit"
    needed = int(estimated.total_bytes * (1 - 1.5 / (22 + 1.5)))  # 22 GiB were held
    assert fixes.estimate.device.available_bytes == needed
    assert fixes.plan.fits and fixes.plan.total_bytes <= needed
    changed = make_fit.changed(job, fixes.plan.changes)
    assert vram.estimate_job(changed, CARD).total_bytes == fixes.plan.total_bytes
    assert fixes.suggestions[0].code == "micro_batch"  # the least harm first
    assert (fixes.evidence.saved_step, fixes.evidence.memory is not None) == (7, True)


def test_what_was_never_estimated_is_offered_without_numbers() -> None:
    run = failed_run(training={"method": "full", "activation_checkpointing": False},
                     quantization={"load_in_4bit": False})  # fmt: skip
    fixes = memory_fixes.find(run, CARD)
    assert fixes.estimate is None and not fixes.plan.steps
    codes = [one.code for one in fixes.suggestions]
    assert codes[:2] == ["micro_batch", "checkpointing"] and "four_bit" not in codes
    for one in fixes.suggestions:  # every one of them is a job that can be done
        parse_job(make_fit.changed(fixes.job, one.changes).model_dump(mode="json"))


@pytest.mark.parametrize(
    ("changes", "sections", "goes_on"),
    [
        ({"training.per_device_train_batch_size": 1}, {}, True),
        ({"training.activation_checkpointing": True}, {}, True),
        ({"training.max_length": 512}, {}, True),
        ({"training.max_length": 512}, {"training": {"packing": True}}, False),
        ({"quantization.load_in_4bit": True}, {"quantization": {"load_in_4bit": False}}, True),
        (
            {"quantization.load_in_4bit": True},
            {"quantization": {"load_in_4bit": False}, "lora": {"init_lora_weights": "olora"}},
            False,
        ),
        ({"training.optim": "adamw_8bit"}, {}, False),
        ({"lora.r": 8, "lora.lora_alpha": 16}, {}, False),
        ({"model.id": "Qwen/Qwen3-0.6B"}, {}, False),
        (
            {"training.per_device_train_batch_size": 1, "training.optim": "adamw_8bit"}, {}, False
        ),
    ],
)  # fmt: skip
def test_a_run_goes_on_where_its_checkpoint_means_the_same(
    changes: dict[str, Any], sections: dict[str, Any], goes_on: bool
) -> None:
    fixes = memory_fixes.find(failed_run(**sections), CARD)
    assert memory_fixes.goes_on(fixes, changes) is goes_on


def test_a_run_without_a_checkpoint_has_nothing_that_could_not_go_with_a_change() -> None:
    fixes = memory_fixes.find(failed_run(saved_step=None), CARD)
    assert memory_fixes.goes_on(fixes, {"training.optim": "adamw_8bit"})
    assert not memory_fixes.goes_on(fixes, {"model.id": "Qwen/Qwen3-0.6B"})


def test_where_the_computers_memory_ran_out_the_batch_on_the_card_is_not_blamed() -> None:
    fixes = memory_fixes.find(failed_run("out_of_ram_likely"), CARD)
    assert fixes.in_ram and {one.code for one in fixes.suggestions} <= {"smaller_model"}
    on_cpu = memory_fixes.find(failed_run("out_of_ram"), parse_device("cpu:16GiB"))
    assert not on_cpu.in_ram and on_cpu.suggestions[0].code == "micro_batch"


@pytest.mark.parametrize(
    ("log", "size"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has", 20 * 2**20),
        ("tried to allocate 8589934592 bytes. Error code 12", 2**33),
        ("Tried to allocate 1.00 GiB.\nlater\nTried to allocate 2.00 GiB.", 2**31),
        ("Killed", None),
        ("", None),
    ],
)
def test_what_was_asked_for_last_is_read_from_pytorchs_words(log: str, size: int | None) -> None:
    assert memory_fixes.asked_bytes(log) == size


def test_a_damaged_job_is_a_sentence(tmp_path: Path) -> None:
    run = failed_run()
    (run.folder / "job.json").write_text("{")
    with pytest.raises(Exception, match=r"job\.json is not valid JSON"):
        memory_fixes.find(run, CARD)
