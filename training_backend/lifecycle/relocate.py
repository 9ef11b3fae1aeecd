"""Puts an ended run on another drive, so that it can go on there; its old place leads to the new.

The copy is compared with the original, byte for byte by its hashes, before that is removed. In the
run's old place stands a link (on Windows a junction, which needs no rights), so that its folder is
named as before. Light; copies files: for a thread.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from pathlib import Path

from filelock import BaseFileLock, Timeout

from training_backend.errors import UserError
from training_backend.files import fsync_folder, fsync_tree, sha256_file
from training_backend.lifecycle import journal, run_folders
from training_backend.paths import require_free
from training_backend.runs import PROBE_SECONDS, Run

logger = logging.getLogger(__name__)

# Room to go on there: for the next checkpoints, and what is being written of one.
_TIMES_ITS_SIZE = 3
_OF_A_WORKER = (journal.RESERVE_NAME, run_folders.LOCK_NAME, "staging")


def move(run: Run, target: Path) -> Path:
    """Put the run into a folder of its own below `target`; returns that folder.

    No worker can begin with it meanwhile: its lock is held.

    Raises:
        UserError: a worker has it; there is too little room; something cannot be read or written.
            The run is then where it was, or, as `run_not_put_back` says, aside.
    """
    run_folders.put_back(run.folder)
    lock = run.worker_lock()
    try:
        lock.acquire(timeout=PROBE_SECONDS)
    except Timeout:
        raise UserError(
            "run_is_taken", "Another process is working on run {run}.", "Wait until it ends.",
            run=run.id,
        ) from None  # fmt: skip
    except OSError as error:
        raise _not_moved(run, target, error) from error
    try:
        _check(run, target)
        new, partial = target / run.id, target / f".{run.id}.partial"
        try:
            _discard_leftover(run.folder)
            _copy(run.folder, partial)
            os.rename(partial, new)
            fsync_folder(target)
            _put_link(run.folder, new, lock)
        except OSError as error:
            if os.path.lexists(run.folder):  # else the copy may be all that can be reached
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(new, ignore_errors=True)
            raise _not_moved(run, target, error) from error
        _discard(run_folders.aside(run.folder))
        return new
    finally:
        lock.release()


def _not_moved(run: Run, target: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    if isinstance(error, shutil.Error):  # what could not be copied, each with its reason
        reason = re.sub(r"^\[.+?\] ", "", str(error.args[0][0][2]))
    if os.path.lexists(run.folder):
        return UserError(
            "run_not_moved",
            "The run could not be moved to {path}: {reason}.",
            "It is where it was. Choose another folder.",
            path=target,
            reason=reason.rstrip("."),
        )
    return UserError(
        "run_not_put_back",
        "The run could be neither moved to {path} nor put back: {reason}.",
        "It is whole in {aside}. Whenever the runs are listed, it is tried again to put it back.",
        path=target,
        reason=reason.rstrip("."),
        aside=run_folders.aside(run.folder),
    )


def _check(run: Run, target: Path) -> None:
    if not target.is_dir():
        raise UserError(
            "folder_missing", "There is no folder {path}.", "Choose one that is there.", path=target
        )
    new, now = target / run.id, run.folder.resolve()
    if new.resolve() == now or target.resolve().is_relative_to(now):
        raise UserError(
            "run_is_there", "The run is in {path} already.", "Choose another drive.", path=target
        )
    if os.path.lexists(new):  # such as the copy of a move that was killed
        raise UserError(
            "name_is_taken",
            "There is another {name} in {path} already.",
            "Remove it, or choose another folder.",
            name=run.id,
            path=target,
        )
    size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
    require_free(target, _TIMES_ITS_SIZE * size, "this run")


def _copy(folder: Path, partial: Path) -> None:
    """Raises `OSError`, also where the copy reads otherwise than the original."""
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, ignore=shutil.ignore_patterns(*_OF_A_WORKER))
    fsync_tree(partial)
    if _hashes(folder) != _hashes(partial):
        raise OSError("the copy differs from the original")


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in _OF_A_WORKER
    }


def _put_link(old: Path, new: Path, lock: BaseFileLock) -> None:
    """Replace a run's folder, which is put aside with its lock held, by a link to another one.

    Raises `OSError`: it is as it was, or, where it could not be put back, aside.
    """
    aside = run_folders.aside(old)
    if sys.platform == "win32":  # no folder is renamed there while a file in it is open
        lock.release()
    os.rename(old, aside)
    try:
        if sys.platform == "win32":
            import _winapi

            if Run(aside).is_alive():
                raise OSError("a worker began with it")
            _winapi.CreateJunction(str(new), str(old))
        else:
            os.symlink(new, old, target_is_directory=True)
    except OSError:
        if old.resolve() != new.resolve():  # some disks make a link and report an error
            os.rename(aside, old)
            raise


def _discard(aside: Path) -> None:
    """Remove the original, now that a link leads to the copy; nothing here undoes the move."""
    try:
        fsync_folder(aside.parent)
    except OSError:  # after a power cut the link might be gone
        logger.warning("%s is kept: the disk could not confirm the link", aside, exc_info=True)
        return
    try:
        original = aside.resolve()
        if original != aside.parent.resolve() / aside.name:  # a link: it was moved before
            os.unlink(aside)
    except OSError:
        logger.warning("%s is kept: it could not be removed", aside, exc_info=True)
        return
    shutil.rmtree(original, ignore_errors=True)


def _discard_leftover(place: Path) -> None:
    """Remove what an earlier move kept or left of the original, if the link leads to a run."""
    aside = run_folders.aside(place)
    if not os.path.lexists(aside) or not (place / "job.json").is_file():
        return
    if place.resolve() not in (place.parent.resolve() / place.name, aside.resolve()):
        _discard(aside)
