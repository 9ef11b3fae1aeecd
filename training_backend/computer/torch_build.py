"""For which graphics cards the installed PyTorch was built; read from its files, not imported."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from training_backend.computer.nvidia import Gpu

# bitsandbytes 0.50 (its README): the oldest cards that it quantises to 4 bits on.
OLDEST_FOR_4BIT = (6, 0)


@dataclass(frozen=True)
class TorchBuild:
    """The version of CUDA (NVIDIA), HIP (AMD) or XPU (Intel) that it was built for, or None."""

    cuda: str | None = None
    hip: str | None = None
    xpu: str | None = None

    def why_not(self, gpu: Gpu) -> str:
        """Why this PyTorch cannot compute on the card, as a clause; "" if it can.

        Who builds for which cards: the table “CUDA Support Matrix” in PyTorch's RELEASE.md.
        """
        if self.cuda is None:
            return "the installed PyTorch is for the processor only"
        version = version_of(self.cuda)
        # Within one major version of CUDA any driver of it does.
        # https://docs.nvidia.com/deploy/cuda-compatibility/
        if gpu.driver_cuda is not None and gpu.driver_cuda[0] < version[0]:
            newest = "{}.{}".format(*gpu.driver_cuda)
            return f"its driver knows CUDA up to {newest}, the installed PyTorch is for {self.cuda}"
        if gpu.compute_capability is None:
            return ""
        if gpu.compute_capability < ((7, 5) if version >= (12, 8) else (5, 0)):
            return f"it is too old for the installed PyTorch (CUDA {self.cuda})"
        if gpu.compute_capability >= (10, 0) and version < (12, 8):
            return f"it is too new for the installed PyTorch (CUDA {self.cuda})"
        return ""


@cache
def installed() -> TorchBuild:
    """The build that is installed; nothing but None without one."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return TorchBuild()
    try:
        return parse((Path(spec.origin).parent / "version.py").read_text(encoding="utf-8"))
    except OSError:
        return TorchBuild()


def parse(text: str) -> TorchBuild:
    """What PyTorch's `version.py` says."""
    found = re.findall(r"^(cuda|hip|xpu)\b[^=\n]*=\s*['\"]([\w.+-]+)['\"]", text, re.MULTILINE)
    return TorchBuild(**dict(found))


def version_of(text: str) -> tuple[int, int]:
    """Major and minor version: 12.6 of "12.6.3"."""
    numbers = [int(part) for part in re.findall(r"\d+", text)]
    return (*numbers, 0, 0)[0], (*numbers, 0, 0)[1]
