"""The command `sweep`: a few values of a setting, tried one after the other and compared."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend.commands.console import ConsoleReport
from training_backend.commands.queue_commands import exit_code, work_through
from training_backend.job import load_training_job
from training_backend.lifecycle import preflight
from training_backend.queueing import queue_file, queue_summary, sweep_results, sweeps
from training_backend.queueing.sweep_results import SweepTable
from training_backend.queueing.sweeps import Axis, Sweep
from training_backend.summaries.run_tables import (
    NUMBERS,
    document,
    numbers,
    print_causes,
    print_json,
    print_table,
    tell,
)


def sweep(options: argparse.Namespace) -> int:
    """Try values of settings and compare; or tell of earlier sweeps."""
    if options.show is not None:
        _show_table(sweep_results.table(sweeps.find(options.show)), options)
        return 0
    if options.job is None:
        return _list_sweeps(options)
    job = load_training_job(options.job)
    axes = [_axis(name, text) for name, text in options.vary or []]
    for one in sweeps.expand(job, axes)[:1]:  # what is wrong with the model is so with all
        preflight.check(one)
    for line in sweeps.notes(job, axes):
        tell(line)
    begun = sweeps.start(job, axes)
    if options.later:
        tell(f"`queue --run` does them, and `sweep --show {begun.id}` tells how they did.")
        return 0
    if queue_file.is_worked_on():
        tell(
            "Another program works through the queue; these runs are done there, in their turn. "
            f"`sweep --show {begun.id}` tells how they did."
        )
        return 0
    done, stopped = work_through(ConsoleReport)
    table = sweep_results.table(begun)
    _show_table(table, options)
    if any(row.facts.state == "queued" for row in table.rows):
        tell(f"`queue --run` goes on, and `sweep --show {begun.id}` tells how the runs did.")
    return exit_code([queue_summary.facts(run) for run in done], stopped)


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add("sweep", sweep, "try values of a setting and compare; alone, list the sweeps")
    command.add_argument("job", type=Path, nargs="?", metavar="JOB.json")
    command.add_argument(
        "--vary", action="append", type=_vary, metavar="SETTING=A,B,...",
        help="such as lora.r=8,16,32; several make every combination",
    )  # fmt: skip
    command.add_argument("--later", action="store_true", help="add the runs, but start nothing")
    command.add_argument("--show", metavar="SWEEP", help="the table of an earlier sweep, by its id")


# ------------------------------------------------------------------------------- what is typed


def _vary(text: str) -> tuple[str, str]:
    name, sign, values = text.partition("=")
    if not sign or not name.strip():
        raise argparse.ArgumentTypeError(f"{text} is not of the form lora.r=8,16,32")
    return name, values


def _axis(name: str, text: str) -> Axis:
    """Values as a job file would have them. Raises `JobError` for an unknown setting."""
    field = sweeps.find_field(name)
    return Axis(field=field, values=tuple(_typed(field, part) for part in text.split(",")))


def _typed(field: str, text: str) -> Any:
    text = text.strip()
    if field == "dataset.max_rows" and text == "all":
        return None
    if field == "lora.target_modules" and "+" in text:
        return text.split("+")
    try:
        return json.loads(text)
    except ValueError:
        return text


# -------------------------------------------------------------------------------- what is told


def _list_sweeps(options: argparse.Namespace) -> int:
    found = sweeps.list_sweeps()
    if options.json:
        print_json([_sweep_document(one) for one in found])
    elif not found:
        print("No sweeps yet.")
    else:
        rows = [
            [one.id, one.name, ", ".join(_axis_text(axis) for axis in one.axes)] for one in found
        ]
        print_table("Sweeps", ["Sweep", "Job", "Varied"], rows)
    return 0


def _show_table(table: SweepTable, options: argparse.Namespace) -> None:
    if options.json:
        verdict = table.verdict
        runs = [
            {**document(row.facts), "values": row.values, "best": table.is_best(row)}
            for row in table.rows
        ]
        told = {
            "by": verdict.by or None,
            "best": verdict.best or None,
            "loss": verdict.loss,
            "seeds": verdict.seeds,
            "spread": verdict.spread,
            "text": verdict.text,
        }
        print_json({**_sweep_document(table.sweep), "runs": runs, "verdict": told})
        return
    fields = [axis.field for axis in table.sweep.axes]
    rows = [
        [
            *(sweeps.value_text(row.values[field]) for field in fields),
            row.facts.state + (", best" if table.is_best(row) else ""),
            *numbers(row.facts),
        ]
        for row in table.rows
    ]
    titles = [sweeps.title(field) for field in fields]
    print_table(table.sweep.name, [*titles, "State", *NUMBERS], rows)
    print(table.verdict.text)
    print_causes([row.facts for row in table.rows])


def _sweep_document(sweep: Sweep) -> dict[str, Any]:
    return sweep.model_dump(mode="json", exclude={"version"})


def _axis_text(axis: Axis) -> str:
    return f"{axis.field}={','.join(sweeps.value_text(value) for value in axis.values)}"
