from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training_backend.computer.devices import Device
from training_backend.job import TrainingJob, parse_job
from training_backend.memory import memory_records
from training_backend.vram import estimate_job

GIB = 2**30
HERE = Device("cuda", "a card", 24 * GIB, uuid="GPU-1")

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def job(**training: Any) -> TrainingJob:
    document = {"model": {"id": "demo"}, "dataset": {"path": "d"}, "training": training}
    found = parse_job(document)
    assert isinstance(found, TrainingJob)
    return found


def test_what_was_measured_replaces_the_estimate_of_the_same_settings() -> None:
    before = estimate_job(job(), HERE)
    memory_records.remember(job(), HERE, before.total_bytes, 5 * GIB, longest_tokens=1024)
    after = estimate_job(job(), HERE)
    assert not before.measured and after.measured
    assert after.total_bytes == sum(part.bytes for part in after.parts) == 5 * GIB
    assert estimate_job(job(), HERE, corrected=False) == before
    # Neither the learning rate nor more accumulation changes what a step takes.
    assert estimate_job(job(learning_rate=1e-3, gradient_accumulation_steps=8), HERE).measured
    assert not estimate_job(job(max_length=2048), HERE).measured


def test_a_measurement_counts_for_its_own_card_only() -> None:
    memory_records.remember(job(), HERE, GIB, 2 * GIB)
    assert memory_records.measured(job(), HERE) == 2 * GIB
    assert memory_records.measured(job(), replace(HERE, uuid="GPU-2")) is None
    assert memory_records.measured(job(), replace(HERE, imagined=True)) is None


def test_shorter_rows_than_allowed_correct_but_do_not_replace() -> None:
    memory_records.remember(job(), HERE, GIB, 2 * GIB, longest_tokens=300)
    assert memory_records.measured(job(), HERE) is None


def test_the_correction_is_the_median_of_several_measurements() -> None:
    lengths = (256, 512, 1024, 2048, 4096)
    for length, beyond in zip(lengths, (100, 120, 110, 90_000_000_000, 130), strict=True):
        assert memory_records.correction(HERE) in (0, 110, 115)
        memory_records.remember(job(max_length=length), HERE, GIB, GIB + beyond)
    assert memory_records.correction(HERE) == 120
    plain = estimate_job(job(max_length=8192), HERE, corrected=False).total_bytes
    assert estimate_job(job(max_length=8192), HERE).total_bytes == plain + 120


def test_one_measurement_is_kept_for_each_job_and_the_newest_counts() -> None:
    memory_records.remember(job(), HERE, GIB, 2 * GIB)
    memory_records.remember(job(), HERE, GIB, 3 * GIB)
    assert memory_records.measured(job(), HERE) == 3 * GIB
    assert memory_records.correction(HERE) == 0  # one alone could mislead


def test_a_damaged_file_reads_as_no_measurements(lorasmith_home: Path) -> None:
    memory_records.remember(job(), HERE, GIB, 2 * GIB)
    for text in ("{", "[]", "3", '[{"job": 1}]', '["x", null]'):
        (lorasmith_home / "memory" / "measurements.json").write_text(text)
        assert memory_records.measured(job(), HERE) is None
        assert memory_records.correction(HERE) == 0
    memory_records.remember(job(), HERE, GIB, 2 * GIB)
    assert memory_records.measured(job(), HERE) == 2 * GIB
