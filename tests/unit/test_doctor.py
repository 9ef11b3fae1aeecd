"""The report on this computer, and what is recommended on others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training_backend import doctor
from training_backend.hardware import Gpu, Hardware, probe

GIB = 2**30


@pytest.fixture
def computer(lorasmith_home: Path) -> Hardware:
    """This computer as if it had 16 GiB of free memory and no card."""
    return replace(probe(), gpus=(), no_gpu_because="no card", ram_available_bytes=16 * GIB)


def card(gib: int, capability: tuple[int, int] = (8, 9)) -> Gpu:
    size = gib * GIB
    bf16 = capability[0] >= 8
    return Gpu(0, "RTX Test", "GPU-0", size, size, 0, capability, bf16, None, None, ())


def report_on(
    monkeypatch: pytest.MonkeyPatch, hardware: Hardware, cuda: str | None
) -> dict[str, Any]:
    monkeypatch.setattr(doctor, "probe", lambda: hardware)
    monkeypatch.setattr(doctor, "_torch_cuda", lambda: cuda)
    return doctor.report()


def test_the_report_on_this_very_computer(lorasmith_home: Path) -> None:
    report = doctor.report()
    assert json.loads(json.dumps(report))["packages"]["transformers"]
    text = doctor.as_text(report)
    assert str(lorasmith_home) in text
    assert "Demo model: not prepared yet." in text
    assert report["packages"]["torch"] in text


def test_it_imports_nothing_heavy(lorasmith_home: Path) -> None:
    script = (
        "import sys; from training_backend import catalog, doctor\n"
        "doctor.as_text(doctor.report()); catalog.list_models()\n"
        "print({'torch', 'transformers', 'huggingface_hub', 'gguf', 'PySide6'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr


def test_without_a_card_small_models_on_the_processor(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_on(monkeypatch, computer, None)
    assert report["recommended"]["billions_4bit"] == 0.5
    assert "500 million" in report["recommended"]["text"]
    assert {row["name"]: row["works"] for row in report["works"]}["Training on a GPU"] is False


@pytest.mark.parametrize(
    ("gib", "smallest", "largest"), [(8, 6, 8), (12, 10, 14), (24, 20, 34), (48, 55, 70)]
)
def test_published_sizes_fit_their_cards(
    computer: Hardware,
    monkeypatch: pytest.MonkeyPatch,
    gib: int,
    smallest: float,
    largest: float,
) -> None:
    report = report_on(monkeypatch, replace(computer, gpus=(card(gib),)), "12.8")
    assert smallest <= report["recommended"]["billions_4bit"] <= largest
    assert "RTX Test" in doctor.as_text(report)
    assert report["problems"] == []


def test_a_card_that_torch_cannot_use_is_a_problem(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_card = replace(computer, gpus=(card(24),))
    report = report_on(monkeypatch, with_card, None)
    assert report["recommended"]["device"] == "cpu"
    assert "processor only" in report["problems"][0]
    volta = replace(computer, gpus=(card(16, (7, 0)),))
    assert "too old" in report_on(monkeypatch, volta, "13.0")["problems"][0]
    assert report_on(monkeypatch, volta, "12.8")["problems"] == []


def test_a_full_card_is_said(computer: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    full = replace(card(24), free_bytes=GIB, used_bytes=23 * GIB)
    report = report_on(monkeypatch, replace(computer, gpus=(full,)), "13.0")
    assert "close other programs" in report["recommended"]["text"]
