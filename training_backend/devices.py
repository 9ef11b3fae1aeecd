"""The device that a job would train on: this computer's, or an imagined one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from training_backend.errors import UserError
from training_backend.hardware import Hardware, probe

DeviceKind = Literal["cuda", "mps", "xpu", "cpu"]

_UNITS = {"GIB": 2**30, "GB": 10**9, "MIB": 2**20, "MB": 10**6}
_IMAGINED = re.compile(r"(cuda|mps|xpu|cpu):(\d+(?:\.\d+)?)(GiB|GB|MiB|MB)", re.IGNORECASE)


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


def this_device(hardware: Hardware | None = None) -> Device:
    """The card that training takes on this computer, else its processor and RAM."""
    found = hardware or probe()
    if found.gpus:
        gpu = found.gpus[0]
        return Device(
            "cuda", gpu.name, gpu.total_bytes, gpu.used_bytes, bf16=gpu.bf16, uuid=gpu.uuid
        )
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
