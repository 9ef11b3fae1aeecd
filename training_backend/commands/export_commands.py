"""The commands `export` and `verify`: what a run learned, as a folder that other programs load."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from training_backend import runs
from training_backend.commands.command_line import give, report_for
from training_backend.commands.console import ConsoleReport
from training_backend.commands.following import exit_code, follow
from training_backend.errors import UserError
from training_backend.job import ExportBase, ExportDtype, ExportFormat, GgufQuantization, parse_job
from training_backend.lifecycle import preflight
from training_backend.protocol import ExportProved, RunCompleted


def export(options: argparse.Namespace) -> int:
    """Export, and print the folder."""
    if options.quantization and options.format != "gguf":
        raise UserError(
            "quantization_without_gguf",
            "Only a GGUF file has a --quantization.",
            "Add --format gguf, or leave it out.",
        )
    job = parse_job(
        {
            "kind": "export",
            "run": _run(options.run),
            "checkpoint": options.checkpoint,
            "format": options.format,
            "quantization": options.quantization or "q8_0",
            "dtype": options.dtype,
            "max_shard_gb": options.max_shard_gb,
            "base": options.base,
            "verify": options.verify,
            "prompts": options.prompt,
            "out": str(options.out.absolute()),
        },
        "the export",
    )
    preflight.check(job)
    terminal = follow(runs.create(job), report_for(options))
    if not options.json and isinstance(terminal, RunCompleted):
        print(terminal.folder)
    return exit_code(terminal)


def verify(options: argparse.Namespace) -> int:
    """Ask an export and what it was made of the same questions.

    Exit code 1 when they differ, 3 when that was stopped and nothing else is known to differ.
    """
    job = parse_job(
        {
            "kind": "verify",
            "folder": str(options.folder.expanduser().absolute()),
            "run": _run(options.run),
            "checkpoint": options.checkpoint,
            "prompts": options.prompt,
        },
        "the check",
    )
    preflight.check(job)
    run = runs.create(job)
    try:
        terminal = follow(run, ConsoleReport())
        proved = next((e for e in run.events() if isinstance(e, ExportProved)), None)
    finally:
        runs.clear_probes()
    if proved is None:
        return exit_code(terminal)
    document = proved.model_dump(mode="json", exclude={"type", "seq", "time", "elapsed"})
    give(options, document, f"{proved.verdict}: {proved.message}")
    if "different" in (proved.verdict, proved.kept):
        return 1
    return 3 if proved.code == "proof_stopped" else exit_code(terminal)


def _run(text: str) -> str:
    """A folder as the worker finds it too, wherever that runs; else a run's id."""
    folder = Path(text)
    return str(folder.absolute()) if folder.is_dir() else text


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add("export", export, "write what a run learned as a folder")
    command.add_argument("run", metavar="RUN", help="a run's id or folder, or an adapter folder")
    command.add_argument("--format", choices=get_args(ExportFormat), default="safetensors")
    command.add_argument(
        "--out", type=Path, required=True, metavar="D", help="a new or empty folder"
    )
    command.add_argument(
        "--quantization", choices=get_args(GgufQuantization), help="of a GGUF file; q8_0 by default"
    )
    command.add_argument("--checkpoint", metavar="NAME", help="such as checkpoint-40")
    command.add_argument(
        "--dtype", choices=get_args(ExportDtype), default="auto", help="of merged weights"
    )
    command.add_argument(
        "--max-shard-gb", type=float, metavar="GB", help="the largest file of merged weights"
    )
    command.add_argument(
        "--base",
        choices=get_args(ExportBase),
        default="16-bit",
        help="merge into the base model itself, or into what 4-bit training saw of it",
    )
    command.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not ask the export the same questions as the base model with the adapter",
    )
    command.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="a question for that check"
    )
    command = add("verify", verify, "ask an export and what it was made of the same questions")
    command.add_argument("folder", type=Path, metavar="DIR", help="of an export")
    command.add_argument(
        "--run", required=True, metavar="RUN", help="what it was made of: a run, or an adapter"
    )
    command.add_argument("--checkpoint", metavar="NAME", help="such as checkpoint-40")
    command.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="a question of your own"
    )
