"""Which files of a folder are its data."""

from __future__ import annotations

import os
import re
from pathlib import Path

from training_backend.data.kinds import KNOWN, TABULAR, plain_suffix
from training_backend.data.source_file import unreadable
from training_backend.data.table import FIELD, Notices
from training_backend.errors import UserError

MAX_FILES = 10_000

_SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev", "eval", "evaluation"},
    "test": {"test", "testing"},
}
# What lies beside the data in a folder that was downloaded or saved by a program.
_BESIDE = {"dataset_info.json", "dataset_infos.json", "state.json", "config.json",
           "dataset_dict.json", "package.json", "requirements.txt", "license.txt"}  # fmt: skip


def data_files(folder: Path, split: str, notes: Notices) -> tuple[list[Path], tuple[str, ...]]:
    """The files to read, in the order of their paths, and the splits that their names tell.

    Files of rows are taken before texts: a README beside a table is not data. Where names or
    folders say train, validation or test, only those of `split` are taken, or else those that
    say nothing. Links to folders are not followed, so that no circle can be met.

    Raises `UserError` when nothing is left, or there are too many.
    """
    found = _known_files(folder)
    tabular = [path for path in found if plain_suffix(path.name) in TABULAR]
    files = tabular or found
    if not files:
        raise _nothing(folder, "holds no data file")
    if tabular and len(tabular) < len(found):
        notes.add(
            "texts_left_out",
            "{name}: {n_files} text file(s) beside the tables were left out.",
            name=folder.name,
            n_files=len(found) - len(tabular),
        )
    by_split: dict[str, list[Path]] = {}
    for path in files:
        by_split.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    splits = tuple(name for name in by_split if name)
    chosen = by_split.get(split) or (by_split.get("") if split == "train" else None)
    if not chosen:
        raise UserError(
            "split_missing",
            "{name} has no files for the split {split}.",
            "Choose one of: {splits}.",
            field="dataset.split",
            name=folder.name,
            split=split,
            splits=", ".join(splits) or "train",
        )
    if len(chosen) < len(files):
        notes.add(
            "other_splits",
            "{name}: only the files of the split {split} are read; {n_files} other(s) are not.",
            name=folder.name,
            split=split,
            n_files=len(files) - len(chosen),
        )
    return chosen, splits


def _known_files(folder: Path) -> list[Path]:
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        raise unreadable(str(folder), error)

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            is_data = plain_suffix(name) in KNOWN and not name.startswith((".", "~$"))
            if is_data and name.lower() not in _BESIDE and path.is_file():
                found.append(path)
        if len(found) > MAX_FILES:
            raise UserError(
                "folder_too_large",
                "{name} holds more than {limit} data files.",
                "Choose a smaller folder, or join the files.",
                field=FIELD,
                name=folder.name,
                limit=MAX_FILES,
            )
    return found


def _split_of(path: Path) -> str:
    """The split that a file's path tells, or an empty string."""
    words = set(re.split(r"[^a-z]+", str(path).lower()))
    return next((split for split, names in _SPLITS.items() if words & names), "")


def _nothing(folder: Path, what: str) -> UserError:
    return UserError(
        "folder_without_data",
        "The folder {name} {what}.",
        "Choose one with JSON, JSONL, CSV, Parquet, Excel, text or Markdown files.",
        field=FIELD,
        name=folder.name,
        what=what,
    )
