"""An estimate as a document, and as a table for people."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

from rich.console import Console
from rich.table import Table

from training_backend.vram import Estimate, Fit

GIB = 2**30

_FITS: dict[Fit, str] = {
    "comfortable": "It fits comfortably.",
    "tight": "It fits, but only just: close other programs, or make it smaller.",
    "does_not_fit": "It does not fit.",
}


def as_document(found: Estimate) -> dict[str, Any]:
    """What `estimate --json` prints; bytes, but for words."""
    return {
        "total_bytes": found.total_bytes,
        "parts": {part.name: part.bytes for part in found.parts},
        "device": {
            **dataclasses.asdict(found.device),
            "available_bytes": found.device.available_bytes,
        },
        "fits": found.fit != "does_not_fit",
        "fit": found.fit,
        "measured": found.measured,
        "formulas": {
            part.name: {"formula": part.formula, "source": part.source} for part in found.parts
        },
        "needs": dataclasses.asdict(found.needs),
    }


def as_text(found: Estimate) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Part")
    table.add_column("GiB", justify="right")
    table.add_column("How")
    for part in found.parts:
        table.add_row(part.name.capitalize(), _gib(part.bytes), part.formula)
    table.add_row("Total", _gib(found.total_bytes), "", style="bold")
    device, needs = found.device, found.needs
    biggest = max(found.parts, key=lambda part: part.bytes)
    lines = [
        f"{device.name}: {_gib(device.available_bytes)} of {_gib(device.total_bytes)} GiB free. "
        f"{_FITS[found.fit]}",
        f"The biggest part: {biggest.name}, {biggest.bytes / max(1, found.total_bytes):.0%}."
        + (" The total was measured on this computer." if found.measured else ""),
        f"Training also takes {_gib(needs.training_ram)} GiB of RAM and "
        f"{_gib(needs.training_disk)} GiB of disk; merging {_gib(needs.merge_ram)} and "
        f"{_gib(needs.merge_disk)}; a GGUF file {_gib(needs.gguf_ram)} and "
        f"{_gib(needs.gguf_disk)}.",
    ]
    console = Console(file=io.StringIO(), width=110, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    shown = "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
    return shown + "\n\n" + "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / GIB:,.2f}"
