"""A training that becomes slow says so and names why: real steps, with a slowness planted."""

from __future__ import annotations

from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job


def work_slowly(folder: str, cause: str) -> int:
    """As `work`; from step 16 on each step takes several times as long as any before it."""
    import itertools
    import platform
    import queue
    import statistics
    import time
    from pathlib import Path

    import psutil
    import pynvml
    import pytest

    from tests.fake_nvml import GIB, FakeCard, FakeNvml
    from training_backend import worker
    from training_backend.runs import Run
    from training_backend.watching import step_times
    from training_backend.watching.run_watch import RunWatch

    begin = RunWatch.on_step_begin
    load, pause, began = 30.0, 0.0, []

    def slow_step(self, args, state, control, **kwargs):
        nonlocal load, pause
        begin(self, args, state, control, **kwargs)
        began.append(time.monotonic())
        if state.global_step + 1 < 16 or cause == "nothing":
            return
        if not pause:  # whatever else this computer does
            usual = statistics.median(after - at for at, after in itertools.pairwise(began[3:]))
            pause = max(0.2, 5 * usual)
            step_times.WHILE_SECONDS = 3 * pause
        if cause == "memory":
            card.used = 24 * GIB - 2**28
        elif cause == "heat":
            card.reasons, card.clock = pynvml.nvmlClocksThrottleReasonHwThermalSlowdown, 1200
        elif cause == "other":
            card.used = 14 * GIB
        elif cause == "processor":
            load = 100.0
        time.sleep(pause)

    with pytest.MonkeyPatch.context() as patch:
        card = FakeCard(used=6 * GIB)
        patch.setattr(psutil, "cpu_percent", lambda: load)
        if cause in ("memory", "heat", "other"):
            FakeNvml(patch, card)
        if cause == "memory":
            patch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
        patch.setattr(RunWatch, "on_step_begin", slow_step)
        patch.setattr(worker, "SAMPLE_SECONDS", 0.05)
        if cause != "nothing":
            patch.setattr(step_times, "WHILE_SECONDS", 1e9)  # until then
            patch.setattr(step_times, "LOOK_SECONDS", 0.0)
        return worker._work(Run(Path(folder)), queue.Queue())


CAUSES = {
    "unknown": ("slow_unknown", "Neither the card nor the computer shows a cause"),
    "memory": ("slow_memory_full", "The card's memory is full (23.8 of 24.0 GB)"),
    "heat": ("slow_heat", "too hot (61 °C) and slows itself down to 48 % of its speed"),
    "processor": ("slow_processor", "Other programs use"),
    "other": ("slow_other_program", "Another program uses the card"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_slow_step_is_told_with_its_cause(
    backend: Any, job_document: Any, lorasmith_home: Any, cause: str
) -> None:
    training = {"max_steps": 21, "save_steps": 8, "per_device_train_batch_size": 4}
    run = runs.create(parse_job(job_document(training=training)))
    assert backend(work_slowly, run.folder, cause) == 0
    raised = [event for event in run.events() if event.type == "WarningRaised"]
    code, words = CAUSES[cause]
    warning, *worse = [event for event in raised if event.code == code]
    assert all(event.since == warning.since for event in worse)
    assert words in warning.message
    assert warning.since is not None and 9 <= warning.since <= 17 and warning.until is None
    assert f"Since step {warning.since} a step takes" in warning.message
    assert float(warning.params["factor"]) >= 1.7


def test_a_run_that_is_not_slow_raises_no_such_warning(
    backend: Any, job_document: Any, lorasmith_home: Any
) -> None:
    job = job_document(training={"max_steps": 24, "save_steps": 8}, evaluation={
        "held_out_fraction": 0.25, "eval_steps": 8, "prompts": ["Hi"], "max_new_tokens": 4,
    })  # fmt: skip
    run = runs.create(parse_job(job))
    assert backend(work_slowly, run.folder, "nothing") == 0
    assert not [e.code for e in run.events() if e.type == "WarningRaised" and e.since is not None]


def work_on_a_hot_and_overfull_card(folder: str) -> int:
    """As `work`, with a drive that sleeps at each save; no step is slower than another."""
    import platform
    import queue
    import time
    from pathlib import Path

    import pynvml
    import pytest
    import torch

    from tests.fake_nvml import GIB, FakeCard, FakeNvml
    from training_backend import worker
    from training_backend.lifecycle import checkpoints
    from training_backend.runs import Run
    from training_backend.watching import run_watch, slow_causes

    commit = checkpoints.commit

    def slowly(*arguments):
        time.sleep(0.4)
        return commit(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        hot = pynvml.nvmlClocksThrottleReasonSwThermalSlowdown
        FakeNvml(patch, FakeCard(used=int(23.5 * GIB), reasons=hot, clock=1200))
        patch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
        patch.setattr(torch.cuda, "memory_reserved", lambda: 29 * GIB)
        patch.setattr(checkpoints, "commit", slowly)
        patch.setattr(slow_causes, "SLOW_SAVE_SECONDS", 0.3)
        patch.setattr(worker, "SAMPLE_SECONDS", 0.02)
        patch.setattr(run_watch, "Lasting", lambda _: slow_causes.Lasting(5))
        return worker._work(Run(Path(folder)), queue.Queue())


def test_what_a_card_and_a_drive_tell_themselves_needs_no_slower_step(
    backend: Any, job_document: Any, lorasmith_home: Any
) -> None:
    run = runs.create(parse_job(job_document(training={"max_steps": 12, "save_steps": 6})))
    assert backend(work_on_a_hot_and_overfull_card, run.folder) == 0
    told = {e.code: e for e in run.events() if e.type == "WarningRaised" and e.since is not None}
    assert set(told) == {"card_hot", "card_overfull", "slow_disk"}
    assert "too hot (61 °C) and slows itself down to 48 % of its speed" in told["card_hot"].message
    assert "holds 5.5 GB more than the card's memory" in told["card_overfull"].message
    assert told["card_hot"].until is None
    assert told["slow_disk"].since == told["slow_disk"].until
