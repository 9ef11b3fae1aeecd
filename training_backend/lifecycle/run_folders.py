"""Which folders are runs, and what a move that was cut short left among them. Light.

While `relocate` swaps a run's folder for a link, it stands beside it under a name with a dot.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from filelock import FileLock

LOCK_NAME = "worker.lock"
_ASIDE = ".moved"


def aside(place: Path) -> Path:
    """Where a run's folder is put while a link takes its place."""
    return place.parent / f".{place.name}{_ASIDE}"


def listed(parent: Path) -> list[Path]:
    """The folders below `parent` that may be runs, in no order; see `put_back`."""
    for left in parent.glob(f".*{_ASIDE}"):
        put_back(parent / left.name[1 : -len(_ASIDE)])
    return [folder for folder in parent.iterdir() if not folder.name.startswith(".")]


def put_back(place: Path) -> None:
    """Let a run be where it was, if whoever put it aside was killed before the link was made.

    Who is still at it holds the run's lock. Does nothing where it cannot be done now.
    """
    left = aside(place)
    if os.path.lexists(place) or not os.path.lexists(left):
        return
    with contextlib.suppress(OSError), FileLock(left / LOCK_NAME).acquire(timeout=0) as lock:
        if not os.path.lexists(place):
            if sys.platform == "win32":  # no folder is renamed there while a file in it is open
                lock.release()
            os.rename(left, place)
