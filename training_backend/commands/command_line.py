"""What the commands share: where their progress and their results go, and what they read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

from training_backend.commands.console import ConsoleReport, JsonReport, Report
from training_backend.job import TrainingJob


def report_for(options: argparse.Namespace) -> Report:
    """Progress for a person or for a program; on stderr."""
    return JsonReport() if options.json else ConsoleReport()


def give(options: argparse.Namespace, document: Any, text: str) -> int:
    """Print the result, as a document or in words; returns the exit code."""
    print(json.dumps(document, indent=2, default=str) if options.json else text)
    return 0


def rows_told(report: Report) -> Callable[[int], None]:
    """Tells how many rows have been gone through."""

    def tell(rows: int) -> None:
        if isinstance(report, ConsoleReport):
            report.bar(f"{rows:,} rows", 0, None)
        elif rows % 50_000 == 0:
            report.say(f"{rows} rows")

    return tell


def tokenizer_of(job: TrainingJob) -> Any:
    """The tokenizer of the job's model; the demo model is prepared first."""
    from training_backend.catalog import DEMO_MODEL_IDS, resolve_model
    from training_backend.hub.downloads import fetch_tokenizer
    from training_backend.models.demo_model import prepare_demo_model
    from training_backend.models.tokenizer import load_tokenizer

    if job.model.id in DEMO_MODEL_IDS:
        return load_tokenizer(prepare_demo_model())
    found = resolve_model(job.model.id)
    if isinstance(found, str):
        found = fetch_tokenizer(found, job.model.revision)
    return load_tokenizer(found)


def positive(text: str) -> int:
    """The type of an option that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
