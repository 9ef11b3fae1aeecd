"""The output folder: built beside as `<out>.partial`, made durable, then renamed.

Nothing that identifies this machine leaves it: paths are taken out of every JSON file, and
keys that could make another program run code are dropped.

What writes a format is imported when it is asked for: importing all of it takes longer than the
rest of a small export.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from training_backend.errors import StopRequested, UserError
from training_backend.export import papers
from training_backend.export.model_files import write_merged, write_model
from training_backend.export.partial import Partial, claimed
from training_backend.export.scrub import scrub
from training_backend.export.weights import BESIDE_BYTES, Weights
from training_backend.files import is_disk_full
from training_backend.job import ExportJob
from training_backend.lifecycle import checkpoints
from training_backend.models import adapters
from training_backend.models.adapters import Adapter
from training_backend.paths import check_empty, drive_of, require_free
from training_backend.protocol import RunCompleted
from training_backend.worker import Reporter


def run(job: ExportJob, reporter: Reporter) -> RunCompleted:
    """Do the export.

    Raises `UserError`, `OSError` or `StopRequested`. Then nothing is left behind, unless the
    reason was the disk or the computer and some of the work can be kept for the next attempt.
    """
    out = Path(job.out).expanduser().absolute()
    with claimed(out):
        check_empty(out)
        source = adapters.find_source(job)
        _check_undamaged(source if isinstance(source, Path) else source.folder)
        partial = Partial(out)
        try:
            _write(job, source, partial, reporter)
            scrub(partial.folder)
            papers.write(job, source, partial.folder, out.name)
            reporter.phase("saving", detail="the folder")
            partial.finish()
        except BaseException as error:
            if not (partial.is_worth_keeping() and _may_go_on(error, reporter)):
                partial.discard()
            elif is_disk_full(error):
                raise _full(partial) from error
            raise
        if job.verify:
            from training_backend.export import proof

            proof.prove(job, source, reporter)
    return RunCompleted(folder=str(out))


def _write(job: ExportJob, source: Adapter | Path, partial: Partial, reporter: Reporter) -> None:
    if job.format == "adapter" and isinstance(source, Adapter):
        from training_backend.export.adapter_files import write_adapter

        write_adapter(source, partial.folder, reporter)
    elif job.format == "gguf_adapter" and isinstance(source, Adapter):
        from training_backend.export import gguf_adapter

        gguf_adapter.write(source, partial.folder, partial.out.name, reporter)
    elif job.format == "gguf":
        _write_gguf(job, source, partial, reporter)
    elif job.format == "bnb_4bit":
        from training_backend.export.four_bit import write_four_bit

        write_four_bit(job, source, partial, reporter)
    elif isinstance(source, Path):
        write_model(source, job, partial.folder, partial, reporter)
    else:
        write_merged(source, job, partial.folder, partial, reporter)


def _may_go_on(error: BaseException, reporter: Reporter) -> bool:
    """Whether the same export may well end better next time; a person who stops it wants none."""
    match error:
        case StopRequested():
            return reporter.run.requests.stop_reason() != "asked"
        case UserError():
            return error.code == "disk_full_ahead"
    return isinstance(error, OSError)


def _full(partial: Partial) -> UserError:
    return UserError(
        "export_disk_full",
        "There is no room left on {drive} for the rest of the export.",
        "Free some and start the same export again: it goes on where it was. What it has written "
        "is in {folder}; delete that if you do not want it.",
        drive=drive_of(partial.folder),
        folder=partial.folder,
    )


def _check_undamaged(source: Path) -> None:
    """Raises `UserError` when a file of the result is not as the training wrote it."""
    damaged = checkpoints.damaged_since(source)
    if damaged:
        raise UserError(
            "result_damaged",
            "The file {name} in {folder} is no longer as the training wrote it.",
            "Export a checkpoint of the run instead, or put the file back from a copy.",
            field="run",
            name=damaged[0],
            folder=source,
        )


def _write_gguf(
    job: ExportJob, source: Adapter | Path, partial: Partial, reporter: Reporter
) -> None:
    """The model in a folder of its own first, which is gone at the end."""
    from training_backend.export import gguf_export, ollama_modelfile

    out, quantization = partial.folder, job.quantization
    model = out / "model"
    model.mkdir(exist_ok=True)

    def prepared(weights: Weights) -> None:
        """Everything but the weights is there: what stops a GGUF file is said now."""
        beside = gguf_export.bytes_beside(weights.size, quantization)
        needed = weights.size - weights.kept + beside + BESIDE_BYTES
        require_free(out, needed, "the model and the GGUF file")
        scrub(model)
        gguf_export.check(model, out / "vocabulary.gguf", quantization, reporter)

    if isinstance(source, Path):
        write_model(source, job, model, partial, reporter, prepared)
    else:
        write_merged(source, job, model, partial, reporter, prepared)
    name = partial.out.name
    file = out / f"{name}-{quantization.upper()}.gguf"
    gguf_export.write(model, file, quantization, name, reporter)
    untold = ollama_modelfile.write(file, model / "generation_config.json")
    if untold is not None:
        reporter.warn(untold.code, "{said}", said=str(untold))
    shutil.rmtree(model)
