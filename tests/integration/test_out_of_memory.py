"""Memory runs out in a real step: nothing is lost, and the run goes on, by itself if it may."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.short_of_memory import plant
from training_backend import runs
from training_backend.commands import fit_command
from training_backend.errors import UserError
from training_backend.job import parse_job
from training_backend.lifecycle import checkpoints, inputs, launch, retrying
from training_backend.memory import make_fit, memory_fixes
from training_backend.protocol import Event, RunFailed, RunStarted, WarningRaised
from training_backend.runs import Run


def work_short_of_memory(folder: str, where: str, at: int) -> int:
    """As `work`, where PyTorch can give no memory in the `at`-th call of this part of a step."""
    import queue
    from pathlib import Path

    import torch
    from transformers import LlamaModel

    from training_backend import worker
    from training_backend.runs import Run

    owner, name = (torch.optim.AdamW, "step") if where == "update" else (LlamaModel, "forward")
    real = getattr(owner, name)
    calls = 0

    def run_out(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def short_of_memory(self, *args, **kwargs):
        nonlocal calls
        if where == "update" or self.training != (where == "test"):
            calls += 1
        if calls == at and where in ("forward", "test"):
            torch.rand(7)  # as dropout draws before it fails
            run_out()
        result = real(self, *args, **kwargs)
        if calls == at and where == "backward":
            result.last_hidden_state.register_hook(run_out)
        if calls == at and where == "update":  # the weights are changed already
            run_out()
        return result

    setattr(owner, name, short_of_memory)
    try:
        return worker._work(Run(Path(folder)), queue.Queue())
    finally:
        setattr(owner, name, real)


@pytest.fixture
def demanding_job(job_document: Any) -> dict[str, Any]:
    """Everything that draws random numbers; an epoch is 5 steps, and there are no checkpoints."""
    job: dict[str, Any] = job_document(
        lora={"lora_dropout": 0.2},
        training={"max_steps": 8, "save_steps": 1_000, "gradient_accumulation_steps": 2,
                  "neftune_noise_alpha": 5.0},
        evaluation={"held_out_fraction": 0.25, "eval_steps": 4},
    )  # fmt: skip
    return job


def numbers(events: list[Any]) -> dict[tuple[str, int], tuple[Any, ...]]:
    told: dict[tuple[str, int], tuple[Any, ...]] = {}
    for event in events:
        if event.type == "MetricsLogged":
            told["train", event.step] = (event.loss, event.grad_norm, event.learning_rate)
        elif event.type == "EvaluationLogged":
            told["test", event.step] = (event.loss,)
    return told


def weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def undisturbed(do: Any, demanding_job: dict[str, Any]) -> Any:
    whole = do(demanding_job)
    assert whole.exit_code == 0, whole.sentence
    assert len(numbers(whole.events)) == 8 + 2
    return whole


def test_when_memory_runs_out_the_run_is_saved_at_its_last_good_step_and_goes_on_exactly(
    do: Any, backend: Any, demanding_job: dict[str, Any], undisturbed: Any
) -> None:
    # Two batches a step: the 7th call is the first of step 4, the 8th its second. An epoch ends
    # after 5 steps of which the last has one batch. Steps 4 and 8 are tested.
    for where, at, good in (
        ("backward", 8, 3),
        ("forward", 10, 5),
        ("test", 2, 4),
    ):
        run = runs.create(parse_job(demanding_job))
        assert backend(work_short_of_memory, run.folder, where, at) == 1
        failed = run.events()[-1]
        assert (failed.type, failed.code, failed.goes_on) == ("RunFailed", "out_of_vram", False)
        assert checkpoints.finished(run.checkpoints)[-1].step == good, where
        resumed = do(run)
        assert resumed.exit_code == 0, resumed.sentence
        assert resumed.of("RunStarted")[-1].resumed_from_step == good
        assert numbers(resumed.events) == numbers(undisturbed.events), where
        assert weights(run) == weights(undisturbed.run), where
        assert resumed.terminal.best_step == undisturbed.terminal.best_step


def test_weights_that_are_changed_by_half_are_not_saved(
    backend: Any, demanding_job: dict[str, Any]
) -> None:
    run = runs.create(parse_job(demanding_job))
    assert backend(work_short_of_memory, run.folder, "update", 3) == 1
    assert run.events()[-1].code == "out_of_vram"
    assert checkpoints.finished(run.checkpoints) == []


def test_memory_that_runs_out_in_the_first_step_leaves_nothing_to_save(
    backend: Any, demanding_job: dict[str, Any]
) -> None:
    run = runs.create(parse_job(demanding_job))
    assert backend(work_short_of_memory, run.folder, "forward", 2) == 1
    assert checkpoints.finished(run.checkpoints) == []


# -------------------------------------------------------------------- by itself, where allowed


def work_within_memory(folder: str, rows: int, from_call: int) -> int:
    """As `work`, on a card that from some forward pass on has memory for so many rows only."""
    import queue
    from pathlib import Path

    import torch
    from transformers import LlamaModel

    from training_backend import worker
    from training_backend.runs import Run

    real = LlamaModel.forward
    calls = 0

    def forward(self, input_ids, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls >= from_call and len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, input_ids, *args, **kwargs)

    LlamaModel.forward = forward
    try:
        return worker._work(Run(Path(folder)), queue.Queue())
    finally:
        LlamaModel.forward = real


def followed(backend: Any, run: Run, rows: int) -> list[Event]:
    """What whoever follows the run is told, to its last end."""

    def begin(run: Run) -> Iterator[Event | None]:
        backend(work_within_memory, run.folder, rows, 3)
        return iter([None, *run.events()])

    return [event for event in retrying.follow(run, begin(run), begin) if event is not None]


@pytest.fixture
def allowed_job(job_document: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(launch, "KILL_SECONDS", 0.1)  # the worker here does not end
    job: dict[str, Any] = job_document(
        training={"max_steps": 5, "per_device_train_batch_size": 4, "save_steps": 1_000,
                  "halve_batch_when_out_of_memory": True},
    )  # fmt: skip
    return job


def test_a_run_that_may_halves_its_batch_and_goes_on_by_itself(
    do: Any, backend: Any, allowed_job: dict[str, Any]
) -> None:
    whole = do(allowed_job)
    run = runs.create(parse_job(allowed_job))
    events = followed(backend, run, rows=1)
    assert [event.seq for event in events] == list(range(len(events)))  # each told once
    assert events[-1].type == "RunCompleted"
    started = [event for event in events if event.type == "RunStarted"]
    # Four rows a call: two steps are done. Then two rows a call, so that two calls are one step.
    assert [one.resumed_from_step for one in started] == [None, 2, 3]
    assert not any(one.extended for one in started)
    notes = [e for e in events if isinstance(e, WarningRaised) and e.code == "batch_halved"]
    assert [(n.params["step"], n.params["rows"], n.params["batches"]) for n in notes] == [
        (2, 2, 2), (3, 1, 4),
    ]  # fmt: skip
    assert [e.goes_on for e in events if e.type == "RunFailed"] == [True, True]
    training = run.training_job().training
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (1, 4)
    # The same rows in the same steps: the same losses but for rounding, and the same rates.
    told, expected = numbers(events), numbers(whole.events)
    assert told.keys() == expected.keys()
    for step, (loss, norm, rate) in expected.items():
        assert told[step] == (pytest.approx(loss, rel=1e-3), pytest.approx(norm, rel=0.02), rate)


def test_it_does_so_twice_at_most_and_not_without_leave(
    backend: Any, allowed_job: dict[str, Any]
) -> None:
    allowed_job["training"]["per_device_train_batch_size"] = 8
    run = runs.create(parse_job(allowed_job))
    events = followed(backend, run, rows=1)
    assert [e.goes_on for e in events if e.type == "RunFailed"] == [True, True, False]
    assert events[-1].type == "RunFailed" and run.state() == "failed"
    assert run.training_job().training.per_device_train_batch_size == 2

    allowed_job["training"]["halve_batch_when_out_of_memory"] = False
    run = runs.create(parse_job(allowed_job))
    events = followed(backend, run, rows=1)
    assert [e.goes_on for e in events if e.type == "RunFailed"] == [False]
    assert run.revisions() == 0


def test_a_person_who_stops_the_run_meanwhile_is_obeyed(
    backend: Any, allowed_job: dict[str, Any]
) -> None:
    run = runs.create(parse_job(allowed_job))
    backend(work_within_memory, run.folder, 1, 3)
    events = run.events()
    assert isinstance(events[-1], RunFailed) and events[-1].goes_on
    run.request("stop")
    begun: list[Run] = []
    told = list(retrying.follow(run, iter(events), begun.append))  # type: ignore[arg-type]
    assert [event for event in told if event] == events and begun == [] and run.revisions() == 0


# ------------------------------------------------------------ with a change that the person chose


def test_a_run_goes_on_under_the_changes_that_are_said_to_allow_it(
    do: Any, backend: Any, demanding_job: dict[str, Any]
) -> None:
    demanding_job["quantization"] = {"load_in_4bit": False}
    demanding_job["training"]["activation_checkpointing"] = False
    short = runs.create(parse_job(demanding_job))
    assert backend(work_short_of_memory, short.folder, "forward", 8) == 1
    fixes = memory_fixes.without_estimate(short)
    assert fixes.evidence.saved_step == 3
    assert fixes.estimate is None
    offered = {one.code: one.changes for one in fixes.suggestions}
    offered["four_bit"] = {"quantization.load_in_4bit": True}
    offered["max_length"] = {"training.max_length": 43}  # in the midst of the answers
    able = {code for code, changes in offered.items() if memory_fixes.goes_on(fixes, changes)}
    assert able == {"micro_batch", "checkpointing", "four_bit", "max_length"}
    for number, code in enumerate(("four_bit", "max_length")):  # the boldest
        run = Run(short.folder.with_name(f"{short.id}-{number}"))
        shutil.copytree(short.folder, run.folder)
        job = make_fit.changed(fixes.job, offered[code])
        assert runs.revise(run, job)
        if code == "max_length":
            inputs.accept_changes(run)
        resumed = do(run)
        assert resumed.exit_code == 0, (code, resumed.sentence)
        started = resumed.of("RunStarted")[-1]
        assert (started.resumed_from_step, started.extended) == (3, False)
        assert resumed.terminal.step == 8
        assert "other settings" in resumed.of("LogLine")[-1].message, code


@pytest.mark.slow
def test_the_terminal_works_on_through_the_queue_with_real_workers(
    command_line: Any, allowed_job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path / "site", monkeypatch, rows=2, from_call=3)
    file = tmp_path / "job.json"
    file.write_text(json.dumps({**allowed_job, "name": "short"}), encoding="utf-8")
    answer = command_line("queue", file)
    assert answer.returncode == 0, answer.stderr
    assert "Failed: The card ran out of memory." in answer.stderr
    assert "Memory ran out after step 2. As the job allows, the run went on" in answer.stderr
    assert "1 run came to the end." in answer.stderr and "Traceback" not in answer.stderr
    (summary,) = runs.list_runs()
    events = summary.run.events()
    pids = {event.pid for event in events if isinstance(event, RunStarted)}
    assert len(pids) == 2 and summary.state == "completed" and summary.step == 5


def test_the_terminal_lists_the_fixes_and_goes_on_with_one(
    do: Any,
    backend: Any,
    demanding_job: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = runs.create(parse_job(demanding_job))
    assert backend(work_short_of_memory, run.folder, "forward", 8) == 1
    monkeypatch.setattr(memory_fixes, "find", memory_fixes.without_estimate)  # needs no torch
    monkeypatch.setattr(fit_command, "follow", lambda run, _: do(run).terminal)

    def fit(number: int | None) -> list[str]:
        asked = argparse.Namespace(run=run.id, apply=number, json=False)
        assert fit_command.fit(asked) == 0
        return capsys.readouterr().out.splitlines()

    first, cost, *_ = fit(None)
    assert first == "1  1 row at once instead of 2, accumulated 4 times"
    assert cost.endswith("The run goes on.")
    with pytest.raises(UserError, match="no change number 99"):
        fit(99)
    assert fit(1)[-1] == str(run.folder) and run.state() == "completed"
    assert [e.resumed_from_step for e in run.events() if isinstance(e, RunStarted)] == [None, 3]
    with pytest.raises(UserError, match="is completed"):
        fit(None)
