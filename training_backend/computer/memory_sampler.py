"""What memory the run and the machine use: the card through NVML, else this process's RAM."""

from __future__ import annotations

import os

import psutil

from training_backend.computer import ram
from training_backend.computer.devices import chosen_gpu
from training_backend.computer.nvidia import GpuReader, find_cards
from training_backend.protocol import MemorySampled

SAMPLE_SECONDS = 1.0


class MemorySampler:
    """Reads one `MemorySampled` at a time for the calling process."""

    def __init__(self) -> None:
        gpu = chosen_gpu(find_cards().gpus)
        self._gpu = GpuReader(gpu.uuid) if gpu else None
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the measurement

    def read(self) -> MemorySampled | None:
        """None when nothing can be told this time."""
        gpu = self._gpu.read() if self._gpu else None
        if gpu is not None:
            return MemorySampled(
                device=f"cuda:{gpu.index}",
                device_name=gpu.name,
                process_bytes=gpu.process_bytes,
                device_used_bytes=gpu.used_bytes,
                device_total_bytes=gpu.total_bytes,
                utilization=gpu.utilization,
                temperature_celsius=gpu.temperature_celsius,
                power_watts=gpu.power_watts,
                held_back_by=gpu.held_back_by,
                clock_share=gpu.clock_share,
            )
        found = ram.read()
        cores = os.cpu_count() or 1
        return MemorySampled(
            device="cpu",
            process_bytes=self._process.memory_info().rss,
            device_used_bytes=found.used_bytes,
            device_total_bytes=found.total_bytes,
            utilization=min(1.0, self._process.cpu_percent() / 100 / cores),
        )
