"""A model on its way to this computer: started, paused, gone on with, given up.

The helper downloads. Cancelling its request is a pause: what has arrived stays on the disk, also
when the window closes, and the next request goes on from there.
"""

from __future__ import annotations

from typing import Any, Literal

from PySide6.QtCore import QObject, QTimer, Signal

from app.helper_client import HelperClient
from training_backend.errors import UserError
from training_backend.job import DEMO_MODEL_IDS

TRIES = 40
RETRY_MS = 250

DownloadState = Literal["idle", "running", "paused", "failed", "discarding"]


class ModelDownload(QObject):
    """One download at a time; `changed` after every step of it."""

    changed = Signal()
    arrived = Signal(str)  # the model's id: it is on this computer now
    discarded = Signal(str)

    def __init__(self, helper: HelperClient, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._helper = helper
        self.id = ""
        self.revision: str | None = None
        self.state: DownloadState = "idle"
        self.progress: dict[str, Any] = {}
        self.error: Exception | None = None

    def start(self, id: str, revision: str | None = None) -> None:
        """Begin, or go on where it stopped. Another model's download is paused."""
        self._stop()
        self.id, self.revision = id, revision
        self.state, self.progress, self.error = "running", {}, None
        self._helper.ask(
            self._kind(),
            {"model": id, "revision": revision},
            self._on_done,
            self._on_failed,
            self,
            self._on_progress,
        )
        self.changed.emit()

    def pause(self) -> None:
        """Stop, and keep what has arrived."""
        if self.state == "running":
            self._stop()
            self.state = "paused"
            self.changed.emit()

    def discard(self, id: str) -> None:
        """Stop, and remove what has arrived."""
        self._stop()
        self.id, self.state, self.error = id, "discarding", None
        self._discard(TRIES)
        self.changed.emit()

    def forget(self) -> None:
        """Say no more of a download that does not run: another model is looked at."""
        if self.state in ("paused", "failed"):
            self.id, self.state, self.progress, self.error = "", "idle", {}, None
            self.changed.emit()

    def is_running(self) -> bool:
        return self.state in ("running", "discarding")

    def _stop(self) -> None:
        if self.state == "running":
            self._helper.cancel(self._kind(), self)

    def _discard(self, tries: int) -> None:
        """Tried again while the download that was stopped is still letting go of its files."""

        def on_failed(error: Exception) -> None:
            if isinstance(error, UserError) and error.code == "download_running" and tries > 1:
                QTimer.singleShot(RETRY_MS, self, lambda: self._discard(tries - 1))
            else:
                self._on_failed(error)

        self._helper.ask("discard_download", {"model": self.id}, self._on_gone, on_failed, self)

    def _kind(self) -> str:
        return "prepare_demo" if self.id in DEMO_MODEL_IDS else "download_model"

    def _on_progress(self, progress: dict[str, Any]) -> None:
        self.progress = progress
        self.changed.emit()

    def _on_done(self, _: dict[str, Any]) -> None:
        id, self.id, self.state, self.progress = self.id, "", "idle", {}
        self.changed.emit()
        self.arrived.emit(id)

    def _on_gone(self, _: dict[str, Any]) -> None:
        id, self.id, self.state, self.progress = self.id, "", "idle", {}
        self.changed.emit()
        self.discarded.emit(id)

    def _on_failed(self, error: Exception) -> None:
        self.state, self.error = "failed", error
        self.changed.emit()
