"""A full disk does not end a training: it waits for room, and says how much is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from training_backend.errors import UserError
from training_backend.files import is_disk_full
from training_backend.lifecycle.journal import RESERVE_BYTES
from training_backend.paths import drive_of, free_bytes, gigabytes
from training_backend.protocol import Phase, PhaseChanged
from training_backend.worker import Reporter

LOOK_SECONDS = 1.0
SPARE_BYTES = 2 * RESERVE_BYTES  # beside what is saved: the journal goes on too

Result = TypeVar("Result")


class DiskRoom:
    """Where a run writes what must not be lost.

    Args:
        waited: is told how many seconds the training stood still.

    `write_seconds` is how long all that was written took, without the waits.
    """

    def __init__(self, reporter: Reporter, waited: Callable[[float], None]) -> None:
        self._reporter = reporter
        self._waited = waited
        self.write_seconds = 0.0

    def keep(
        self,
        needed_bytes: int,
        write: Callable[[], Result],
        tidy: Callable[[], None] = lambda: None,
        phase: Phase = "training",
    ) -> Result:
        """Write when there is room for it, as often as it takes.

        Args:
            needed_bytes: what will be written, roughly.
            write: may be begun again from its start when the disk was full.
            tidy: removes what a failed `write` left.
            phase: what goes on after a wait.

        Raises:
            StopRequested: the person gave up waiting.
        """
        while True:
            self.wait_for(needed_bytes, phase)
            began = time.monotonic()
            try:
                written = write()
                self.write_seconds += time.monotonic() - began
                return written
            except Exception as error:
                if not is_disk_full(error):
                    raise
                tidy()
                # Free bytes say nothing of a quota: what fitted in was not enough.
                self.wait_for(needed_bytes, phase, failed=True)

    def wait_for(
        self, needed_bytes: int, phase: Phase = "training", *, failed: bool = False
    ) -> None:
        """Return when so much and some to spare is free. Raises `StopRequested`.

        Args:
            failed: it was not enough just now; wait a moment at least.
        """
        self.check_folder()
        folder = self._reporter.run.folder
        began = time.monotonic()
        told = ""
        while True:
            missing = needed_bytes + SPARE_BYTES - free_bytes(folder)
            if missing <= 0 and not failed:
                break
            failed = False
            words = _missing(missing, folder)
            if words != told:
                self._reporter.emit(PhaseChanged(phase="no_room", detail=words))
                told = words
            self._reporter.check_stop()
            time.sleep(LOOK_SECONDS)
        self._reporter.make_room()
        if told:
            self._waited(time.monotonic() - began)
            self._reporter.emit(PhaseChanged(phase=phase))

    def check_folder(self) -> None:
        """Raises `UserError` when the run's folder is gone: a save would make half of it anew."""
        folder = self._reporter.run.folder
        if not (folder / "job.json").exists():
            raise UserError(
                "run_folder_gone",
                "The folder of the run, {folder}, is gone.",
                "Somebody moved or deleted it, or its drive was taken out. Put it back and resume.",
                folder=folder,
            )


def _missing(missing_bytes: int, folder: Path) -> str:
    if missing_bytes <= 0:
        return f"trying again on {drive_of(folder)}"
    return f"{gigabytes(missing_bytes)} GB missing on {drive_of(folder)}"
