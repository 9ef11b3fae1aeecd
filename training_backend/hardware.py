"""What this computer has: cards, processor, memory and room on the disk; never torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from training_backend.computer import ram
from training_backend.computer.nvidia import Gpu, find_cards
from training_backend.computer.other_gpus import OtherGpu, find_other_gpus
from training_backend.errors import UserError
from training_backend.hub import hub_cache
from training_backend.paths import free_bytes, home


@dataclass(frozen=True)
class Hardware:
    """The whole computer; memory in bytes. `cores` are those that this process may use.

    `ram_limited`: the RAM is what a container may have, not all that the computer has.
    `models_folder` is where models are downloaded to; free bytes are None for a drive that is
    not there.
    """

    system: str
    cpu: str
    cores: int
    ram_total_bytes: int
    ram_available_bytes: int
    gpus: tuple[Gpu, ...]
    nvidia_driver: str | None
    no_gpu_because: str
    apple_silicon: bool
    home: str
    disk_free_bytes: int
    other_gpus: tuple[OtherGpu, ...] = ()
    ram_limited: bool = False
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0
    models_folder: str = ""
    models_free_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Only dicts, lists, strings, numbers, booleans and None."""
        return asdict(self)


def probe() -> Hardware:
    """Looks at everything once; takes well under a second."""
    memory = ram.read()
    cards = find_cards()
    folder, models = home(), hub_cache.folder().absolute()
    others = find_other_gpus()
    if cards.gpus:  # what NVML tells is better
        others = tuple(gpu for gpu in others if gpu.maker != "NVIDIA")
    return Hardware(
        system=f"{platform.system()} {platform.release()} ({platform.machine()})",
        cpu=_cpu_name(),
        cores=_usable_cores(),
        ram_total_bytes=memory.total_bytes,
        ram_available_bytes=memory.available_bytes,
        gpus=cards.gpus,
        nvidia_driver=cards.driver,
        no_gpu_because=cards.no_gpu_because,
        apple_silicon=platform.system() == "Darwin" and platform.machine() == "arm64",
        home=str(folder),
        disk_free_bytes=free_bytes(folder),
        other_gpus=others,
        ram_limited=memory.limited,
        swap_total_bytes=memory.swap_total_bytes,
        swap_free_bytes=memory.swap_free_bytes,
        models_folder=str(models),
        models_free_bytes=_free(models),
    )


def _free(folder: Path) -> int | None:
    try:
        return free_bytes(folder)
    except (UserError, OSError):
        return None


def _usable_cores() -> int:
    """Cores that this process may run on, which in a container are fewer than there are."""
    affinity = getattr(psutil.Process(), "cpu_affinity", None)  # macOS has none
    return len(affinity()) if affinity else os.cpu_count() or 1


def _cpu_name() -> str:
    """The processor as its maker calls it, as far as the system tells."""
    try:
        if sys.platform == "win32":
            import winreg

            place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
                return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        if platform.system() == "Linux":
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        if platform.system() == "Darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.check_output(command, encoding="utf-8", timeout=5).strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()
