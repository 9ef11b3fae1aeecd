"""The command `report`: what is known of a run, without what is private, as plain texts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.summaries import run_report

Answer = tuple[dict[str, Any], str]  # as JSON, and in words


def report(options: argparse.Namespace) -> Answer:
    """Without a place to save it, print all of it."""
    found = run_report.texts(runs.find(options.run))
    if options.out is None:
        text = "\n".join(f"----- {name}\n{content}" for name, content in found.items())
        return {"files": found}, text.rstrip()
    out = options.out.expanduser().absolute()
    run_report.save(found, out)
    return {"file": str(out), "files": sorted(found)}, str(out)


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add(
        "report", report, "what is known of a run, for whoever helps: nothing private in it"
    )
    command.add_argument("run", metavar="RUN", help="a run's id or folder")
    command.add_argument(
        "--out", type=Path, metavar="FILE.zip", help="save it; without, it is printed"
    )
