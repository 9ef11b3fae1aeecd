"""The base model's folder for a job in a worker: found, prepared or downloaded. Light."""

from __future__ import annotations

import time
from pathlib import Path

from training_backend.catalog import DEMO_MODEL_IDS, resolve_model
from training_backend.hub import downloads
from training_backend.hub.transfer import TransferProgress, as_text
from training_backend.models.demo_model import DemoProgress, prepare_demo_model
from training_backend.worker import Reporter

DEMO_SECONDS = 0.5  # between reports; each one is fsynced
DOWNLOAD_SECONDS = 2.0  # of what may take an hour


def base_folder(id: str, revision: str | None, reporter: Reporter) -> Path:
    """The whole and checked folder of a job's `model.id`; from then on nothing needs a network.

    The demo model is prepared and a model of the Hub downloaded where they are not here yet,
    with progress in the phase "loading".

    Raises:
        UserError: it cannot be had, or cannot be trained.
        StopRequested: the person asked to stop; what has arrived is kept.
    """
    told = 0.0

    def tell(fraction: float | None, detail: str, every: float) -> None:
        nonlocal told
        if time.monotonic() - told >= every:
            told = time.monotonic()
            reporter.phase("loading", fraction=fraction, detail=detail)

    def tell_demo(progress: DemoProgress) -> None:
        share = progress.done_bytes / progress.total_bytes if progress.total_bytes else None
        tell(share, f"the demo model ({progress.phase})", DEMO_SECONDS)

    def tell_download(progress: TransferProgress) -> None:
        share = progress.done_bytes / progress.total_bytes if progress.total_bytes else None
        tell(share, as_text(progress), DOWNLOAD_SECONDS)

    if id in DEMO_MODEL_IDS:
        return prepare_demo_model(tell_demo)
    found = resolve_model(id)
    if isinstance(found, Path):
        return found
    return downloads.fetch_model(found, revision, tell_download, reporter.stop_requested)
