"""When one real step is worth trying before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training_backend.computer.devices import Device
from training_backend.job import TrainingJob
from training_backend.memory import memory_records
from training_backend.memory.worth_measuring import reason_to_measure
from training_backend.starting_points.demo import demo_job
from training_backend.vram import estimate_job

pytestmark = pytest.mark.usefixtures("lorasmith_home")
GIB = 2**30
CARD = Device("cuda", "A card", 24 * GIB)
COMPUTER = Device("cpu", "A processor", 24 * GIB)


def job(**training: Any) -> TrainingJob:
    demo = demo_job()
    return demo.model_copy(update={"training": demo.training.model_copy(update=training)})


def test_a_short_run_with_room_needs_no_trial() -> None:
    assert reason_to_measure(job(max_steps=20), CARD) == ""
    assert reason_to_measure(job(max_steps=20), COMPUTER) == ""


def test_a_long_run_is_worth_one(lorasmith_home: Path) -> None:
    long = job(max_steps=50_000, max_length=2048)
    assert reason_to_measure(long, CARD) == "long"
    assert reason_to_measure(long, COMPUTER) == "long"


def test_a_tight_one_is_until_it_was_measured() -> None:
    tried = job(max_steps=20)
    needs = estimate_job(tried, CARD).total_bytes
    small = Device("cuda", "A small card", int(needs * 1.05), uuid="GPU-1")
    assert reason_to_measure(tried, small) == "tight"
    memory_records.remember(tried, small, needs, needs)
    assert reason_to_measure(tried, small) == ""


def test_what_is_far_too_much_is_not() -> None:
    tried = job(max_steps=50_000)
    needs = estimate_job(tried, CARD).total_bytes
    assert reason_to_measure(tried, Device("cuda", "A tiny card", needs // 2)) == ""
    assert reason_to_measure(tried, Device("cuda", "A small card", int(needs / 1.1))) == "tight"
