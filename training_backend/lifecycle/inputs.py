"""What a run learns from, by its fingerprint: a resumed run goes on with the same, or says so.

`inputs.json` in the run's folder is written when the training first begins.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.files import write_json_atomic
from training_backend.lifecycle import journal
from training_backend.protocol import RunFailed
from training_backend.runs import Run

FILE_NAME = "inputs.json"
SAMPLES = 256
SAMPLE_BYTES = 64 * 2**10

Fingerprints = dict[str, str]
_NAMES = {"base": "base model", "data": "data", "held_out": "held-out data"}


def of_rows(rows: Any | None) -> str:
    """SHA-256 of a dataset's numbers, as the trainer gets them and in their order; "" for none."""
    if rows is None:
        return ""
    digest = hashlib.sha256()
    for table in rows.with_format("arrow").iter(batch_size=1_000):
        for name in table.column_names:
            column = table.column(name).combine_chunks()
            digest.update(name.encode())
            digest.update(column.value_lengths().to_numpy().tobytes())
            digest.update(column.flatten().to_numpy().tobytes())
    return digest.hexdigest()


def of_model(folder: Path) -> str:
    """SHA-256 of a model's config and weights; of large files of 256 pieces, 16 MB in all."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for place in _places(size):
                file.seek(place)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _places(size: int) -> Iterator[int]:
    """Where to read: everywhere in a small file; in a large one evenly, its end included."""
    if size <= SAMPLES * SAMPLE_BYTES:
        yield from range(0, size, SAMPLE_BYTES)
        return
    for number in range(SAMPLES):
        yield (size - SAMPLE_BYTES) * number // (SAMPLES - 1)


def check(run: Run, found: Fingerprints, resumed: bool) -> None:
    """Compare with what the run began with; a first attempt notes it down.

    Raises:
        UserError: `inputs_changed`, of a resumed run.
    """
    path = run.folder / FILE_NAME
    if not resumed or not path.exists():
        write_json_atomic(path, found)
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        changed = [_NAMES[key] for key in found if known.get(key) != found[key]]
    except (OSError, ValueError, AttributeError):
        changed = []  # unreadable: it cannot be told, and the run is not held up for it
    if changed:
        raise UserError(
            "inputs_changed",
            "The {what} changed since the run began.",
            "Put back what it began with and resume, or go on with what is there now (on the "
            "command line with --accept-changes).",
            what=" and the ".join(changed),
        )


def base_changed(run: Run, folder: Path) -> bool:
    """Whether this is no longer the base model that the run was trained on, as far as known."""
    try:
        known = json.loads((run.folder / FILE_NAME).read_text(encoding="utf-8"))
        return bool(known["base"] != of_model(folder))
    except (OSError, ValueError, LookupError, TypeError):
        return False


def accept_changes(run: Run) -> None:
    """Let the next attempt go on with what is there now."""
    (run.folder / FILE_NAME).unlink(missing_ok=True)


def waits_for_consent(run: Run) -> bool:
    """Whether the run ended because its inputs changed, and nothing was decided since."""
    last = journal.last_event(run.folder)
    accepted = not os.path.exists(run.folder / FILE_NAME)
    return isinstance(last, RunFailed) and last.code == "inputs_changed" and not accepted
