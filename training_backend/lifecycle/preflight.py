"""What can be checked before a run exists: all mistakes at once, each with its field.

Light, but reads files: seconds for a large data file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training_backend import catalog
from training_backend.data import mapping, pairs, sources
from training_backend.errors import JobError, Problem, UserError
from training_backend.hub import hub_cache
from training_backend.hub.downloads import whole_model
from training_backend.hub.hub_errors import require_online
from training_backend.job import ExportJob, Job, ProbeJob, TrainingJob, VerifyJob
from training_backend.models import adapters, start_adapter
from training_backend.models.demo_model import demo_model_ready
from training_backend.paths import check_empty, require_free, runs_dir

MIN_FREE_BYTES = 500_000_000  # an adapter, a few checkpoints with optimizer state, logs
DEMO_FREE_BYTES = 1_000_000_000  # the download, its unpacked weights and the result


def check(job: Job, place: Path | None = None) -> None:
    """Raises `JobError` with everything that would keep the job from starting.

    Args:
        place: where a training is to write; None where new runs are.
    """
    checks: list[Callable[[], None]]
    match job:
        case TrainingJob():
            checks = [
                lambda: _model(job),
                lambda: check_data(job),
                lambda: _room(job, place or runs_dir()),
            ]
        case ExportJob():
            checks = [lambda: _source(job), lambda: check_empty(Path(job.out))]
        case VerifyJob():
            checks = [lambda: _source(ExportJob(run=job.run, checkpoint=job.checkpoint, out="."))]
        case ProbeJob():  # it does without data
            checks = [lambda: _model(job.job), lambda: _can_be_tried(job.job)]
    problems = []
    for one in checks:
        try:
            one()
        except UserError as error:
            problems.append(Problem(error.field or "", str(error)))
    if problems:
        raise JobError(problems, job.name)


def _model(job: TrainingJob) -> None:
    """The base model, and the adapter to start from."""
    if job.model.id not in catalog.DEMO_MODEL_IDS:  # the worker prepares that one itself
        found = catalog.resolve_model(job.model.id)
        if isinstance(found, str) and whole_model(found, job.model.revision) is None:
            _can_be_fetched(found)
    location = catalog.describe_model(job.model.id).location if job.model.adapter else None
    start_adapter.check(job, location)


def _can_be_fetched(id: str) -> None:
    """As far as that can be told without asking the Hub; the worker downloads the model."""
    require_online(id)
    entry = catalog.describe_model(id)
    begun = hub_cache.repo_folder(hub_cache.folder(), id).is_dir()
    if entry.size_bytes and not begun:
        require_free(hub_cache.folder(), entry.size_bytes, f"the model {id}")


def _can_be_tried(job: TrainingJob) -> None:
    if job.training.objective == "dpo":
        raise UserError(
            "probe_not_for_dpo",
            "One step of training by preference (dpo) cannot be measured yet.",
            "Start with batch size 1, and raise it while memory is left.",
            field="training.objective",
        )


def check_data(job: TrainingJob) -> None:
    """Every source must open, and some row of them must map; tokens come later.

    Raises `UserError`.
    """
    opened = [sources.open_source(section) for section in job.dataset.resolved_sources()]
    if job.training.objective == "dpo":
        pairs.require_pairs(opened)
    held_out = job.dataset.held_out_source()
    if held_out is not None:
        try:
            sources.open_source(held_out)
        except UserError as error:
            error.field = "dataset.held_out_path"
            raise
    first_problem = ""
    for source in opened:
        for number, row in enumerate(source.table.rows(), start=1):
            try:
                mapping.to_conversation(row, source.format, source.section.mapping)
                return
            except mapping.RowProblem as problem:
                first_problem = first_problem or f"row {number} {problem}"
    raise sources.no_usable_rows(opened[0].table.name, first_problem)


def _room(job: TrainingJob, place: Path) -> None:
    demo = job.model.id in catalog.DEMO_MODEL_IDS and not demo_model_ready()
    needed = DEMO_FREE_BYTES if demo else MIN_FREE_BYTES
    if job.training.method == "full":
        # Each checkpoint holds the weights in 32 bits and, at the most, as much twice as state.
        parameters = catalog.describe_model(job.model.id).parameters or 0
        needed += 12 * parameters * (job.training.save_total_limit + 1)
    require_free(place, needed, "this run")


def _source(job: ExportJob) -> None:
    adapters.find_source(job)
