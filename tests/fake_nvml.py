"""NVML's answers as recorded from real cards, for machines without one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from training_backend.computer import torch_build
from training_backend.computer.torch_build import TorchBuild

GIB = 2**30


@dataclass
class FakeCard:
    """One card; by default an RTX 4090 on which this very process computes and another draws."""

    uuid: str = "GPU-0"
    name: str = "NVIDIA GeForce RTX 4090"
    total: int = 24 * GIB
    used: int = 4 * GIB
    capability: tuple[int, int] = (8, 9)
    instances: Sequence[FakeCard] = ()  # of a card divided by MIG
    silent: set[str] = field(default_factory=set)  # NVML functions that it does not support
    index: int = 0
    reasons: int = pynvml.nvmlClocksThrottleReasonSwPowerCap  # of its clock, as under full load
    clock: int = 2520


class FakeNvml:
    """Stands in for the library below pynvml. `opened` counts nvmlInit less nvmlShutdown."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *cards: FakeCard,
        cuda: str | None = "13.0",
        driver_cuda: int = 13000,
    ) -> None:
        self.opened = 0
        self.cards = cards or (FakeCard("GPU-0"), FakeCard("GPU-1"))
        for index, card in enumerate(self.cards):
            card.index = index
            for instance in card.instances:
                instance.index = index
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: self._count(1))
        monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: self._count(-1))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(self.cards))
        monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.65.06")
        monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion_v2", lambda: driver_cuda)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: self.cards[index])
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", self._by_uuid)
        for name, answer in _ANSWERS.items():
            monkeypatch.setattr(pynvml, name, _answering(name, answer))
        # As if the PyTorch installed here were built for NVIDIA's cards.
        monkeypatch.setattr(torch_build, "installed", lambda: TorchBuild(cuda=cuda))

    def _count(self, step: int) -> None:
        self.opened += step

    def _by_uuid(self, uuid: str) -> FakeCard:
        every = [*self.cards, *(one for card in self.cards for one in card.instances)]
        found = next((card for card in every if card.uuid == uuid), None)
        if found is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found


def _answering(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    def ask(card: FakeCard, *args: Any) -> Any:
        if name in card.silent:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return answer(card, *args)

    return ask


def _process(used: int | None) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=os.getpid(), usedGpuMemory=used)]


_ANSWERS: dict[str, Callable[..., Any]] = {
    "nvmlDeviceGetIndex": lambda card: card.index,
    "nvmlDeviceGetName": lambda card: card.name,
    "nvmlDeviceGetUUID": lambda card: card.uuid,
    "nvmlDeviceGetMemoryInfo": lambda card, version=None: SimpleNamespace(
        total=card.total, used=card.used, free=card.total - card.used
    ),
    "nvmlDeviceGetCudaComputeCapability": lambda card: card.capability,
    "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=97),
    "nvmlDeviceGetTemperature": lambda card, sensor: 61,
    "nvmlDeviceGetPowerUsage": lambda card: 312_500,
    "nvmlDeviceGetCurrentClocksEventReasons": lambda card: card.reasons,
    "nvmlDeviceGetCurrentClocksThrottleReasons": lambda card: card.reasons,
    "nvmlDeviceGetClockInfo": lambda card, clock: card.clock,
    "nvmlDeviceGetMaxClockInfo": lambda card, clock: 2520,
    "nvmlDeviceGetComputeRunningProcesses": lambda card: _process(3 * GIB),
    "nvmlDeviceGetGraphicsRunningProcesses": lambda card: _process(None),
    "nvmlDeviceGetMigMode": lambda card: [1 if card.instances else 0] * 2,
    "nvmlDeviceGetMaxMigDeviceCount": lambda card: 7,
    "nvmlDeviceGetMigDeviceHandleByIndex": lambda card, number: _instance(card, number),
    "nvmlDeviceGetDriverModel": lambda card: [pynvml.NVML_DRIVER_WDDM] * 2,
}


def _instance(card: FakeCard, number: int) -> FakeCard:
    if number >= len(card.instances):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    return card.instances[number]
