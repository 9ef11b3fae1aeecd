"""A report on a run, to hand to whoever helps: plain texts in a zip, without what is private.

Left out: prompts, answers and rows of data, the run's name, names of files and folders, the names
of the person and the computer, tokens (`redaction.py`). It is saved where the person says, and sent
nowhere. Light; reads files: for a thread.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from training_backend import __version__
from training_backend.computer import doctor, doctor_text
from training_backend.errors import UserError
from training_backend.files import write_bytes_atomic
from training_backend.lifecycle import evidence, journal
from training_backend.protocol import (
    Heartbeat,
    MemorySampled,
    MetricsLogged,
    RunFailed,
    RunInterrupted,
)
from training_backend.runs import Run
from training_backend.summaries import redaction
from training_backend.summaries.redaction import Scrubber

MOST_LOG_BYTES = 256_000
MOST_NUMBERS = 1_000  # steps, and samples of memory, that are told: the last ones
FOLDER = "lorasmith-report"

LEFT_OUT = (
    "prompts, answers and rows of data",
    "the run's name, and names of files and folders",
    "the names of the person and the computer",
    "tokens",
)


def texts(run: Run) -> dict[str, str]:
    """Everything that is in the report: file names and what stands in them, none of them empty."""
    scrub = Scrubber(run.folder)
    found = {
        "summary.txt": _summary(run),
        "job.json": _job(run),
        "events.jsonl": _events(run),
        "worker.log": redaction.log(_log(run)),
        "computer.txt": _computer(),
    }
    return {name: f"{scrub(text).strip()}\n" for name, text in found.items() if text.strip()}


def save(found: dict[str, str], out: Path) -> None:
    """Write the zip.

    Raises:
        UserError: it cannot be written there.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in found.items():
            file.writestr(f"{FOLDER}/{name}", text)
    try:
        write_bytes_atomic(out, packed.getvalue())
    except OSError as error:
        raise UserError(
            "report_not_written",
            "The report cannot be written to {path}: {reason}.",
            "Choose another folder.",
            path=out,
            reason=error.strerror or error,
        ) from error


def file_name(run: Run) -> str:
    """Without the run's name, which the report does not tell either."""
    return f"lorasmith-report-{run.id[:15]}.zip"


def _summary(run: Run) -> str:
    found = evidence.gather(run)
    end = found.terminal
    lines = [f"Lorasmith {__version__}: report on a run", ""]
    if isinstance(end, RunFailed | RunInterrupted):
        word = "Failed" if isinstance(end, RunFailed) else "Interrupted"
        lines += [f"{word}: {end.code}", redaction.message(end)]
    elif end is not None:
        lines.append(end.type)
    else:
        lines.append(f"state: {run.state()}")
    lines += ["", *evidence.lines(found)]
    lines += ["", "Left out:", *(f"  {what}" for what in LEFT_OUT)]
    return "\n".join(lines)


def _job(run: Run) -> str:
    try:
        return json.dumps(redaction.job(run.job()), indent=2)
    except UserError as error:
        return f"The job cannot be read ({error.code})."


def _events(run: Run) -> str:
    """All events but of the many numbers, of which the last ones are told."""
    told: list[tuple[int, str]] = []
    numbers: dict[type, deque[tuple[int, str]]] = {
        kind: deque(maxlen=MOST_NUMBERS) for kind in (MetricsLogged, MemorySampled)
    }
    for events, _ in journal.pieces(run.folder):
        for event in events:
            if isinstance(event, Heartbeat):
                continue
            line = json.dumps(redaction.event(event))
            numbers.get(type(event), told).append((event.seq, line))
    for few in numbers.values():
        told += few
    return "\n".join(line for _, line in sorted(told))


def _log(run: Run) -> str:
    try:
        with run.log_path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_LOG_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _computer() -> str:
    """What `doctor` says of the computer, but for other programs, folders and addresses."""
    report: dict[str, Any] = doctor.report()
    hardware = report["hardware"] | {"home": "<folder>", "models_folder": "<folder>"}
    hardware["gpus"] = [gpu | {"processes": []} for gpu in hardware["gpus"]]
    report |= {"hardware": hardware, "problems": [], "hints": []}
    return "\n".join(_sections(report))


def _sections(report: dict[str, Any]) -> Iterator[str]:
    for section in doctor_text.sections(report):
        if section.title in ("Graphics card", "Computer", "Packages"):
            yield section.title
            yield from (f"  {row.label:22} {row.text}" for row in section.rows)
            yield ""
