"""What runs came to, for a terminal: tables for people, documents for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from training_backend.computer.devices import gigabytes
from training_backend.summaries.run_facts import RunFacts


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On stdout; as wide as the terminal, and 120 columns where there is none.

    Texts from outside are printed without rich's markup.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE)
    for name in columns:
        side: Literal["left", "right"] = "right" if name in NUMBERS else "left"
        table.add_column(name, overflow="fold", justify=side)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=120)
    console.print(table)


def duration(seconds: float) -> str:
    """Such as 42 s, 3 min 5 s or 2 h 7 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


NUMBERS = ["Loss", "Held-out", "Memory", "Tokens/s", "Time"]


def numbers(facts: RunFacts) -> list[str]:
    """The columns `NUMBERS` of a run."""
    return [
        "-" if facts.train_loss is None else f"{facts.train_loss:.3f}",
        "-" if facts.held_out_loss is None else f"{facts.held_out_loss:.3f}",
        "-" if facts.peak_bytes is None else f"{gigabytes(facts.peak_bytes, 2)} GB",
        "-" if facts.tokens_per_second is None else f"{facts.tokens_per_second:,.0f}",
        duration(facts.seconds) if facts.terminal is not None else "-",
    ]


def document(facts: RunFacts) -> dict[str, Any]:
    """A run's facts as JSON."""
    return {
        "id": facts.run.id,
        "name": facts.name,
        "state": facts.state,
        "folder": str(facts.run.folder),
        "train_loss": facts.train_loss,
        "held_out_loss": facts.held_out_loss,
        "peak_bytes": facts.peak_bytes,
        "device": facts.device or None,
        "tokens_per_second": facts.tokens_per_second,
        "seconds": round(facts.seconds, 3),
        "ended": facts.ended,
        "cause": facts.cause or None,
    }


def print_causes(ended: Sequence[RunFacts]) -> None:
    """Why runs did not come to their end, one a line."""
    for one in ended:
        if one.cause:
            print(f"{one.name}: {one.cause}")


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def tell(text: str) -> None:
    """For the person, on stderr, beside what goes to stdout."""
    print(text, file=sys.stderr, flush=True)
