"""How long a run may take, told by one that did the same work on this computer. Light.

Reads the run store: for a thread.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle import journal, run_folders
from training_backend.paths import runs_dir
from training_backend.protocol import RunCompleted
from training_backend.runs import Run
from training_backend.summaries import run_facts

# What makes a run neither longer nor shorter, or hardly: the rank moves a step by a few per cent.
_BESIDES = {
    "lora": ("r", "lora_alpha", "use_rslora", "init_lora_weights", "loraplus_lr_ratio"),
    "training": (
        "beta",
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "tensorboard",
        "halve_batch_when_out_of_memory",
        "seed",
    ),
    "evaluation": ("keep_best",),
}


def expected_seconds(jobs: Sequence[TrainingJob | None]) -> list[float | None]:
    """For each job what the newest completed run of the same work took; None where none did.

    The same work: same model, data and settings, but for those that change what is learned and
    not how much is computed. None in place of a job, as of a damaged file, is like no other.
    """
    wanted = {at: _work(job) for at, job in enumerate(jobs) if job is not None}
    found: dict[int, float] = {}
    runs = map(Run, run_folders.listed(runs_dir()))
    for run in sorted(runs, key=lambda run: run.id, reverse=True):
        if not wanted:
            break
        try:
            stamp = (run.folder / journal.FILE_NAME).stat().st_mtime_ns
        except OSError:  # it has not begun
            continue
        work = _done(run, stamp)
        for at in [at for at, each in wanted.items() if each == work]:
            found[at] = _seconds(run, stamp)
            del wanted[at]
    return [found.get(at) for at in range(len(jobs))]


@functools.lru_cache(maxsize=1024)
def _done(run: Run, stamp: int) -> dict[str, Any] | None:
    """What a completed run did; None for any other."""
    try:
        if not isinstance(journal.last_event(run.folder), RunCompleted):
            return None
        return _work(run.training_job())
    except UserError:  # damaged
        return None


@functools.lru_cache(maxsize=1024)
def _seconds(run: Run, stamp: int) -> float:
    return run_facts.read(run, run.id).seconds


def _work(job: TrainingJob) -> dict[str, Any]:
    document = job.model_dump(mode="json", exclude={"name"})
    for section, keys in _BESIDES.items():
        for key in keys:
            del document[section][key]
    return document
