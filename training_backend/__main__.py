"""The same jobs without a window: `python -m training_backend COMMAND`.

Exit codes: 0 done, 1 failed with a clear message on stderr, 2 wrong usage of the command
line, 3 stopped on request. Progress goes to stderr, results to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from training_backend import (
    adapters,
    benchmark,
    extend,
    inputs,
    live_commands,
    preferences,
    preflight,
    queue_commands,
    recipe_commands,
    runs,
    sweep_commands,
)
from training_backend.console import ConsoleReport, JsonReport, Report
from training_backend.errors import JobError, UserError
from training_backend.following import exit_code as _exit_code
from training_backend.following import follow as _follow
from training_backend.job import (
    ExportFormat,
    ExportJob,
    ProbeJob,
    TrainingJob,
    load_training_job,
    parse_job,
)
from training_backend.protocol import MemoryMeasured, RunCompleted, SampleGenerated

if TYPE_CHECKING:
    from training_backend.data.lint import Finding
    from training_backend.devices import Device
    from training_backend.vram import Estimate

_SHOWN_ROWS = 8  # of one finding of lint


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
    from training_backend.demo_model import DemoProgress, prepare_demo_model

    with _report(options) as report:
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
    _result(options, {"folder": str(folder)}, str(folder))
    return 0


def train(options: argparse.Namespace) -> int:
    job = _training_job(options)
    preflight.check(job)
    run = runs.create(job)
    terminal = _follow(run, _report(options))
    if not options.json:
        print(run.folder)
    return _exit_code(terminal)


def resume(options: argparse.Namespace) -> int:
    run = runs.find(options.run)
    preflight.check(run.training_job())
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
    terminal = _follow(run, _report(options))
    if not options.json:
        print(run.folder)
    return _exit_code(terminal)


def extend_run(options: argparse.Namespace) -> int:
    run = runs.find(options.run)
    longer = extend.longer(extend.reached(run), epochs=options.epochs, steps=options.steps)
    preflight.check(longer)
    runs.revise(run, longer)
    terminal = _follow(run, _report(options))
    if not options.json:
        print(run.folder)
    return _exit_code(terminal)


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
    _result(options, document, "\n".join(line.rstrip() for line in lines) or "No runs yet.")
    return 0


def preview(options: argparse.Namespace) -> int:
    from training_backend.data.preview import preview as shown

    job = _training_job(options)
    document = shown(job, _tokenizer(job), options.rows, options.start)
    lines = [f"Format: {document['format']}", *document["notices"]]
    for row in document["rows"]:
        counts = f"{row['n_tokens']} of {row['n_tokens_full']} tokens, {row['n_trained']} learned"
        lines += ["", f"Row {row['index'] + 1}: {counts} (in brackets)"]
        lines.append(row.get("problem") or _bracketed(row["tokens"]))
    _result(options, document, "\n".join(lines))
    return 0


def _bracketed(tokens: list[dict[str, Any]]) -> str:
    """The text with what is learned from in brackets that no text holds."""
    text, inside = "", False
    for token in tokens:
        if token["trained"] != inside:
            text += "\u27e6" if token["trained"] else "\u27e7"
            inside = token["trained"]
        text += token["text"]
    return text + ("\u27e7" if inside else "")


def lint(options: argparse.Namespace) -> int:
    from training_backend.data.lint import lint as examined

    job = _training_job(options)
    tokenizer = _tokenizer(job)
    with _report(options) as report:
        found = examined(
            job,
            tokenizer,
            near_duplicates=options.near_duplicates,
            on_progress=_rows_told(report),
        )
    numbers = found.numbers
    lines = [
        f"{numbers.rows:,} rows, {numbers.tokens:,} tokens, "
        f"{numbers.trained_share:.1%} of them learned from",
        *found.notices,
        *(f"{f.severity:8} {f.code}: {f.message} {_places(f)}" for f in found.findings),
    ]
    _result(options, found.document(job), "\n".join(lines))
    return 0


def _rows_told(report: Report) -> Callable[[int], None]:
    def tell(rows: int) -> None:
        if isinstance(report, ConsoleReport):
            report.bar(f"{rows:,} rows", 0, None)
        elif rows % 50_000 == 0:
            report.say(f"{rows} rows")

    return tell


def _places(finding: Finding) -> str:
    """The first rows of a finding, counted from 1 as `preview` shows them to people."""
    shown = ", ".join(str(row + 1) for row in finding.rows[:_SHOWN_ROWS])
    more = ", ..." if finding.count > _SHOWN_ROWS else ""
    return f"({'row' if finding.count == 1 else 'rows'} {shown}{more})"


def estimate(options: argparse.Namespace) -> int:
    from training_backend.devices import this_device
    from training_backend.memory_report import as_document, as_text

    job = _training_job(options)
    device = options.device or this_device()
    found = _estimated(job, device, options)
    _warn_of_files(job)
    _result(options, as_document(found), "" if options.json else as_text(found))
    return 0


def _warn_of_files(job: TrainingJob) -> None:
    """An estimate needs no weights; but if those that are there will not load, it says so."""
    from training_backend.catalog import describe_model

    try:
        describe_model(job.model.id)
    except UserError as error:
        if error.code != "model_weights_missing":
            print(f"But this model cannot be trained as it is: {error}", file=sys.stderr)


def _device(text: str) -> Device:
    from training_backend.devices import parse_device

    try:
        return parse_device(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _estimated(job: TrainingJob, device: Device, options: argparse.Namespace) -> Estimate:
    """The job's memory; a model that was never traced is traced first, which takes seconds."""
    from training_backend.vram import TraceNeeded, estimate_job

    with contextlib.suppress(TraceNeeded):
        return estimate_job(job, device)
    with _report(options) as report:
        report.say("Finding out what a step of this model allocates ...")
        from training_backend.trace_model import trace_job

        trace_job(job, device.kind != "cpu")
    return estimate_job(job, device)


