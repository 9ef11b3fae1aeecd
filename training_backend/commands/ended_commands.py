"""Commands for a run that has ended: a report on it, and another drive for it to go on."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.lifecycle import relocate
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


def move(options: argparse.Namespace) -> Answer:
    run = runs.find(options.run)
    place = relocate.move(run, options.folder.expanduser().absolute())
    return {"id": run.id, "place": str(place)}, f"{run.id} lies in {place} now; its id stays."


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the commands to the command line; `add` takes a name, a function and a help text."""
    command = add(
        "report", report, "what is known of a run, for whoever helps: nothing private in it"
    )
    command.add_argument("run", metavar="RUN", help="a run's id or folder")
    command.add_argument(
        "--out", type=Path, metavar="FILE.zip", help="save it; without, it is printed"
    )
    command = add("move", move, "put an ended run on another drive, where it can go on")
    command.add_argument("run", metavar="RUN", help="a run's id or folder")
    command.add_argument("folder", type=Path, metavar="FOLDER", help="on a drive with room")
