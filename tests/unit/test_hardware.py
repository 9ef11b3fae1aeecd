"""What the computer has. NVML's real answer, and where there is no card, a stand-in for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from training_backend import hardware
from training_backend.hardware import GpuReader, probe

GIB = 2**30


def has_card() -> bool:
    return bool(probe().gpus)


def test_the_probe_of_this_very_computer(lorasmith_home: Path) -> None:
    found = probe()
    assert found.home == str(lorasmith_home)
    assert found.ram_total_bytes == psutil.virtual_memory().total
    assert 0 < found.ram_available_bytes <= found.ram_total_bytes
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.cpu
    assert found.disk_free_bytes > 0
    assert bool(found.gpus) != bool(found.no_gpu_because)
    assert json.loads(json.dumps(found.to_json()))["cpu"] == found.cpu


def test_no_nvidia_library_is_a_normal_case(
    lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    found = probe()
    assert found.gpus == ()
    assert found.nvidia_driver is None
    assert found.no_gpu_because == "no NVIDIA driver is installed or running"
    reader = GpuReader()
    assert reader.read() is None
    reader.close()


@pytest.mark.gpu
def test_a_real_card_is_read(lorasmith_home: Path) -> None:
    if not has_card():
        pytest.skip("there is no NVIDIA card")
    card = probe().gpus[0]
    reader = GpuReader(card.uuid)
    sample = reader.read()
    assert sample is not None
    assert (sample.name, sample.total_bytes) == (card.name, card.total_bytes)
    assert 0 <= sample.used_bytes <= sample.total_bytes
    assert sample.utilization is None or 0 <= sample.utilization <= 1
    reader.close()
    assert reader.read() is None


class FakeCard:
    """Answers for two cards as NVML does; names in `silent` are not supported."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, silent: set[str] | None = None) -> None:
        self.opened = 0
        used = SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB)
        untold = SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)
        answers: dict[str, Any] = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetHandleByIndex": lambda index: f"card{index}",
            "nvmlDeviceGetHandleByUUID": lambda uuid: f"card{uuid[-1]}",
            "nvmlDeviceGetIndex": lambda handle: int(handle[-1]),
            "nvmlDeviceGetName": lambda handle: "NVIDIA GeForce RTX 4090",
            "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle[-1]}",
            "nvmlDeviceGetMemoryInfo": lambda handle, version=None: SimpleNamespace(
                total=24 * GIB, used=4 * GIB, free=20 * GIB
            ),
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (8, 9),
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=97),
            "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
            "nvmlDeviceGetPowerUsage": lambda handle: 312_500,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [used],
            "nvmlDeviceGetGraphicsRunningProcesses": lambda handle: [untold],
        }

        def unsupported(*_: object) -> None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, unsupported if name in (silent or ()) else answer)
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: self._count(1))
        monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: self._count(-1))

    def _count(self, step: int) -> None:
        self.opened += step


def test_every_value_of_a_card(lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeCard(monkeypatch)
    found = probe()
    assert [card.uuid for card in found.gpus] == ["GPU-0", "GPU-1"]
    card = found.gpus[0]
    assert card.bf16
    assert (card.total_bytes, card.used_bytes, card.free_bytes) == (24 * GIB, 4 * GIB, 20 * GIB)
    assert (card.temperature_celsius, card.power_watts) == (61.0, 312.5)
    assert [(p.pid, p.used_bytes) for p in card.processes] == [(os.getpid(), 3 * GIB)]
    assert nvml.opened == 0
    json.dumps(found.to_json())


def test_the_sampler_reads_the_card_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeCard(monkeypatch)
    for visible, index in (("1,0", 1), ("GPU-1", 1), ("0", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        reader = GpuReader()
        sample = reader.read()
        assert sample is not None
        assert sample.index == index
        assert sample.process_bytes == 3 * GIB
        assert sample.utilization == 0.97
        reader.close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    reader = GpuReader()
    assert reader.read() is None
    reader.close()
    assert nvml.opened == 0


def test_what_a_card_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCard(
        monkeypatch,
        silent={
            "nvmlDeviceGetUtilizationRates",
            "nvmlDeviceGetTemperature",
            "nvmlDeviceGetPowerUsage",
            "nvmlDeviceGetComputeRunningProcesses",
            "nvmlDeviceGetMemoryInfo",
        },
    )
    sample = GpuReader("GPU-0").read()
    assert sample is not None
    assert sample.total_bytes == psutil.virtual_memory().total  # shared with the computer
    told = (sample.utilization, sample.temperature_celsius, sample.power_watts)
    assert (*told, sample.process_bytes) == (None, None, None, None)
    assert hardware.process_gpu_bytes("card0", 1) is None
