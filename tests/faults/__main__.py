"""Tries every fault and prints a table: what was planted, and what the person would have read.

    python -m tests.faults                         all of them, about half an hour on two cores
    python -m tests.faults --only fsync rename     those with one of these in their name
    python -m tests.faults --list

Exit code 0 when nothing was lost. For Linux; some need to be root (to mount) or strace, and are
told as not tried where that is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.faults import faults
from tests.faults.disk_faults import NotHere
from tests.faults.lab import demo_model, lab


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the faults' names")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = [fault for fault in faults.ALL if any(part in fault.__name__ for part in options.only)]
    if options.list:
        print("\n".join(faults.title(fault) for fault in chosen))
        return 0
    console = Console(width=140 if not sys.stdout.isatty() else None)
    table = Table("Fault", "What the person reads", "Outcome", "s", title="Faults survived")
    lost = untried = 0
    with (
        tempfile.TemporaryDirectory(prefix="lorasmith-faults-") as folder,
        lab(Path(folder), demo_model()) as place,
    ):
        os.environ["LORASMITH_HOME"] = str(place.home)
        for fault in chosen:
            began = time.monotonic()
            words, outcome = "", "[green]nothing lost"
            try:
                words = fault(place)
            except NotHere as reason:
                untried += 1
                words, outcome = str(reason), "not tried"
            except Exception as error:
                traceback.print_exc()
                lost += 1
                words, outcome = f"{type(error).__name__}: {error}", "[red]LOST"
            seconds = f"{time.monotonic() - began:.1f}"
            table.add_row(faults.title(fault), escape(words), outcome, seconds)
            print(f"{faults.title(fault)}: {outcome.split(']')[-1]} ({seconds} s)", file=sys.stderr)
    console.print(table)
    print(f"{len(chosen) - lost - untried} survived, {lost} lost, {untried} not tried")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