def _training_job(options: argparse.Namespace) -> TrainingJob:
    return load_training_job(options.job)


def _tokenizer(job: TrainingJob) -> Any:
    """The tokenizer of the job's model; the demo model is prepared first."""
    from training_backend.catalog import DEMO_MODEL_IDS, resolve_model
    from training_backend.demo_model import prepare_demo_model
    from training_backend.downloads import fetch_tokenizer
    from training_backend.tokenizer import load_tokenizer

    if job.model.id in DEMO_MODEL_IDS:
        return load_tokenizer(prepare_demo_model())
    found = resolve_model(job.model.id)
    if isinstance(found, str):
        found = fetch_tokenizer(found, job.model.revision)
    return load_tokenizer(found)


def export(options: argparse.Namespace) -> int:
    folder = Path(options.run)
    job = parse_job(
        {
            "kind": "export",
            "run": str(folder.absolute()) if folder.is_dir() else options.run,
            "checkpoint": options.checkpoint,
            "format": options.format,
            "out": str(options.out.absolute()),
        },
        "the export",
    )
    preflight.check(job)
    terminal = _follow(runs.create(job), _report(options))
    if not options.json and isinstance(terminal, RunCompleted):
        print(terminal.folder)
    return _exit_code(terminal)


def script(options: argparse.Namespace) -> int:
    """Write a job, or what a run did, as a script that needs nothing of this program."""
    is_file = os.path.isfile(options.job) or options.job.endswith(".json")
    if is_file:
        job = load_training_job(Path(options.job))
    else:
        job = adapters.job_of(runs.find(options.job))
    preflight.check_empty(options.out)
    from training_backend.script import folder

    tokenizer = _tokenizer(job)
    with _report(options) as report:
        written = folder.write(job, tokenizer, options.out, _rows_told(report))
    out = options.out.expanduser().absolute()
    _result(options, {"folder": str(out), "files": written}, str(out))
    return 0


def probe(options: argparse.Namespace) -> int:
    """Try one real step; its progress goes to stderr, also with --json."""
    asked = ProbeJob(job=_training_job(options))
    preflight.check(asked)
    run = runs.create(asked)
    try:
        terminal = _follow(run, ConsoleReport())
        found = next((e for e in run.events() if isinstance(e, MemoryMeasured)), None)
    finally:
        runs.clear_probes()
    if found is not None:
        document = found.model_dump(mode="json", exclude={"type", "seq", "time", "elapsed"})
        _result(options, document, "\n".join(_measured_lines(found)))
    return _exit_code(terminal)


