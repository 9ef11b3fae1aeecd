"""`hand-off`: give an export to the programs that run it, or say how."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend.commands.command_line import give, report_for
from training_backend.commands.console import ConsoleReport
from training_backend.errors import UserError
from training_backend.export import hand_off, lm_studio, ollama
from training_backend.export.hand_off import TITLES, HandOff


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add(
        "hand-off", run, "say how Ollama, LM Studio, llama.cpp, vLLM and TGI take an export"
    )
    command.add_argument("folder", type=Path, metavar="DIR", help="the folder that export wrote")
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--ollama", nargs="?", const="", metavar="NAME", help="give it to Ollama, under this name"
    )
    where.add_argument("--lm-studio", action="store_true", help="put it among LM Studio's models")


def run(options: argparse.Namespace) -> int:
    found = hand_off.look(options.folder)
    if options.ollama is not None:
        return _to_ollama(found, options)
    if options.lm_studio:
        return _to_lm_studio(found, options)
    return give(options, found.document(), _text(found))


def _to_ollama(found: HandOff, options: argparse.Namespace) -> int:
    _require_gguf(found)
    name = options.ollama or found.name
    with report_for(options) as report:

        def tell(share: float | None, words: str) -> None:
            if isinstance(report, ConsoleReport):
                report.bar(words, share or 0, None if share is None else 1)

        ollama.create(found.folder, name, tell, lambda: None)
    return give(options, {"name": name}, f"ollama run {name}")


def _to_lm_studio(found: HandOff, options: argparse.Namespace) -> int:
    file = _require_gguf(found)
    with report_for(options) as report:

        def tell(share: float) -> None:
            if isinstance(report, ConsoleReport):
                report.bar("Copying", share, 1)

        target = lm_studio.add(file, found.name, tell, lambda: None)
    return give(options, {"file": str(target)}, str(target))


def _require_gguf(found: HandOff) -> Path:
    if found.kind != "gguf" or found.file is None:
        raise UserError(
            "hand_off_needs_gguf",
            "The export in {folder} is no GGUF file.",
            "Export the run with --format gguf.",
            folder=found.folder,
        )
    return found.file


def _text(found: HandOff) -> str:
    """A part for each program: its commands, then what to know."""
    parts = [str(warning) for warning in found.warnings]
    for way in found.ways:
        lines = [TITLES[way.program]]
        for one in way.commands:
            lines.append(f"  {one.powershell if os.name == 'nt' else one.posix}")
        parts.append("\n".join([*lines, *(f"  # {note}" for note in way.notes)]))
    return "\n\n".join(parts)
