"""The output folder: built beside as `<out>.partial`, made durable, then renamed.

Nothing that identifies this machine leaves it: paths are taken out of every JSON file, and
keys that could make another program run code are dropped.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from training_backend.errors import UserError
from training_backend.export import gguf_export
from training_backend.export.adapter_files import write_adapter
from training_backend.export.model_files import copy_file, write_merged, write_model
from training_backend.export.scrub import scrub
from training_backend.files import fsync_folder, fsync_tree, replace
from training_backend.job import ExportJob, GgufQuantization
from training_backend.lifecycle import checkpoints
from training_backend.lifecycle.preflight import check_empty
from training_backend.models import adapters
from training_backend.models.adapters import Adapter
from training_backend.paths import require_free
from training_backend.protocol import RunCompleted
from training_backend.worker import Reporter

MARKER = ".lorasmith-partial"


def run(job: ExportJob, reporter: Reporter) -> RunCompleted:
    """Do the export. Raises `UserError`, or `StopRequested`; then nothing is left behind."""
    out = Path(job.out).expanduser().absolute()
    check_empty(out)
    source = adapters.find_source(job)
    _check_undamaged(source if isinstance(source, Path) else source.folder)
    partial = _partial(out)
    try:
        if job.format == "adapter" and isinstance(source, Adapter):
            write_adapter(source, partial, reporter)
        elif job.format == "gguf":
            _write_gguf(source, job.quantization, partial, out.name, reporter)
        elif isinstance(source, Path):
            write_model(source, partial, reporter)
        else:
            write_merged(source, partial, reporter)
        scrub(partial)
        reporter.phase("saving", detail="the folder")
        fsync_tree(partial)
        if out.is_dir():
            out.rmdir()  # empty, as checked
        replace(partial, out)
        (out / MARKER).unlink()  # last: what is killed before leaves a folder known to be ours
        fsync_folder(out)
        fsync_folder(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return RunCompleted(folder=str(out))


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


def _partial(out: Path) -> Path:
    """A fresh folder beside the output; one that an earlier export left is removed."""
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        if not (partial / MARKER).is_file():
            raise UserError(
                "partial_in_the_way",
                "The folder {partial} is in the way.",
                "Move it away, or choose another output folder.",
                field="out",
                partial=partial,
            )
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            "out_not_writable",
            "The folder {out} cannot be made: {reason}.",
            "Choose a folder that you may write to.",
            field="out",
            out=out,
            reason=error.strerror or error,
        ) from None
    (partial / MARKER).touch()
    return partial


def _write_gguf(
    source: Adapter | Path,
    quantization: GgufQuantization,
    out: Path,
    name: str,
    reporter: Reporter,
) -> None:
    """The model in a folder of its own first, which is gone at the end."""
    model = out / "model"
    model.mkdir()

    def prepared(weights: int) -> None:
        """Everything but the weights is there: what stops a GGUF file is said now."""
        beside = gguf_export.bytes_beside(weights, quantization)
        require_free(out, weights + beside + 50_000_000, "the model and the GGUF file")
        scrub(model)
        gguf_export.check(model, out / "vocabulary.gguf", quantization, reporter)

    if isinstance(source, Path):
        write_model(source, model, reporter, prepared)
    else:
        write_merged(source, model, reporter, prepared)
    file = out / f"{name}-{quantization.upper()}.gguf"
    gguf_export.write(model, file, quantization, name, reporter)
    for licence in model.glob("LICENSE*"):
        copy_file(licence, out)
    shutil.rmtree(model)
