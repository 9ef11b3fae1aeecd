"""The commands `estimate` and `probe`: the memory that a job will take, and that it does take."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_backend import runs
from training_backend.commands.command_line import give, report_for
from training_backend.commands.console import ConsoleReport
from training_backend.commands.following import exit_code, follow
from training_backend.computer.devices import gigabytes
from training_backend.errors import UserError
from training_backend.job import ProbeJob, TrainingJob, load_training_job
from training_backend.lifecycle import preflight
from training_backend.protocol import MemoryMeasured

if TYPE_CHECKING:
    from training_backend.computer.devices import Device
    from training_backend.vram import Estimate


def estimate(options: argparse.Namespace) -> int:
    from training_backend.computer.devices import this_device
    from training_backend.memory.memory_report import as_document, as_text

    job = load_training_job(options.job)
    device = options.device or this_device()
    found = _estimated(job, device, options)
    _warn_of_files(job)
    give(options, as_document(found), "" if options.json else as_text(found))
    return 0


def probe(options: argparse.Namespace) -> int:
    """Try one real step; its progress goes to stderr, also with --json."""
    asked = ProbeJob(job=load_training_job(options.job))
    preflight.check(asked)
    run = runs.create(asked)
    try:
        terminal = follow(run, ConsoleReport())
        found = next((e for e in run.events() if isinstance(e, MemoryMeasured)), None)
    finally:
        runs.clear_probes()
    if found is not None:
        document = found.model_dump(mode="json", exclude={"type", "seq", "time", "elapsed"})
        give(options, document, "\n".join(_measured_lines(found)))
    return exit_code(terminal)


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    add("probe", probe, "try one real step and measure its memory and time").add_argument(
        "job", type=Path, metavar="JOB.json"
    )
    command = add("estimate", estimate, "memory needed, with its parts; needs no weights")
    command.add_argument("job", type=Path, metavar="JOB.json")
    command.add_argument(
        "--device", type=_device, metavar="CARD", help="imagine one, such as cuda:24GiB"
    )


def _warn_of_files(job: TrainingJob) -> None:
    """An estimate needs no weights; but if those that are there will not load, it says so."""
    from training_backend.catalog import describe_model

    try:
        describe_model(job.model.id)
    except UserError as error:
        if error.code != "model_weights_missing":
            print(f"But this model cannot be trained as it is: {error}", file=sys.stderr)


def _device(text: str) -> Device:
    from training_backend.computer.devices import parse_device

    try:
        return parse_device(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _estimated(job: TrainingJob, device: Device, options: argparse.Namespace) -> Estimate:
    """The job's memory; a model that was never traced is traced first, which takes seconds."""
    from training_backend.vram import TraceNeeded, estimate_job

    with contextlib.suppress(TraceNeeded):
        return estimate_job(job, device)
    with report_for(options) as report:
        report.say("Finding out what a step of this model allocates ...")
        from training_backend.memory.trace_model import trace_job

        trace_job(job, device.kind != "cpu")
    return estimate_job(job, device)


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
    return f"{gigabytes(size, 2)} GB"
