"""The report on this computer, and what is recommended on others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import HubServer
from training_backend import preferences
from training_backend.computer import doctor, torch_build
from training_backend.computer.doctor_text import as_text, sections
from training_backend.computer.nvidia import Gpu, GpuProcess
from training_backend.computer.other_gpus import OtherGpu
from training_backend.computer.torch_build import TorchBuild
from training_backend.hardware import Hardware, probe
from training_backend.preferences import Preferences

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
    monkeypatch.setattr(torch_build, "installed", lambda: TorchBuild(cuda=cuda))
    return doctor.report()


def test_the_report_on_this_very_computer(lorasmith_home: Path) -> None:
    report = doctor.report()
    assert json.loads(json.dumps(report))["packages"]["transformers"]
    text = as_text(report)
    assert str(lorasmith_home) in text
    assert "not prepared yet" in text
    assert report["packages"]["torch"] in text


def test_the_hub_is_asked_only_on_request(hub: HubServer) -> None:
    report = doctor.report()
    assert report["hub"] == {"endpoint": hub.url, "offline": False, "answers": None}
    assert not hub.asked
    assert "not asked now" in as_text(report)
    assert f"{hub.url}: it answers" in as_text(doctor.report(ask_hub=True))
    hub.fault("api", status=503, times=99)
    assert "503" in as_text(doctor.report(ask_hub=True))
    preferences.save(Preferences(work_offline=True))
    before = len(hub.asked)
    assert "work offline is on" in as_text(doctor.report(ask_hub=True))
    assert len(hub.asked) == before
    preferences.save(Preferences())


def test_it_imports_nothing_heavy(lorasmith_home: Path) -> None:
    script = (
        "import sys; from training_backend import catalog\n"
        "from training_backend.computer import doctor, doctor_text\n"
        "doctor_text.as_text(doctor.report()); catalog.list_models()\n"
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
    ("gib", "smallest", "largest"), [(8, 7, 11), (12, 10, 16), (24, 24, 37), (48, 65, 73)]
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
    assert "RTX Test" in as_text(report)
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
    report = report_on(monkeypatch, volta, "12.6")
    assert report["problems"] == []
    assert "too old for bf16" in as_text(report)


def test_a_maxwell_card_trains_in_16_bit_only(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_on(monkeypatch, replace(computer, gpus=(card(12, (5, 2)),)), "12.6")
    works = {row["name"]: row["works"] for row in report["works"]}
    assert not works["4-bit training (QLoRA) on the GPU"]
    assert works["16-bit training (LoRA) on the GPU"]


def test_of_several_cards_the_used_one_is_named_and_why_not_the_other(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    xorg = GpuProcess(77, "Xorg", None)
    notepad = GpuProcess(78, "", 2 * GIB)
    old = replace(card(2, (6, 1)), name="GT 1030", uuid="GPU-old", processes=(xorg, notepad))
    new = replace(card(24), index=1, uuid="GPU-new", driver_cuda=(13, 0))
    both = replace(computer, gpus=(old, new), nvidia_driver="580.1")
    report = report_on(monkeypatch, both, "13.0")
    assert [row["chosen"] for row in report["cards"]] == [False, True]
    assert report["device"]["uuid"] == "GPU-new"
    text = as_text(report)
    assert "GT 1030: 2.0 GiB of 2.0 GiB free; not used, since it is too old" in text
    assert "RTX Test: 24.0 GiB of 24.0 GiB free; training takes this one" in text
    assert "in use by Xorg (process 77)\n" in text
    assert "in use by a program (process 78): 2.0 GiB" in text
    assert "NVIDIA 580.1" in text and "compute capability 8.9, computes in bf16" in text


def test_a_card_that_the_environment_leaves_out_is_told(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    report = report_on(monkeypatch, replace(computer, gpus=(card(24),)), "13.0")
    assert report["device"]["kind"] == "cpu"
    assert report["works"][0]["note"] == "CUDA_VISIBLE_DEVICES leaves it out"


@pytest.mark.parametrize(
    ("gpu", "hip", "works", "words"),
    [
        (OtherGpu("AMD", "RX 7900 XTX", 24 * GIB, 0, "gfx1100", "amdgpu"), None, False, "ROCm"),
        (OtherGpu("AMD", "RX 7900 XTX", 24 * GIB, 0, "gfx1100", "amdgpu"), "7.1", True, "not been"),
        (OtherGpu("AMD", "Vega 56", 8 * GIB, 0, "gfx900", "amdgpu"), "7.1", True, "16-bit only"),
        (OtherGpu("Intel", "Arc B580", None, None, "", "xe"), None, False, "not been tried"),
    ],
)
def test_other_makers_cards_are_described_as_far_as_they_are_known(
    computer: Hardware,
    monkeypatch: pytest.MonkeyPatch,
    gpu: OtherGpu,
    hip: str | None,
    works: bool,
    words: str,
) -> None:
    report = report_on(monkeypatch, replace(computer, other_gpus=(gpu,)), None)
    monkeypatch.setattr(torch_build, "installed", lambda: TorchBuild(hip=hip))
    report = doctor.report()
    assert report["works"][0]["works"] is works
    assert words in report["works"][0]["note"]
    assert gpu.name in as_text(report)
    assert (report["device"]["kind"] == "cuda") is works


def test_apple_silicon_is_described_as_it_is(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_on(monkeypatch, replace(computer, apple_silicon=True), None)
    assert report["device"]["kind"] == "cpu"
    assert not report["works"][0]["works"]
    assert "Lorasmith uses the processor here" in as_text(report)


def test_an_nvidia_card_without_its_driver_is_a_problem(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = OtherGpu("NVIDIA", "AD102 [GeForce RTX 4090]", None, None, "", "nouveau")
    report = report_on(monkeypatch, replace(computer, other_gpus=(bare,)), "13.0")
    assert "driver is not running" in report["problems"][0]
    assert sections(report)[0].rows[0].tone == "bad"


def test_windows_mig_containers_and_full_disks_are_pointed_out(
    computer: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = replace(card(24), mig=True, wddm=True, used_bytes=12 * GIB)
    small = replace(
        computer, gpus=(instance,), ram_limited=True, models_free_bytes=GIB, models_folder="/big"
    )
    report = report_on(monkeypatch, small, "13.0")
    assert report["problems"] == ["Little room is left on the disk: 1.0 GiB for /big."]
    for word in ("eight times slower", "MIG", "Other programs hold 12.0 GiB", "container"):
        assert any(word in hint for hint in report["hints"])
    gone = replace(small, models_free_bytes=None)
    assert "drive" in report_on(monkeypatch, gone, "13.0")["problems"][0]


def test_a_full_card_is_said(computer: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    full = replace(card(24), free_bytes=GIB, used_bytes=23 * GIB)
    report = report_on(monkeypatch, replace(computer, gpus=(full,)), "13.0")
    assert "close other programs" in report["recommended"]["text"]
