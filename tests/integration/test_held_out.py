"""Tests on held-out rows while a run goes on: the best is kept, and a run ends when it has it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training_backend.runs import Run

RED = [{"prompt": f"What is {n}?", "completion": f"It is red {n}."} for n in range(4)]
BLUE = [{"prompt": f"What is {n}?", "completion": f"Blue whale {n}"} for n in range(4)]
STEADY = {"lr_scheduler_type": "constant", "warmup_steps": 0.0, "per_device_train_batch_size": 4}
OF_AN_ATTEMPT = {"seq", "time", "elapsed"}
MakeJob = Callable[..., dict[str, Any]]


@pytest.fixture
def job_on(job_document: Any, tmp_path: Path) -> MakeJob:
    """A job that is trained on some rows and tested on others after every step."""

    def document(train: Any, held_out: Any, **sections: dict[str, Any]) -> dict[str, Any]:
        files = {"train": train, "held_out": held_out}
        for name, rows in files.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        dataset = {"path": f"{tmp_path}/train.jsonl", "held_out_path": f"{tmp_path}/held_out.jsonl"}
        sections["training"] = {**STEADY, **sections.get("training", {})}
        sections["evaluation"] = {"eval_steps": 1, **sections.get("evaluation", {})}
        job: dict[str, Any] = job_document(dataset=dataset, **sections)
        return job

    return document


def _held_out(events: list[Any]) -> dict[int, float]:
    return {e.step: e.loss for e in events if e.type == "EvaluationLogged"}


def _cut_off_after(run: Run, step: int) -> None:
    """Make the run look as if it had been killed after `step`, and then restarted."""
    shutil.rmtree(run.model)
    for folder in run.checkpoints.iterdir():
        if int(folder.name.removeprefix("checkpoint-")) > step:
            shutil.rmtree(folder)
    journal = run.folder / "events.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))


def is_rounded(model: str, checkpoint: str) -> bool:
    """Whether a model is a checkpoint's weights in the model's own type of numbers."""
    from safetensors.torch import load_file

    kept = load_file(f"{model}/model.safetensors")
    known = load_file(f"{checkpoint}/model.safetensors")
    return len(kept) > 5 and all(v.equal(known[name].to(v.dtype)) for name, v in kept.items())


def test_a_run_that_learns_by_heart_says_so_ends_early_and_keeps_its_best_model(
    backend: Any, do: Any, job_on: MakeJob
) -> None:
    done = do(
        job_on(
            RED,
            BLUE,
            quantization={"load_in_4bit": False},
            training={"method": "full", "learning_rate": 0.03, "max_steps": 20, "save_steps": 1,
                      "save_total_limit": 2},
            evaluation={"early_stopping_patience": 3, "prompts": ["Hi"], "max_new_tokens": 2},
        )
    )  # fmt: skip
    run, losses, ended = done.run, _held_out(done.events), done.terminal
    best = min(losses, key=losses.__getitem__)
    last = best + 3
    assert ended.type == "RunCompleted"
    assert list(losses) == list(range(1, last + 1)) and last < 20
    assert (ended.step, ended.early_stopped_after) == (last, 3)
    assert (ended.best_step, ended.best_loss) == (best, losses[best])
    kept = {folder.name for folder in run.checkpoints.iterdir()}
    assert kept == {f"checkpoint-{step}" for step in (best, last - 1, last)}
    assert backend(is_rounded, run.model, run.checkpoints / f"checkpoint-{best}")

    (warning,) = (event for event in done.of("WarningRaised") if event.code == "overfitting")
    assert warning.params["step"] == best
    assert f"The model of step {best} is kept." in warning.message
    told = [(event.step, event.base) for event in done.of("SampleGenerated")]
    assert told == [(step, step == 0) for step in range(last + 1)]

    # Cut off before the last test, and after it: as patient as before, with the same result.
    model = (run.model / "model.safetensors").read_bytes()
    for step, tested in ((last - 1, [last]), (last, [])):
        _cut_off_after(run, step)
        resumed = do(run)
        began = resumed.events.index(resumed.of("RunStarted")[-1])
        assert list(_held_out(resumed.events[began:])) == tested
        assert _held_out(resumed.events) == losses
        again = resumed.terminal.model_dump(exclude=OF_AN_ATTEMPT)
        assert again == ended.model_dump(exclude=OF_AN_ATTEMPT)
        assert (run.model / "model.safetensors").read_bytes() == model


@pytest.fixture(scope="module")
def red_model(make_model: Any, backend: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers in red: what it learns then makes it worse at that."""
    folder: Path = make_model()
    backend(paint_red, folder, [row["completion"] for row in RED])
    return folder


def paint_red(folder: str, answers: list[str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = [
        tokenizer(text + tokenizer.eos_token, return_tensors="pt").input_ids for text in answers
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(12):
        for row in rows:
            model(input_ids=row, labels=row).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(
            {
                "quantization": {"load_in_4bit": True},
                "lora": {"use_dora": True, "modules_to_save": ["norm"]},
            },
            id="DoRA in 4-bit, norms in full",
        ),
        pytest.param(
            {"quantization": {"load_in_4bit": False}, "lora": {"init_lora_weights": "pissa"}},
            id="PiSSA",
        ),
    ],
)
def test_the_adapter_that_is_kept_is_that_of_a_run_which_ended_there(
    do: Any, job_on: MakeJob, red_model: Path, method: dict[str, Any]
) -> None:
    model = {"model": {"id": str(red_model)}}
    training = {"learning_rate": 0.02, "max_steps": 3}  # checkpoints only where it was best
    kept = do(job_on(BLUE, RED, **model, **method, training=training))
    losses, best = _held_out(kept.events), kept.terminal.best_step
    assert losses[best] == min(losses.values()) < losses[3]
    assert kept.terminal.early_stopped_after is None and kept.terminal.step == 3

    shorter, off = {**training, "max_steps": best}, {"keep_best": False}
    ended = do(job_on(BLUE, RED, **model, **method, training=shorter, evaluation=off))
    assert ended.terminal.best_step is None
    adapters = [(done.run.adapter / "adapter_model.safetensors") for done in (kept, ended)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_answers_of_a_run_from_an_adapter_begin_with_those_of_the_base(
    do: Any, job_document: Any
) -> None:
    asked = {"prompts": ["What is 3 and 3?"], "max_new_tokens": 3}
    first = do(job_document(training={"max_steps": 2, "learning_rate": 0.1}, evaluation=asked))
    base, learned = first.of("SampleGenerated")
    assert base.answer != learned.answer
    job = job_document(training={"max_steps": 1}, evaluation=asked)
    second = do({**job, "model": {**job["model"], "adapter": str(first.run.adapter)}})
    told = [(e.step, e.base, e.answer) for e in second.of("SampleGenerated")]
    assert told[:2] == [(0, True, base.answer), (0, False, learned.answer)]
    assert [step for step, _, _ in told] == [0, 0, 1]
