"""The computer's memory, as far as this process may have it.

A container may have less than the computer: its control group sets a limit, beyond which the
kernel kills the process, whatever the computer still has.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Ram:
    """Bytes. `limited`: a container's limit is lower than what the computer has.

    `swapped_in_bytes` is what was read back from the swap file since the computer was started;
    0 where the system does not count it, as Windows.
    """

    total_bytes: int
    available_bytes: int
    swap_total_bytes: int
    swap_free_bytes: int
    limited: bool = False
    swapped_in_bytes: int = 0

    @property
    def used_bytes(self) -> int:
        return self.total_bytes - self.available_bytes


def read(root: Path = Path("/")) -> Ram:
    """Reads it now; takes well under a millisecond.

    Args:
        root: where /proc and /sys/fs/cgroup are looked for.
    """
    memory = psutil.virtual_memory()
    with warnings.catch_warnings():  # psutil warns where the kernel does not count swapping
        warnings.simplefilter("ignore", RuntimeWarning)
        swap = psutil.swap_memory()
    total, available = memory.total, memory.available
    for limit, used in _limits(root):
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    limited = total < memory.total
    return Ram(total, available, swap.total, swap.free, limited, swapped_in_bytes=swap.sin)


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of this one's control group the system has ended for want of memory.

    Of the whole computer where the group does not say; None where neither does, as on Windows.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files

    Args:
        root: as of `read`.
    """
    for folder, _ in _groups(root):
        for name in ("memory.events", "memory.oom_control"):  # of the second version, of the first
            found = _counter(folder / name)
            if found is not None:
                return found
    return _counter(root / "proc/vmstat")


def _counter(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, LookupError):
        rows = dict(line.split(maxsplit=1) for line in file.read_text("ascii").splitlines())
        return int(rows["oom_kill"])
    return None


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of every control group that this process is in.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files and, for the first
    version, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
    """
    for folder, names in _groups(root):
        yield from _limit(folder, *names)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of those groups, each after its parts, and what its files are called."""
    mounted = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = mounted, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = mounted / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # In a container the path may be that of the computer, which is not there: then the
        # container's own group is the top.
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield folder, names


def _limit(folder: Path, limit: str, usage: str, inactive: str) -> Iterator[tuple[int, int]]:
    """What is cached of files counts as used there, but gives way like free memory."""
    try:
        most = int((folder / limit).read_text(encoding="ascii"))  # "max": none
        used = int((folder / usage).read_text(encoding="ascii"))
        stat = (folder / "memory.stat").read_text(encoding="ascii")
        rows = dict(line.split(maxsplit=1) for line in stat.splitlines())
        yield most, used - int(rows.get(inactive, 0))
    except (OSError, ValueError):
        return
