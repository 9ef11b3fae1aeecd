"""The command `push`: an export to the Hugging Face Hub, with its model card."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.commands.command_line import give, report_for
from training_backend.commands.console import ConsoleReport, Report
from training_backend.errors import UserError
from training_backend.hub import push as hub_push
from training_backend.hub import push_repo
from training_backend.hub.push_files import PICTURE
from training_backend.hub.transfer import TransferProgress, amount
from training_backend.summaries import push_draft
from training_backend.summaries.push_draft import PushDraft

_WORDS = {
    "asking": "Asking the Hub",
    "waiting": "Waiting for the connection",
    "checking": "Reading",
    "uploading": "Sending",
    "done": "Done",
}


def push(options: argparse.Namespace) -> int:
    """Send an export; with --preview show what would be sent, and send nothing."""
    folder = options.folder.expanduser().absolute()
    run = runs.find(options.run) if options.run else None
    repo = options.repo
    if "/" not in repo and not options.preview:  # the card names it in full
        repo = push_repo.full_name(repo, push_repo.account())
    found = push_draft.draft(folder, repo, run)
    card = found.card.text if options.card is None else _read(options.card)
    if options.preview:
        return give(options, _document(found, card), _as_text(found, card))
    with report_for(options) as report:
        pushed = hub_push.push(
            folder,
            repo,
            card,
            found.card.picture if PICTURE in card else None,
            private=not options.public,
            renew=options.renew,
            on_progress=_told(report),
        )
    seen = "private" if pushed.private else "public"
    return give(options, asdict(pushed), f"{pushed.url} ({seen})")


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add("push", push, "send an export to the Hugging Face Hub; private by default")
    command.add_argument("folder", type=Path, metavar="DIR", help="the folder of an export")
    command.add_argument(
        "--repo", required=True, metavar="NAME", help="owner/name, or a name alone: your own"
    )
    command.add_argument("--run", metavar="RUN", help="whose numbers the model card tells")
    command.add_argument("--public", action="store_true", help="everybody may see it")
    command.add_argument(
        "--renew", action="store_true", help="though there are files in it already"
    )
    command.add_argument(
        "--card", type=Path, metavar="FILE.md", help="a model card of your own, as README.md"
    )
    command.add_argument(
        "--preview", action="store_true", help="print the card and the files; send nothing"
    )


def _told(report: Report) -> Callable[[TransferProgress], None]:
    told = ""

    def tell(progress: TransferProgress) -> None:
        nonlocal told
        words = f"{_WORDS.get(progress.phase, progress.phase)} {progress.file}".rstrip()
        if isinstance(report, ConsoleReport):
            report.bar(words, progress.done_bytes, progress.total_bytes)
        elif words != told:
            report.say(words)
        told = words

    return tell


def _document(found: PushDraft, card: str) -> dict[str, Any]:
    return {
        "form": found.found.form,
        "files": [{"name": file.name, "bytes": file.bytes} for file in found.found.files],
        "left_out": list(found.found.left_out),
        "verdict": found.verdict,
        "card": card,
    }


def _as_text(found: PushDraft, card: str) -> str:
    lines = ["README.md", card, "Files:"]
    lines += [f"  {file.name}  {amount(file.bytes)}" for file in found.found.files]
    if found.found.left_out:
        lines.append("Stays here: " + ", ".join(found.found.left_out))
    return "\n".join(lines)


def _read(path: Path) -> str:
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(
            "card_unreadable",
            "The model card {path} cannot be read: {reason}.",
            "Give a text file in UTF-8, or leave --card out.",
            path=path,
            reason=getattr(error, "strerror", None) or "it is not text in UTF-8",
        ) from None
