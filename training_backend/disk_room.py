"""A full disk does not end a training: it waits for room, and says how much is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from training_backend.errors import StopRequested, UserError
from training_backend.files import is_disk_full
from training_backend.journal import RESERVE_BYTES
from training_backend.paths import GB, drive_of, free_bytes
from training_backend.protocol import PhaseChanged
from training_backend.worker import Reporter

LOOK_SECONDS = 1.0
SPARE_BYTES = 2 * RESERVE_BYTES  # beside what is saved: the journal goes on too

Result = TypeVar("Result")


class DiskRoom:
    """Where a run writes what must not be lost.

    Args:
        waited: is told how many seconds the training stood still.
    """

    def __init__(self, reporter: Reporter, waited: Callable[[float], None]) -> None:
        self._reporter = reporter
        self._waited = waited

    def keep(
        self, needed_bytes: int, write: Callable[[], Result], tidy: Callable[[], None]
    ) -> Result:
        """Write when there is room for it, as often as it takes.

        Args:
            needed_bytes: what will be written, roughly.
            write: may be begun again from its start when the disk was full.
            tidy: removes what a failed `write` left.

        Raises:
            StopRequested: the person gave up waiting.
        """
        while True:
            self.wait_for(needed_bytes)
            try:
                return write()
            except Exception as error:
                if not is_disk_full(error):
                    raise
                tidy()
                # Free bytes say nothing of a quota: what fitted in was not enough.
                self._wait(needed_bytes, at_least_once=True)

    def wait_for(self, needed_bytes: int) -> None:
        """Return when so much and some to spare is free. Raises `StopRequested`."""
        self._wait(needed_bytes, at_least_once=False)

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

    def _wait(self, needed_bytes: int, *, at_least_once: bool) -> None:
        self.check_folder()
        folder = self._reporter.run.folder
        began = time.monotonic()
        told = ""
        while True:
            missing = needed_bytes + SPARE_BYTES - free_bytes(folder)
            if missing <= 0 and not (at_least_once and not told):
                break
            words = _missing(missing, folder)
            if words != told:
                self._reporter.emit(PhaseChanged(phase="no_room", detail=words))
                told = words
            if self._reporter.stop_requested():
                raise StopRequested
            time.sleep(LOOK_SECONDS)
        self._reporter.make_room()
        if told:
            self._waited(time.monotonic() - began)
            self._reporter.emit(PhaseChanged(phase="training"))


def _missing(missing_bytes: int, folder: Path) -> str:
    if missing_bytes <= 0:
        return f"trying again on {drive_of(folder)}"
    hundredths = -(-missing_bytes * 100 // GB)  # rounded up, so that it suffices
    return f"{hundredths / 100:.2f} GB missing on {drive_of(folder)}"
