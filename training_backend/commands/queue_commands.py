"""The command `queue`: runs one after the other, with nobody there to look."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from training_backend.commands.console import ConsoleReport, JsonReport, Report
from training_backend.commands.following import follow
from training_backend.computer.stay_awake import StayAwake
from training_backend.errors import JobError, Problem, UserError
from training_backend.job import TrainingJob, load_training_job
from training_backend.queueing import queue_file, queue_summary, run_queue
from training_backend.runs import Run
from training_backend.summaries.run_facts import RunFacts
from training_backend.summaries.run_tables import (
    NUMBERS,
    document,
    numbers,
    print_causes,
    print_json,
    print_table,
    tell,
)

SHOWN_SECONDS = 24 * 3600.0  # how far back the list tells of runs that ended


def queue(options: argparse.Namespace) -> int:
    """Add jobs and do all that waits; without a job, tell what waits."""
    if options.remove is not None:
        run_queue.remove(options.remove)
        return _list(options)
    jobs = _load(options.jobs)
    if jobs:
        run_queue.add(jobs)
    if options.later or not (jobs or options.run):
        return _list(options)
    if jobs and queue_file.is_worked_on():
        tell("Another program works through the queue; these are done there, in their turn.")
        return 0
    done, stopped = work_through(JsonReport if options.json else ConsoleReport)
    facts = [queue_summary.facts(run) for run in done]
    if not options.json:
        _show_ended(facts)
    tell(queue_summary.sentence(facts, len(run_queue.entries())))
    return exit_code(facts, stopped)


def work_through(new_report: Callable[[], Report]) -> tuple[list[Run], bool]:
    """Do all runs that wait, whatever becomes of each.

    Returns the runs that were done, and whether the person stopped. Ctrl+C saves and stops the
    run under way; what waits behind it stays in the queue. Raises `UserError` when another
    program works through the queue.
    """
    awake = StayAwake(lambda error: tell(str(error)))
    done: list[Run] = []
    with run_queue.working():
        run_queue.go_on()
        awake.begin()
        try:
            while (run := run_queue.take_next()) is not None:
                waiting = run_queue.entries()
                tell(f"Run {len(done) + 1} of {len(done) + 1 + len(waiting)}: {_name(run)}")
                _do(run, new_report())
                run_queue.record_end(run)
                done.append(run)
        finally:
            awake.end()
        return done, run_queue.is_paused()


def exit_code(done: Sequence[RunFacts], stopped: bool) -> int:
    """0 all came to their end, 1 some failed though all were tried, 3 stopped on request."""
    if stopped:
        return 3
    return int(any(one.state in ("failed", "interrupted") for one in done))


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add("queue", queue, "do several jobs one after the other; alone, list what waits")
    command.add_argument("jobs", type=Path, nargs="*", metavar="JOB.json")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--run", action="store_true", help="do what waits")
    how.add_argument("--later", action="store_true", help="add the jobs, but start nothing")
    how.add_argument("--remove", metavar="RUN", help="take a waiting run out, by its id")


# --------------------------------------------------------------------------------- one run


def _load(paths: Sequence[Path]) -> list[TrainingJob]:
    """Raises `JobError` with the mistakes of all files, before anything is added."""
    jobs, problems = [], []
    for path in paths:
        try:
            jobs.append(load_training_job(path))
        except JobError as error:
            problems += [Problem(p.field, f"{p.message} (in {path.name})") for p in error.problems]
    if problems:
        raise JobError(problems)
    return jobs


def _do(run: Run, report: Report) -> None:
    """One run to its end, which its journal then tells."""
    if not run_queue.admit(run):
        with report:
            for event in run.events():
                report.show(event)
        return
    try:
        follow(run, report, on_stop=_pause)
    except (UserError, OSError) as error:  # taken by another process; its worker died at once
        report.say(str(error))


def _pause() -> None:
    """At once, so that also a run that has to be killed is the last one."""
    with contextlib.suppress(UserError, OSError):
        run_queue.pause()


def _name(run: Run) -> str:
    try:
        return run.training_job().name
    except UserError:
        return run.id


# -------------------------------------------------------------------------------- what is told


def _list(options: argparse.Namespace) -> int:
    entries = run_queue.entries()
    ended = queue_summary.ended_since(time.time() - SHOWN_SECONDS)
    if options.json:
        waiting = [
            {
                "id": entry.run.id,
                "name": entry.name,
                "sweep": entry.sweep or None,
                "folder": str(entry.run.folder),
            }
            for entry in entries
        ]
        print_json(
            {
                "paused": run_queue.is_paused(),
                "worked_on": queue_file.is_worked_on(),
                "waiting": waiting,
                "ended": [document(one) for one in ended],
            }
        )
        return 0
    if run_queue.notice():
        tell(run_queue.notice())
        run_queue.dismiss_notice()
    if entries:
        rows = [[str(n), entry.name, entry.run.id] for n, entry in enumerate(entries, start=1)]
        print_table("Waiting", ["", "Name", "Run"], rows)
        if not queue_file.is_worked_on():
            tell("`queue --run` does them.")
    else:
        print("Nothing waits.")
    _show_ended(ended)
    return 0


def _show_ended(ended: Sequence[RunFacts]) -> None:
    if ended:
        rows = [[one.name, one.state, *numbers(one)] for one in ended]
        print_table("Ended", ["Name", "State", *NUMBERS], rows)
        print_causes(ended)