def _measured_lines(found: MemoryMeasured) -> list[str]:
    device = f"{found.device_name}, which has {_gb(found.device_total_bytes)}"
    rows = f"with rows of {found.longest_tokens:,} tokens"
    if not found.fits:
        where = f"it ran out {found.ran_out}" if found.ran_out else "it takes more than is free"
        return [
            f"Does not fit: {where}, at {_gb(found.measured_bytes)} on {device}, {rows}.",
            "Choose a smaller batch size or a shorter longest row, 4-bit loading, or activation "
            "checkpointing.",
        ]
    estimate = f" (estimate {_gb(found.estimate_bytes)})" if found.estimate_bytes else ""
    lines = [f"Measured {_gb(found.measured_bytes)}{estimate} on {device}, {rows}."]
    lines += [f"  {name:12} {_gb(size):>10}" for name, size in found.parts.items()]
    if found.seconds_per_step is not None:
        lines.append(f"One step takes {found.seconds_per_step:.1f} seconds.")
    if found.run_seconds is not None:
        lines.append(f"The whole run takes about {found.run_seconds / 60:,.0f} minutes.")
    return lines


def _gb(size: int) -> str:
    return f"{size / 2**30:,.2f} GB"  # as cards are sold: 24 GB are 24 * 2^30 bytes


def doctor(options: argparse.Namespace) -> int:
    from training_backend import doctor as examination
    from training_backend import doctor_text

    found = examination.report(ask_hub=options.ask_hub)
    _result(options, found, doctor_text.as_text(found))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Train on the demo, export, and print the same questions answered before and after."""
    from training_backend.demo import demo_job
    from training_backend.paths import exports_dir

    job = demo_job()
    preflight.check(job)
    run = runs.create(job)
    code = _exit_code(_follow(run, _report(options)))
    if code:
        return code
    out = exports_dir() / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    exported = runs.create(ExportJob(run=str(run.folder), out=str(out)))
    code = _exit_code(_follow(exported, _report(options)))
    if code == 0:
        samples = [event for event in run.events() if isinstance(event, SampleGenerated)]
        for prompt in job.evaluation.prompts:
            before, *_, after = [s.answer for s in samples if s.prompt == prompt]
            print(f"\nQuestion: {prompt}\n\n  Before: {before}\n\n  After:  {after}")
        print(f"\nThe run is in     {run.folder}\nThe new model is in {out}")
    return code


def _report(options: argparse.Namespace) -> Report:
    return JsonReport() if options.json else ConsoleReport()


def _result(options: argparse.Namespace, document: Any, text: str) -> int:
    print(json.dumps(document, indent=2, default=str) if options.json else text)
    return 0


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
        return add(name, lambda options: _result(options, *ask(options)), help)

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
    by.add_argument("--steps", type=_positive, metavar="N")
    live_commands.register(add_answer)
    queue_commands.register(add)
    sweep_commands.register(add)
    recipe_commands.register(add)
    command = add("preview", preview, "what the model sees: tokens, text, loss mask")
    command.add_argument("job", type=Path, metavar="JOB.json")
    command.add_argument("--rows", type=_positive, default=5, metavar="N", help="5 by default")
    command.add_argument("--start", type=int, default=0, metavar="ROW", help="counted from 0")
    command = add("lint", lint, "problems in the data, by row")
    command.add_argument("job", type=Path, metavar="JOB.json")
    command.add_argument(
        "--near-duplicates", action="store_true", help="look for rows that are nearly the same"
    )
    add("probe", probe, "try one real step and measure its memory and time").add_argument(
        "job", type=Path, metavar="JOB.json"
    )
    command = add("estimate", estimate, "memory needed, with its parts; needs no weights")
    command.add_argument("job", type=Path, metavar="JOB.json")
    command.add_argument(
        "--device", type=_device, metavar="CARD", help="imagine one, such as cuda:24GiB"
    )
    add("runs", list_runs, "list the runs")
    command = add("export", export, "write what a run learned as a folder")
    command.add_argument("run", metavar="RUN", help="a run's id or folder, or an adapter folder")
    command.add_argument("--format", choices=get_args(ExportFormat), default="safetensors")
    command.add_argument(
        "--out", type=Path, required=True, metavar="D", help="a new or empty folder"
    )
    command.add_argument("--checkpoint", metavar="NAME", help="such as checkpoint-40")
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


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
