"""A folder that repeats a training without this program, built beside and then renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from training_backend.data.training_rows import training_rows
from training_backend.errors import UserError
from training_backend.files import fsync_tree, replace
from training_backend.job import TrainingJob
from training_backend.lifecycle import failures
from training_backend.models.adapters import WEIGHTS
from training_backend.paths import check_empty
from training_backend.script.base import look_at_base
from training_backend.script.notes import readme, requirements
from training_backend.script.text import script_text


def show(job: TrainingJob) -> str:
    """The script alone; the data is not looked at. Raises `UserError` as `look_at_base`."""
    evaluation = job.evaluation
    evaluates = evaluation.held_out_fraction > 0 or job.dataset.held_out_path is not None
    return script_text(job, look_at_base(job), evaluates=evaluates)


def write(
    job: TrainingJob,
    tokenizer: Any,
    out: Path,
    on_progress: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[str]:
    """Write script, packages, rows and tokenizer; returns the files' names in the folder.

    Args:
        tokenizer: of the job's model; the job's chat template is set in it.
        out: absent or empty.
        on_progress: is given the rows done so far, now and then.

    Raises:
        UserError: about the folder, the model or the data; then nothing is left behind.
        StopRequested: when `should_stop` says so; likewise.
    """
    out = out.expanduser().absolute()
    check_empty(out)
    base = look_at_base(job)
    rows = training_rows(job, tokenizer, on_progress, should_stop)
    partial = out.with_name(f".{out.name}.{uuid4().hex}.partial")
    try:
        _make(partial, out)
        text = script_text(job, base, evaluates=rows.held_out is not None)
        texts = {
            "train.py": text,
            "requirements.txt": requirements(text),
            "README.md": readme(job, base, evaluates=rows.held_out is not None),
        }
        for name, content in texts.items():
            (partial / name).write_text(content, encoding="utf-8", newline="\n")
        _write_rows(rows.train, partial / "data" / "train.parquet")
        if rows.held_out is not None:
            _write_rows(rows.held_out, partial / "data" / "held_out.parquet")
        tokenizer.save_pretrained(partial / "tokenizer")
        if base.start is not None:
            (partial / "start").mkdir()
            shutil.copyfile(base.start.folder / WEIGHTS, partial / "start" / WEIGHTS)
        fsync_tree(partial)
        if out.is_dir():
            out.rmdir()  # empty, as checked
        replace(partial, out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise failures.explained(error, out) from error
        raise
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def _make(partial: Path, out: Path) -> None:
    try:
        (partial / "data").mkdir(parents=True)
    except OSError as error:
        raise UserError(
            "out_not_writable",
            "The folder {out} cannot be made: {reason}.",
            "Choose a folder that you may write to.",
            field="out",
            out=out,
            reason=error.strerror or error,
        ) from None


def _write_rows(rows: Any, path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(rows.data.table, path)
