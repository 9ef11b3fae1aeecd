"""Checkpoints that are whole or are not there.

A checkpoint is prepared in a staging folder, every file fsynced and hashed, `COMPLETE.json`
written last, and the folder renamed into `checkpoints/`. Only one whose hashes all match is
ever resumed from; a damaged one is moved aside, not deleted.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training_backend.files import fsync_folder, fsync_tree, replace, sha256_file, write_json_atomic

COMPLETE = "COMPLETE.json"
PREFIX = "checkpoint-"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    step: int


def commit(staged: Path, checkpoints: Path, held_out_loss: float | None = None) -> Checkpoint:
    """Turn a staged `checkpoint-<step>` folder into a finished one. Raises `OSError`.

    Args:
        held_out_loss: of the model in it, where it was tested.
    """
    step = int(staged.name.removeprefix(PREFIX))
    fsync_tree(staged)
    tested = {} if held_out_loss is None else {"held_out_loss": held_out_loss}
    write_json_atomic(staged / COMPLETE, {"step": step, **tested, "sha256": _hashes(staged)})
    checkpoints.mkdir(exist_ok=True)
    fsync_folder(checkpoints.parent)  # else a power cut may take the new folder and all in it
    target = checkpoints / staged.name
    if target.exists():
        shutil.rmtree(target)
    replace(staged, target)
    fsync_folder(checkpoints)
    return Checkpoint(target, step)


def move_sealed(staged: Path, target: Path) -> None:
    """Put a run's result in its place, the hashes of its files beside it. Raises `OSError`."""
    fsync_tree(staged)
    seal = _seal_of(target)
    seal.unlink(missing_ok=True)
    hashes = _hashes(staged)
    if target.exists():
        shutil.rmtree(target)
    replace(staged, target)
    write_json_atomic(seal, hashes)


def damaged_since(folder: Path) -> list[str]:
    """The files of a result that are no longer as they were written; none where that is not known.

    Files that somebody put beside them do not matter.
    """
    try:
        known = json.loads(_seal_of(folder).read_text(encoding="utf-8"))
        return [
            name
            for name, digest in known.items()
            if not (folder / name).is_file() or sha256_file(folder / name) != digest
        ]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def is_whole(folder: Path) -> bool:
    """Whether every file is there with the bytes that were written."""
    try:
        known = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["sha256"]
        found = {path.relative_to(folder).as_posix() for path in _files(folder)} - {COMPLETE}
        return found == set(known) and all(
            sha256_file(folder / name) == digest for name, digest in known.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False  # not there, or JSON of another shape


def finished(checkpoints: Path) -> list[Checkpoint]:
    """The checkpoints by name, oldest first, not verified."""
    found = [
        Checkpoint(folder, int(folder.name.removeprefix(PREFIX)))
        for folder in checkpoints.glob(f"{PREFIX}*")
        if folder.name.removeprefix(PREFIX).isdecimal()
    ]
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_verified(checkpoints: Path) -> Checkpoint | None:
    """The newest whole checkpoint; damaged newer ones are moved to `damaged/` beside."""
    for checkpoint in reversed(finished(checkpoints)):
        if is_whole(checkpoint.folder):
            return checkpoint
        logger.warning("%s is damaged and is set aside", checkpoint.folder)
        aside = checkpoints.parent / "damaged"
        aside.mkdir(exist_ok=True)
        shutil.rmtree(aside / checkpoint.folder.name, ignore_errors=True)
        replace(checkpoint.folder, aside / checkpoint.folder.name)
    return None


def best_first(checkpoints: Path) -> list[tuple[Checkpoint, float]]:
    """Those that were tested, with their held-out losses, the lowest first; not verified."""
    tested = ((checkpoint, _held_out_loss(checkpoint)) for checkpoint in finished(checkpoints))
    known = [(checkpoint, loss) for checkpoint, loss in tested if loss is not None]
    return sorted(known, key=lambda each: each[1])


def prune(checkpoints: Path, keep: int, keep_best: bool = False) -> None:
    """Remove the oldest beyond `keep`; with `keep_best` the best tested one stays besides."""
    spared = [checkpoint for checkpoint, _ in best_first(checkpoints)[:1]] if keep_best else []
    for checkpoint in finished(checkpoints)[:-keep]:
        if checkpoint not in spared:
            shutil.rmtree(checkpoint.folder)


def note_test(checkpoint: Checkpoint, held_out_loss: float) -> None:
    """Add what a test of its model gave, where that came after it was saved. Raises `OSError`."""
    told = json.loads((checkpoint.folder / COMPLETE).read_text(encoding="utf-8"))
    write_json_atomic(checkpoint.folder / COMPLETE, {**told, "held_out_loss": held_out_loss})


def _held_out_loss(checkpoint: Checkpoint) -> float | None:
    try:
        told = json.loads((checkpoint.folder / COMPLETE).read_text(encoding="utf-8"))
        loss = float(told["held_out_loss"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None  # not tested, or no checkpoint of ours
    return loss if math.isfinite(loss) else None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in _files(folder)}


def _seal_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.sha256.json")
