"""A training that becomes slow says so and names why: real steps, with a slowness planted."""

from __future__ import annotations

from typing import Any

import pytest

from training_backend import runs
from training_backend.job import parse_job


def work_slowly(folder: str, cause: str) -> int:
    """As `work`; from step 16 to step 30 each step takes a quarter of a second longer."""
    import platform
    import queue
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
    load = 30.0

    def slow_step(self, args, state, control, **kwargs):
        nonlocal load
        begin(self, args, state, control, **kwargs)
        if not 16 <= state.global_step + 1 <= 30:
            return
        if cause == "memory":
            card.used = 24 * GIB - 2**28
        elif cause == "heat":
            card.reasons, card.clock = pynvml.nvmlClocksThrottleReasonHwThermalSlowdown, 1200
        elif cause == "other":
            card.used = 14 * GIB
        elif cause == "processor":
            load = 100.0
        if cause != "nothing":
            time.sleep(0.25)

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
            patch.setattr(step_times, "WHILE_SECONDS", 0.8)
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
    training = {"max_steps": 24, "save_steps": 8, "per_device_train_batch_size": 4}
    run = runs.create(parse_job(job_document(training=training)))
    assert backend(work_slowly, run.folder, cause) == 0
    raised = [event for event in run.events() if event.type == "WarningRaised"]
    code, words = CAUSES[cause]
    (warning,) = [event for event in raised if event.code == code]
    assert words in warning.message
    assert warning.since is not None and 15 <= warning.since <= 17 and warning.until is None
    assert f"Since step {warning.since} a step takes" in warning.message
    assert float(warning.params["factor"]) > 2


def test_a_run_that_is_not_slow_raises_no_such_warning(
    backend: Any, job_document: Any, lorasmith_home: Any
) -> None:
    job = job_document(training={"max_steps": 24, "save_steps": 8}, evaluation={
        "held_out_fraction": 0.25, "eval_steps": 8, "prompts": ["Hi"], "max_new_tokens": 4,
    })  # fmt: skip
    run = runs.create(parse_job(job))
    assert backend(work_slowly, run.folder, "nothing") == 0
    assert not [e.code for e in run.events() if e.type == "WarningRaised" and e.since is not None]
