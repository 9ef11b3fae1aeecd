"""The same jobs without a window: `python -m training_backend COMMAND`.

Exit codes: 0 done, 1 failed with a clear message on stderr, 2 wrong usage of the command
line, 3 stopped on request. Progress goes to stderr, results to stdout.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend import paths, preferences, runs
from training_backend.commands import (
    benchmark,
    data_commands,
    ended_commands,
    export_commands,
    fit_command,
    hand_off_command,
    live_commands,
    memory_commands,
    push_command,
    queue_commands,
    recipe_commands,
    sweep_commands,
)
from training_backend.commands.command_line import (
    give,
    positive,
    report_for,
    rows_told,
    tokenizer_of,
)
from training_backend.commands.console import ConsoleReport
from training_backend.commands.following import exit_code, follow
from training_backend.errors import JobError, UserError
from training_backend.job import (
    ExportJob,
    load_training_job,
)
from training_backend.lifecycle import extend, inputs, preflight
from training_backend.models import adapters
from training_backend.protocol import SampleGenerated


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        preferences.apply_to_environment()
        return int(options.command(options))
    except JobError as error:
        print("The job cannot be run:", file=sys.stderr)
        for problem in error.problems:
            place = f"  {problem.field}: " if problem.field else "  "
            print(f"{place}{problem.message}", file=sys.stderr)
    except UserError as error:
        print(error, file=sys.stderr)
    except OSError as error:  # a full disk, a folder without rights
        print(f"The system refused: {error}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return 3
    return 1


def demo_model(options: argparse.Namespace) -> int:
    from training_backend.models.demo_model import DemoProgress, prepare_demo_model

    with report_for(options) as report:
        told = ""

        def tell(progress: DemoProgress) -> None:
            nonlocal told
            if isinstance(report, ConsoleReport):
                report.bar(
                    f"Demo model: {progress.phase}", progress.done_bytes, progress.total_bytes
                )
            elif progress.phase != told:
                told = progress.phase
                report.say(told)

        folder = prepare_demo_model(tell)
    give(options, {"folder": str(folder)}, str(folder))
    return 0


def train(options: argparse.Namespace) -> int:
    job = load_training_job(options.job)
    preflight.check(job)
    run = runs.create(job)
    terminal = follow(run, report_for(options))
    if not options.json:
        print(run.folder)
    return exit_code(terminal)


def resume(options: argparse.Namespace) -> int:
    run = runs.find(options.run)
    preflight.check(run.training_job(), run.folder)
    state = run.state()
    if state in ("completed", "running"):
        raise UserError(
            "not_resumable",
            "Run {run} is {state}; there is nothing to resume.",
            run=run.id,
            state=state,
        )
    runs.settle(run)
    if options.accept_changes:
        inputs.accept_changes(run)
    terminal = follow(run, report_for(options))
    if not options.json:
        print(run.folder)
    return exit_code(terminal)


def extend_run(options: argparse.Namespace) -> int:
    run = runs.find(options.run)
    longer = extend.longer(extend.reached(run), epochs=options.epochs, steps=options.steps)
    preflight.check(longer)
    runs.revise(run, longer)
    terminal = follow(run, report_for(options))
    if not options.json:
        print(run.folder)
    return exit_code(terminal)


def list_runs(options: argparse.Namespace) -> int:
    rows = runs.list_runs()
    document = [
        {
            **{k: v for k, v in dataclasses.asdict(row).items() if k != "run"},
            "id": row.run.id,
            "folder": str(row.run.folder),
        }
        for row in rows
    ]
    lines = [
        f"{row.run.id:44} {row.state:12} "
        + (f"step {row.step} of {row.total_steps}, loss {row.loss:.3f}" if row.step else "")
        for row in rows
    ]
    give(options, document, "\n".join(line.rstrip() for line in lines) or "No runs yet.")
    return 0


def script(options: argparse.Namespace) -> int:
    """Write a job, or what a run did, as a script that needs nothing of this program."""
    is_file = os.path.isfile(options.job) or options.job.endswith(".json")
    if is_file:
        job = load_training_job(Path(options.job))
    else:
        job = adapters.job_of(runs.find(options.job))
    paths.check_empty(options.out)
    from training_backend.script import folder

    tokenizer = tokenizer_of(job)
    with report_for(options) as report:
        written = folder.write(job, tokenizer, options.out, rows_told(report))
    out = options.out.expanduser().absolute()
    give(options, {"folder": str(out), "files": written}, str(out))
    return 0


def doctor(options: argparse.Namespace) -> int:
    from training_backend.computer import doctor as examination
    from training_backend.computer import doctor_text

    found = examination.report(ask_hub=options.ask_hub)
    give(options, found, doctor_text.as_text(found))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Train on the demo, export, and print the same questions answered before and after."""
    from training_backend.paths import exports_dir
    from training_backend.starting_points.demo import demo_job

    job = demo_job()
    preflight.check(job)
    run = runs.create(job)
    code = exit_code(follow(run, report_for(options)))
    if code:
        return code
    out = exports_dir() / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    exported = runs.create(ExportJob(run=str(run.folder), out=str(out), verify=False))
    code = exit_code(follow(exported, report_for(options)))
    if code == 0:
        samples = [event for event in run.events() if isinstance(event, SampleGenerated)]
        for prompt in job.evaluation.prompts:
            before, *_, after = [s.answer for s in samples if s.prompt == prompt]
            print(f"\nQuestion: {prompt}\n\n  Before: {before}\n\n  After:  {after}")
        print(f"\nThe run is in     {run.folder}\nThe new model is in {out}")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training_backend", description="Fine-tune language models without a window."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, help: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        command.add_argument("--json", action="store_true", help="machine-readable output")
        command.set_defaults(command=function)
        return command

    def add_answer(
        name: str, ask: Callable[[argparse.Namespace], tuple[Any, str]], help: str
    ) -> argparse.ArgumentParser:
        return add(name, lambda options: give(options, *ask(options)), help)

    add("demo-model", demo_model, "prepare the demo model and print its folder")
    add("demo", demo, "train on the demo, export, and compare the answers")
    add("train", train, "train; the last line is the run's folder").add_argument(
        "job", type=Path, metavar="JOB.json"
    )
    command = add("resume", resume, "go on from the newest whole checkpoint")
    command.add_argument("run", metavar="RUN")
    command.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on though the base model or the data changed since the run began",
    )
    command = add("extend", extend_run, "train an ended run for longer, in the same run")
    command.add_argument("run", metavar="RUN")
    by = command.add_mutually_exclusive_group(required=True)
    by.add_argument("--epochs", type=_positive_share, metavar="N", help="such as 1 or 0.5")
    by.add_argument("--steps", type=positive, metavar="N")
    live_commands.register(add_answer)
    queue_commands.register(add)
    sweep_commands.register(add)
    recipe_commands.register(add)
    ended_commands.register(add_answer)
    data_commands.register(add)
    memory_commands.register(add)
    fit_command.register(add)
    push_command.register(add)
    add("runs", list_runs, "list the runs")
    export_commands.register(add)
    hand_off_command.register(add)
    command = add("script", script, "write a job or a run as a script of plain TRL and PEFT")
    command.add_argument("job", metavar="JOB.json|RUN", help="a job file, or a run's id or folder")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new or empty folder"
    )
    benchmark.register(add_answer)
    command = add("doctor", doctor, "hardware, versions, what would work here")
    command.add_argument(
        "--ask-hub", action="store_true", help="also see whether the Hugging Face Hub answers"
    )
    return parser


def _positive_share(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
