"""Graphics cards that NVML does not tell of, read from what Linux says of its devices.

Of AMD, Intel, and of NVIDIA where its driver is missing. On Windows and macOS nothing is
looked for: there only NVIDIA's cards are found.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Maker = Literal["AMD", "Intel", "NVIDIA"]

_MAKERS: dict[str, Maker] = {"0x1002": "AMD", "0x8086": "Intel", "0x10de": "NVIDIA"}
_NAMES = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")


@dataclass(frozen=True)
class OtherGpu:
    """A card. The memory is None where the driver does not tell; so is `architecture` "".

    `architecture` is AMD's name of the chip, such as gfx1100; `driver` the kernel's driver, "" for
    none.
    """

    maker: Maker
    name: str
    total_bytes: int | None
    used_bytes: int | None
    architecture: str
    driver: str


def find_other_gpus(root: Path = Path("/")) -> tuple[OtherGpu, ...]:
    """All of them; takes some milliseconds.

    Args:
        root: where /sys and the list of PCI names are looked for.
    """
    architectures = _amd_architectures(root)
    found = []
    for device in sorted(root.glob("sys/class/drm/card[0-9]*/device")):
        maker = _MAKERS.get(_text(device / "vendor"))
        if maker is None or "-" in device.parent.name:  # card0-HDMI-A-1 is a socket
            continue
        name = _text(device / "product_name") or _pci_name(root, device) or f"{maker} graphics"
        driver = device / "driver"
        found.append(
            OtherGpu(
                maker,
                name,
                _number(device / "mem_info_vram_total"),  # of AMD's driver, as all that follows
                _number(device / "mem_info_vram_used"),
                architectures.get(_text(device / "device"), ""),
                driver.resolve().name if driver.exists() else "",
            )
        )
    return tuple(found)


def _amd_architectures(root: Path) -> dict[str, str]:
    """PCI device ids of AMD's cards, to the names of their chips.

    The kernel gives 110003 for gfx1103, and 90010 for gfx90a: two digits each for minor version
    and step, which the name writes as one hexadecimal digit.
    """
    found = {}
    for node in root.glob("sys/class/kfd/kfd/topology/nodes/*/properties"):
        rows = dict(line.split() for line in _text(node).splitlines() if len(line.split()) == 2)
        version, device = int(rows.get("gfx_target_version", 0)), int(rows.get("device_id", 0))
        if version and device:
            major, minor, step = version // 10_000, version // 100 % 100, version % 100
            found[f"0x{device:04x}"] = f"gfx{major}{minor:x}{step:x}"
    return found


def _pci_name(root: Path, device: Path) -> str:
    """The card's name in the list of PCI devices that most distributions bring."""
    maker, number = _text(device / "vendor")[2:], _text(device / "device")[2:]
    for place in _NAMES:
        try:
            lines = (root / place).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        inside = False
        for line in lines:
            if line and not line.startswith(("\t", "#")):
                inside = line.startswith(maker)
            elif inside and line.startswith(f"\t{number}"):
                return line.strip().partition(" ")[2].strip()
    return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
