"""The device that training takes, among the cards that are there."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.metadata import version

import pytest

from tests.fake_nvml import GIB, FakeCard, FakeNvml
from training_backend import preferences
from training_backend.computer import torch_build
from training_backend.computer.devices import chosen_gpu, parse_device, this_device
from training_backend.computer.memory_sampler import MemorySampler
from training_backend.computer.nvidia import find_cards
from training_backend.computer.other_gpus import OtherGpu
from training_backend.computer.torch_build import TorchBuild
from training_backend.errors import UserError
from training_backend.hardware import probe
from training_backend.lifecycle import child_process
from training_backend.preferences import Preferences

pytestmark = pytest.mark.usefixtures("lorasmith_home", "no_choice_of_the_environment")


@pytest.fixture
def no_choice_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def chosen() -> str:
    gpu = chosen_gpu(find_cards().gpus)
    return "" if gpu is None else gpu.uuid


def test_the_first_card_unless_the_person_chose_another(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(monkeypatch, FakeCard("GPU-a"), FakeCard("GPU-b", "NVIDIA RTX A6000", 48 * GIB))
    assert chosen() == "GPU-a"
    preferences.save(Preferences(gpu="GPU-b"))
    assert chosen() == "GPU-b"
    device = this_device()
    assert (device.kind, device.name, device.uuid) == ("cuda", "NVIDIA RTX A6000", "GPU-b")
    assert (device.total_bytes, device.available_bytes) == (48 * GIB, 44 * GIB)
    preferences.save(Preferences(gpu="GPU-taken-out"))
    assert chosen() == "GPU-a"


def test_the_environment_goes_before_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(monkeypatch, FakeCard("GPU-a"), FakeCard("GPU-b"))
    preferences.save(Preferences(gpu="GPU-a"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert chosen() == "GPU-b"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert this_device().kind == "cpu"


def test_a_card_that_torch_cannot_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    old = FakeCard("GPU-old", "NVIDIA GeForce GT 1030", 2 * GIB, capability=(6, 1))
    new = FakeCard("GPU-new")
    FakeNvml(monkeypatch, old, new, cuda="13.0")
    assert chosen() == "GPU-new"
    monkeypatch.setattr(os, "environ", dict(os.environ))
    child_process.choose_card()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-new"

    FakeNvml(monkeypatch, old, new, cuda=None)
    del os.environ["CUDA_VISIBLE_DEVICES"]
    device = this_device()
    assert device.kind == "cpu"
    assert device.total_bytes == probe().ram_total_bytes


def test_an_instance_of_a_divided_card_is_shown_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = FakeCard("MIG-x", "NVIDIA H100 MIG 1g.10gb", 10 * GIB, 0, (9, 0))
    FakeNvml(monkeypatch, FakeCard("GPU-0", "NVIDIA H100", instances=[instance]))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    child_process.choose_card()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-x"
    assert this_device().total_bytes == 10 * GIB


def test_the_memory_chart_shows_what_training_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    preferences.save(Preferences(gpu="GPU-b"))
    for cuda, device in (("13.0", "cuda:1"), (None, "cpu")):
        FakeNvml(monkeypatch, FakeCard("GPU-a"), FakeCard("GPU-b"), cuda=cuda)
        sample = MemorySampler().read()
        assert sample is not None and sample.device == device


@pytest.mark.parametrize(
    ("cuda", "capability", "word"),
    [
        ("13.0", (7, 5), ""),
        ("13.0", (7, 0), "too old"),
        ("12.6", (7, 0), ""),
        ("12.6", (5, 2), ""),
        ("12.6", (3, 7), "too old"),
        ("12.6", (12, 0), "too new"),
        ("13.2", (12, 0), ""),
        (None, (9, 0), "processor only"),
    ],
)
def test_which_cards_a_build_of_torch_computes_on(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, capability: tuple[int, int], word: str
) -> None:
    FakeNvml(monkeypatch, FakeCard(capability=capability))
    reason = TorchBuild(cuda=cuda).why_not(find_cards().gpus[0])
    assert word in reason and bool(reason) == bool(word)


def test_an_amd_card_counts_only_with_pytorch_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card = OtherGpu("AMD", "Radeon RX 7900 XTX", 24 * GIB, GIB, "gfx1100", "amdgpu")
    computer = replace(probe(), gpus=(), other_gpus=(card,))
    monkeypatch.setattr(torch_build, "installed", TorchBuild)
    assert this_device(computer).kind == "cpu"
    monkeypatch.setattr(torch_build, "installed", lambda: TorchBuild(hip="7.1"))
    device = this_device(computer)
    assert (device.kind, device.name) == ("cuda", "Radeon RX 7900 XTX")
    assert device.available_bytes == 23 * GIB


def test_a_driver_older_than_pytorchs_cuda_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(monkeypatch, FakeCard(), cuda="13.0", driver_cuda=12040)
    assert this_device().kind == "cpu"
    assert "CUDA up to 12.4" in TorchBuild(cuda="13.0").why_not(find_cards().gpus[0])
    assert TorchBuild(cuda="12.6").why_not(find_cards().gpus[0]) == ""  # of the same major version


@pytest.mark.parametrize(
    ("lines", "build"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", TorchBuild()),
        ("debug = False\ncuda: Optional[str] = '12.6'\n", TorchBuild(cuda="12.6")),
        ("cuda = '13.0'\nhip = None\nxpu = None\n", TorchBuild(cuda="13.0")),
        ("cuda = None\nhip: Optional[str] = '7.1.52802'\n", TorchBuild(hip="7.1.52802")),
        ("cuda = None\nxpu: Optional[str] = '20250302'\n", TorchBuild(xpu="20250302")),
        ("", TorchBuild()),
    ],
)
def test_for_what_pytorch_was_built_is_read_from_its_files(lines: str, build: TorchBuild) -> None:
    assert torch_build.parse(f"__version__ = '2.13.0'\n{lines}") == build
    assert torch_build.version_of("12.6.3") == (12, 6)
    assert torch_build.version_of("13") == (13, 0)


def test_the_installed_build_is_that_of_its_version() -> None:
    build = torch_build.installed()
    assert (build.cuda is None) == version("torch").endswith("+cpu") or build.hip or build.xpu


def test_an_imagined_device() -> None:
    card = parse_device("cuda:24GiB")
    assert (card.kind, card.total_bytes, card.imagined) == ("cuda", 24 * GIB, True)
    assert parse_device("CPU:16GB").total_bytes == 16 * 10**9
    with pytest.raises(UserError) as caught:
        parse_device("cuda:24")
    assert caught.value.code == "device_unknown"
