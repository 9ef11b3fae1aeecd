"""Puts an ended run on another drive, so that it can go on there; its old place leads to the new.

The copy is compared with the original, byte for byte by its hashes, before that is removed. In the
run's old place stands a link (on Windows a junction, which needs no rights), so that its folder is
named as before. Light; copies files: for a thread.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from filelock import Timeout

from training_backend.errors import UserError
from training_backend.files import fsync_folder, fsync_tree, sha256_file
from training_backend.lifecycle import journal
from training_backend.paths import require_free
from training_backend.runs import PROBE_SECONDS, Run

# Room to go on there: for the next checkpoints, and what is being written of one.
_TIMES_ITS_SIZE = 3
_OF_A_WORKER = (journal.RESERVE_NAME, "worker.lock", "staging")


def move(run: Run, target: Path) -> Path:
    """Put the run into a folder of its own below `target`; returns that folder.

    Raises:
        UserError: a worker has it; there is too little room; something cannot be read or written.
            The run is then where it was.
    """
    lock = run.worker_lock()
    try:
        lock.acquire(timeout=PROBE_SECONDS)
    except Timeout:
        raise UserError(
            "run_is_taken", "Another process is working on run {run}.", "Wait until it ends.",
            run=run.id,
        ) from None  # fmt: skip
    lock.release()
    _check(run, target)
    new, partial = target / run.id, target / f".{run.id}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(run.folder, partial, ignore=shutil.ignore_patterns(*_OF_A_WORKER))
        fsync_tree(partial)
        if _hashes(run.folder) != _hashes(partial):
            raise OSError("the copy differs from the original")
        os.rename(partial, new)
        fsync_folder(target)
        _put_link(run.folder, new)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(new, ignore_errors=True)
        raise UserError(
            "run_not_moved",
            "The run could not be moved to {path}: {reason}.",
            "It is where it was. Choose another folder.",
            path=target,
            reason=(getattr(error, "strerror", None) or str(error)).rstrip("."),
        ) from error
    return new


def _check(run: Run, target: Path) -> None:
    if not target.is_dir():
        raise UserError(
            "folder_missing", "There is no folder {path}.", "Choose one that is there.", path=target
        )
    if (target / run.id).exists() or target.resolve().is_relative_to(run.folder.resolve()):
        raise UserError(
            "run_is_there", "The run is in {path} already.", "Choose another drive.", path=target
        )
    size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    require_free(target, _TIMES_ITS_SIZE * size, "this run")


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in _OF_A_WORKER
    }


def _put_link(old: Path, new: Path) -> None:
    """Replace a folder by a link to another one; on failure it is as it was."""
    aside = old.with_name(f".{old.name}.moved")
    real = old.resolve()
    linked = real != old.parent.resolve() / old.name  # it was moved before
    os.rename(old, aside)
    try:
        if sys.platform == "win32":
            import _winapi

            _winapi.CreateJunction(str(new), str(old))
        else:
            os.symlink(new, old, target_is_directory=True)
    except OSError:
        os.rename(aside, old)
        raise
    fsync_folder(old.parent)
    if linked:
        os.unlink(aside)
    shutil.rmtree(real if linked else aside, ignore_errors=True)
