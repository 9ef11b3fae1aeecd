"""One training at a time on a card: the others wait their turn. Light.

The lock is an OS file lock of the worker, which outlives the window and is free again however
the worker ends. It is held until the process is gone, since the card's memory is.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from training_backend.computer.devices import Device
from training_backend.files import write_json_atomic
from training_backend.paths import home

if TYPE_CHECKING:
    from training_backend.worker import Reporter

POLL_SECONDS = 0.5

_held: dict[Path, FileLock] = {}


def hold(device: Device, name: str, reporter: Reporter) -> None:
    """Take the card for this process, waiting in phase `waiting` while another one has it.

    Args:
        device: the card, or the processor with the RAM, which two trainings share as badly.
        name: of this work, for whoever has to wait for it.

    Raises:
        StopRequested: the person stopped the run while it waited.
        OSError: the lock cannot be written.
    """
    key = re.sub(r"[^A-Za-z0-9-]", "", device.uuid) or device.kind
    path = home() / "locks" / f"{key}.lock"
    if path in _held:
        return
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    told = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not told:
                reporter.phase("waiting", detail=f"{_holder(path)} is using it")
                told = True
            reporter.check_stop()
            time.sleep(POLL_SECONDS)
    _held[path] = lock
    write_json_atomic(path.with_suffix(".json"), {"name": name})


def _holder(path: Path) -> str:
    """What the one who has the card calls itself; in quotation marks."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        name = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["name"]
        return f"“{str(name)[:120]}”"
    return "another run"
