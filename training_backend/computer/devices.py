"""The device that a job would train on: this computer's, or an imagined one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from training_backend import preferences
from training_backend.computer import nvidia, torch_build
from training_backend.computer.nvidia import Gpu
from training_backend.errors import UserError
from training_backend.hardware import Hardware, probe

DeviceKind = Literal["cuda", "mps", "xpu", "cpu"]

_UNITS = {"GIB": 2**30, "GB": 10**9, "MIB": 2**20, "MB": 10**6}
_IMAGINED = re.compile(r"(cuda|mps|xpu|cpu):(\d+(?:\.\d+)?)\s*(GiB|GB|MiB|MB)", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """Where training happens; on the CPU its memory is the computer's.

    `used_by_others_bytes` is what other programs hold of it now, which is not ours to use.
    `imagined` is true for a card that the person only described.
    """

    kind: DeviceKind
    name: str
    total_bytes: int
    used_by_others_bytes: int = 0
    bf16: bool = True
    uuid: str = ""
    imagined: bool = False

    @property
    def available_bytes(self) -> int:
        return max(0, self.total_bytes - self.used_by_others_bytes)


def chosen_gpu(gpus: Iterable[Gpu]) -> Gpu | None:
    """The NVIDIA card that training takes: the one the person chose, else the first.

    Of those that `CUDA_VISIBLE_DEVICES` leaves and the installed PyTorch can compute on; None
    without any.
    """
    build = torch_build.installed()
    usable = [gpu for gpu in nvidia.visible(tuple(gpus)) if not build.why_not(gpu)]
    wanted = preferences.load().gpu
    return next((gpu for gpu in usable if gpu.uuid == wanted), usable[0] if usable else None)


def this_device(hardware: Hardware | None = None) -> Device:
    """The card that training takes on this computer, else its processor and RAM.

    The trainer knows NVIDIA's cards, and AMD's where PyTorch was built for them; with any other
    card it trains on the processor.
    """
    found = hardware or probe()
    gpu = chosen_gpu(found.gpus)
    if gpu is not None:
        return Device(
            "cuda", gpu.name, gpu.total_bytes, gpu.used_bytes, bf16=gpu.bf16, uuid=gpu.uuid
        )
    if torch_build.installed().hip is not None:
        for other in found.other_gpus:
            if other.maker == "AMD" and other.total_bytes:  # PyTorch calls it "cuda" too
                return Device("cuda", other.name, other.total_bytes, other.used_bytes or 0)
    used = found.ram_total_bytes - found.ram_available_bytes
    return Device("cpu", found.cpu, found.ram_total_bytes, used)


def parse_device(text: str) -> Device:
    """An imagined device: kind and memory, such as "cuda:24GiB" or "cpu:16GB".

    Raises:
        UserError: `device_unknown`.
    """
    found = _IMAGINED.fullmatch(text.strip())
    if found is None:
        raise UserError(
            "device_unknown",
            "“{text}” does not name a device.",
            "Write its kind and memory, such as cuda:24GiB or cpu:16GB.",
            text=text,
        )
    kind, amount, unit = found.groups()
    total = int(float(amount) * _UNITS[unit.upper()])
    return Device(kind.lower(), f"{amount} {unit} card", total, imagined=True)  # type: ignore[arg-type]


def gigabytes(count: int, decimals: int = 1) -> str:
    """Of memory, as cards are sold: 24 GB are 24 * 2^30 bytes. (Of a disk see `paths`.)"""
    return f"{count / 2**30:,.{decimals}f}"
