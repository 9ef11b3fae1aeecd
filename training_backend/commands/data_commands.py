"""The commands `preview` and `lint`: what the model sees of the data, and what is wrong in it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_backend.commands.command_line import (
    give,
    positive,
    report_for,
    rows_told,
    tokenizer_of,
)
from training_backend.job import load_training_job

if TYPE_CHECKING:
    from training_backend.data.lint import Finding

_SHOWN_ROWS = 8  # of one finding


def preview(options: argparse.Namespace) -> int:
    from training_backend.data.preview import preview as shown

    job = load_training_job(options.job)
    document = shown(job, tokenizer_of(job), options.rows, options.start)
    lines = [f"Format: {document['format']}", *document["notices"]]
    for row in document["rows"]:
        counts = f"{row['n_tokens']} of {row['n_tokens_full']} tokens, {row['n_trained']} learned"
        lines += ["", f"Row {row['index'] + 1}: {counts} (in brackets)"]
        lines.append(row.get("problem") or _bracketed(row["tokens"]))
    give(options, document, "\n".join(lines))
    return 0


def lint(options: argparse.Namespace) -> int:
    from training_backend.data.lint import lint as examined

    job = load_training_job(options.job)
    tokenizer = tokenizer_of(job)
    with report_for(options) as report:
        found = examined(
            job,
            tokenizer,
            near_duplicates=options.near_duplicates,
            on_progress=rows_told(report),
        )
    numbers = found.numbers
    lines = [
        f"{numbers.rows:,} rows, {numbers.tokens:,} tokens, "
        f"{numbers.trained_share:.1%} of them learned from",
        *found.notices,
        *(f"{f.severity:8} {f.code}: {f.message} {_places(f)}" for f in found.findings),
    ]
    give(options, found.document(job), "\n".join(lines))
    return 0


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    command = add("preview", preview, "what the model sees: tokens, text, loss mask")
    command.add_argument("job", type=Path, metavar="JOB.json")
    command.add_argument("--rows", type=positive, default=5, metavar="N", help="5 by default")
    command.add_argument("--start", type=int, default=0, metavar="ROW", help="counted from 0")
    command = add("lint", lint, "problems in the data, by row")
    command.add_argument("job", type=Path, metavar="JOB.json")
    command.add_argument(
        "--near-duplicates", action="store_true", help="look for rows that are nearly the same"
    )


def _bracketed(tokens: list[dict[str, Any]]) -> str:
    """The text with what is learned from in brackets that no text holds."""
    text, inside = "", False
    for token in tokens:
        if token["trained"] != inside:
            text += "\u27e6" if token["trained"] else "\u27e7"
            inside = token["trained"]
        text += token["text"]
    return text + ("\u27e7" if inside else "")


def _places(finding: Finding) -> str:
    """The first rows of a finding, counted from 1 as `preview` shows them to people."""
    shown = ", ".join(str(row + 1) for row in finding.rows[:_SHOWN_ROWS])
    more = ", ..." if finding.count > _SHOWN_ROWS else ""
    return f"({'row' if finding.count == 1 else 'rows'} {shown}{more})"
