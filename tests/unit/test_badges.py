"""In which word a model's memory is said, on this device and with these settings."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from training_backend import vram
from training_backend.computer.devices import Device, parse_device
from training_backend.errors import UserError
from training_backend.job import (
    ModelSection,
    QuantizationSection,
    TrainingJob,
    TrainingSection,
)
from training_backend.memory.badges import badge
from training_backend.memory.memory_needs import Needs
from training_backend.models import curated
from training_backend.models.catalog_entry import CatalogEntry
from training_backend.vram import Estimate, TraceNeeded, fit_of

GIB = 2**30
CARD = parse_device("cuda:24GiB")
JOB = TrainingJob.model_validate({"model": {"id": "demo"}, "dataset": {"path": "demo"}})


@pytest.mark.parametrize(
    ("gib", "fit"), [(12, "comfortable"), (20.3, "comfortable"), (20.5, "tight"), (24, "tight"),
                     (24.1, "does_not_fit")],
)  # fmt: skip
def test_tight_is_the_last_part_of_what_is_free(gib: float, fit: str) -> None:
    assert fit_of(int(gib * GIB), CARD) == fit
    busy = replace(parse_device("cuda:32GiB"), used_by_others_bytes=8 * GIB)
    assert fit_of(int(gib * GIB), busy) == fit


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """GiB that a model of the catalogue takes in "16" and "4" bits; others were never traced."""
    table: dict[str, float] = {}

    def estimate_job(job: TrainingJob, device: Device) -> Estimate:
        if curated.entry(job.model.id) is None:
            raise TraceNeeded
        return estimate(job, device)

    def estimate(job: TrainingJob, device: Device) -> Estimate:
        total = int(table["4" if job.quantization.load_in_4bit else "16"] * GIB)
        return Estimate((), total, device, fit_of(total, device), Needs(0, 0, 0, 0, 0, 0))

    def estimate_parameters(parameters: int, job: TrainingJob, device: Device) -> int:
        assert parameters == 7
        return estimate(job, device).total_bytes

    monkeypatch.setattr(vram, "estimate_job", estimate_job)
    monkeypatch.setattr(vram, "estimate_parameters", estimate_parameters)
    return table


CASES = [
    (10, 5, "comfortable"), (23, 5, "tight"), (30, 23, "fits_in_4bit"), (30, 10, "fits_in_4bit"),
    (140, 40, "does_not_fit"),
]  # fmt: skip


@pytest.mark.parametrize(("in_16", "in_4", "expected"), CASES)
def test_a_model_of_the_catalogue(
    sizes: dict[str, float], in_16: float, in_4: float, expected: str
) -> None:
    sizes.update({"16": in_16, "4": in_4})
    assert badge(curated.models()[0], JOB, CARD) == expected


@pytest.mark.parametrize(("in_16", "in_4", "expected"), CASES)
def test_a_model_of_which_only_the_size_is_known(
    sizes: dict[str, float], in_16: float, in_4: float, expected: str
) -> None:
    sizes.update({"16": in_16, "4": in_4})
    assert badge(hub_model(parameters=7), JOB, CARD) == expected


def test_nothing_is_said_of_what_cannot_be_told(
    sizes: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert badge(hub_model(), JOB, CARD) == "unknown"
    assert badge(hub_model(parameters=7, problem="It is a GGUF file."), JOB, CARD) == "unknown"

    def unknown(job: TrainingJob, device: Device) -> Estimate:
        raise UserError("model_unknown", "There is no such model.")

    monkeypatch.setattr(vram, "estimate_job", unknown)
    assert badge(hub_model(), JOB, CARD) == "unknown"


def test_the_whole_catalogue_is_judged_by_the_traces_that_come_with_the_program() -> None:
    for model in curated.models():
        for load_in_4bit in (False, True):
            quantization = QuantizationSection(load_in_4bit=load_in_4bit)
            job = JOB.model_copy(
                update={"model": ModelSection(id=model.id), "quantization": quantization}
            )
            assert vram.estimate_job(job, CARD).total_bytes > 0
    largest = max(curated.models(), key=lambda model: model.parameters or 0)
    assert badge(largest, JOB, CARD) == "does_not_fit"
    assert badge(largest, JOB, parse_device("cuda:2000GiB")) == "comfortable"


def test_the_card_that_a_description_names_is_large_enough() -> None:
    short = JOB.model_copy(
        update={"training": TrainingSection(per_device_train_batch_size=1, max_length=512)}
    )
    named = 0
    for model in curated.models():
        size = re.search(r"cards with (\d+) GB", model.description)
        if size:
            named += 1
            card = parse_device(f"cuda:{size[1]}GB")
            assert badge(model, short, card) in ("comfortable", "tight", "fits_in_4bit"), model.id
    assert named > 10


def hub_model(**details: Any) -> CatalogEntry:
    known = {"parameters": None, **details}
    return CatalogEntry("acme/x", "x", size_bytes=None, licence="", location=None,
                        description="", source="hub", **known)  # fmt: skip
