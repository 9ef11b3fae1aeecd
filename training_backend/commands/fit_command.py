"""The command `fit`: what to change about a run that ran out of memory, and going on with it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from training_backend import runs
from training_backend.commands.command_line import give, report_for
from training_backend.commands.following import exit_code, follow
from training_backend.errors import UserError
from training_backend.lifecycle import failures, inputs, preflight
from training_backend.memory import make_fit, memory_fixes
from training_backend.memory.memory_fixes import Fixes
from training_backend.runs import Run
from training_backend.summaries.run_tables import tell


@dataclass(frozen=True)
class Choice:
    """What `--apply` with its number does. `goes_on`: with the same run, else a new one begins."""

    title: str
    cost: str
    changes: dict[str, Any]
    goes_on: bool


def fit(options: argparse.Namespace) -> int:
    """List the changes, or make one of them and train."""
    run = runs.find(options.run)
    runs.settle(run)
    state = run.state()
    if state not in ("failed", "interrupted", "stopped"):
        raise UserError(
            "not_to_be_fitted",
            "Run {run} is {state}; what to change is told of one that failed.",
            "`estimate` tells what a job needs before it starts.",
            run=run.id,
            state=state,
        )
    fixes = _fixes(run, options)
    offered = choices(fixes)
    if options.apply is None:
        _list(run, fixes, offered, options)
        return 0
    if not 1 <= options.apply <= len(offered):
        raise UserError(
            "no_such_change",
            "There is no change number {number}; there are {count}.",
            "`fit {run}` lists them.",
            number=options.apply,
            count=len(offered),
            run=run.id,
        )
    return _apply(run, fixes, offered[options.apply - 1], options)


def choices(fixes: Fixes) -> list[Choice]:
    """All that is likely to be enough first, where that is several changes; then each alone."""
    found = []
    if fixes.plan.fits and len(fixes.plan.steps) > 1:
        title = "; ".join(step.title for step in fixes.plan.steps)
        found.append((title, "Together likely to be enough.", fixes.plan.changes))
    found += [(one.title, one.cost, one.changes) for one in fixes.suggestions]
    return [Choice(*one, goes_on=memory_fixes.goes_on(fixes, one[2])) for one in found]


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add("fit", fit, "what to change about a run that ran out of memory")
    command.add_argument("run", metavar="RUN")
    command.add_argument("--apply", type=int, metavar="N", help="make this change and train")


def _fixes(run: Run, options: argparse.Namespace) -> Fixes:
    """A model that was never looked at is traced first, which takes seconds."""
    from training_backend.computer.devices import this_device
    from training_backend.vram import TraceNeeded

    with contextlib.suppress(TraceNeeded):
        return memory_fixes.find(run)
    with report_for(options) as report:
        report.say("Finding out what a step of this model allocates ...")
        from training_backend.memory.trace_model import trace_job

        with contextlib.suppress(UserError):
            trace_job(run.training_job(), this_device().kind != "cpu")
            return memory_fixes.find(run)
    return memory_fixes.without_estimate(run)


def _list(run: Run, fixes: Fixes, offered: list[Choice], options: argparse.Namespace) -> None:
    lines = []
    if fixes.evidence.code not in failures.OUT_OF_MEMORY:
        lines.append("Nothing says that this run ran out of memory. What would need less:")
    for number, one in enumerate(offered, start=1):
        then = "The run goes on." if one.goes_on else "A new run begins."
        lines.append(f"{number}  {one.title}\n   {one.cost} {then}")
    if offered:
        lines.append(f"`fit {run.id} --apply 1` makes the first of these changes, and trains.")
    else:
        lines.append("No setting is left that would need less memory.")
    text = "\n".join(lines)
    give(options, [vars(one) for one in offered], text)


def _apply(run: Run, fixes: Fixes, choice: Choice, options: argparse.Namespace) -> int:
    job = make_fit.changed(fixes.job, choice.changes)
    if choice.goes_on:
        preflight.check(job, run.folder)
        if "training.max_length" in choice.changes:  # the rows differ, as is wanted
            inputs.accept_changes(run)
        runs.revise(run, job)
    else:
        preflight.check(job)
        run = runs.create(job)
        tell("This does not fit what was learned so far: a new run begins.")
    terminal = follow(run, report_for(options))
    if not options.json:
        print(run.folder)
    return exit_code(terminal)
