"""What can be exported: every run with an adapter, and the places to take it from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from training_backend import paths, runs
from training_backend.job import TrainingJob
from training_backend.lifecycle import journal
from training_backend.lifecycle.checkpoints import PREFIX, best_first, finished
from training_backend.protocol import RunCompleted
from training_backend.runs import Run, RunSummary

ADAPTER_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class ExportSource:
    """A run that learned something.

    `finished` says whether the training came to its end; `checkpoints` are the names of its
    checkpoint folders, newest first; `every_weight` that it trained the model itself, so that there
    is no adapter; `best` is the one with the lowest held-out loss, `kept_step`
    the step whose model a finished run kept for that reason.
    """

    summary: RunSummary
    finished: bool
    checkpoints: tuple[str, ...]
    every_weight: bool = False
    best: str | None = None
    kept_step: int | None = None
    job: TrainingJob | None = None

    @property
    def run(self) -> Run:
        return self.summary.run

    @property
    def in_4bit(self) -> bool:
        """Whether the base model that the adapter saw was packed into 4 bits."""
        return self.job is not None and not self.every_weight and self.job.quantization.load_in_4bit

    @property
    def best_is_the_end(self) -> bool:
        """Whether what a finished run ended with is its best model, or the last step's is."""
        last = f"{PREFIX}{self.summary.step}"
        return self.finished and (self.kept_step is not None or self.best == last)


def list_sources() -> list[ExportSource]:
    """The runs that can be exported, newest first. Reads the disk."""
    found = (_source(summary) for summary in runs.list_runs() if summary.state != "running")
    return [source for source in found if source.finished or source.checkpoints]


def fresh_folder(name: str, inside: Path | None = None) -> Path:
    """A folder for an export of this name that does not exist yet, there or where exports go."""
    stem = re.sub(r"[^\w-]+", "-", name.lower()).strip("-")[:60] or "export"
    stem = paths.not_reserved(stem)
    parent = inside or paths.exports_dir()
    folder = parent / stem
    count = 1
    while folder.exists():
        count += 1
        folder = parent / f"{stem}-{count}"
    return folder


def is_free(folder: Path) -> bool:
    """Whether a folder is absent or empty, so that an export may go there."""
    try:
        return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError:
        return False


def _source(summary: RunSummary) -> ExportSource:
    run = summary.run
    names = [checkpoint.folder.name for checkpoint in reversed(finished(run.checkpoints))]
    results = (run.adapter / ADAPTER_WEIGHTS, run.model / "config.json")
    best = [checkpoint.folder.name for checkpoint, _ in best_first(run.checkpoints)[:1]]
    end = journal.last_event(run.folder)
    job = run.training_job()
    return ExportSource(
        summary,
        any(path.is_file() for path in results),
        tuple(names),
        job.training.method == "full",
        best[0] if best else None,
        end.best_step if isinstance(end, RunCompleted) else None,
        job,
    )
