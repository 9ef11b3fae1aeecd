"""A sweep as the Runs page compares it: its runs, and which value did best."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication

from app.models.comparison import MOST_RUNS
from app.widgets import figures
from training_backend import runs
from training_backend.errors import UserError
from training_backend.queueing import queue_file, sweep_results, sweeps
from training_backend.queueing.sweep_results import SweepRow, SweepTable
from training_backend.runs import Run, RunSummary


@dataclass(frozen=True)
class SweepShown:
    """`runs` are those that have begun; of more than `MOST_RUNS` those with the lowest loss."""

    name: str
    runs: list[RunSummary]
    verdict: str


def sweep_of(run: Run) -> str:
    """The id of the sweep that a run belongs to; "" for none."""
    mark = queue_file.read_mark(run)
    return mark.sweep if mark is not None else ""


def load(sweep_id: str) -> SweepShown:
    """For a thread. Raises `UserError` when there is no such sweep."""
    table = sweep_results.table(sweeps.find(sweep_id))
    begun = [row for row in table.rows if row.facts.state != "queued"]
    shown = sorted(begun, key=lambda row: _loss(table, row))[:MOST_RUNS]
    text = table.verdict.text
    if len(begun) < len(table.rows):
        waiting = _tr("{count} of {total} runs have not begun.").format(
            count=figures.count(len(table.rows) - len(begun)), total=figures.count(len(table.rows))
        )
        text = f"{waiting} {text}" if table.verdict.by else waiting
    if len(shown) < len(begun):
        more = _tr("Shown are the {count} with the lowest loss of {total}.")
        text += " " + more.format(count=figures.count(len(shown)), total=figures.count(len(begun)))
    return SweepShown(table.sweep.name, _summaries([row for row in begun if row in shown]), text)


def _loss(table: SweepTable, row: SweepRow) -> float:
    facts = row.facts
    loss = facts.held_out_loss if table.verdict.by == "held_out" else facts.train_loss
    return float("inf") if loss is None else loss


def _summaries(rows: list[SweepRow]) -> list[RunSummary]:
    found = []
    for row in rows:
        try:
            found.append(runs.summary(row.facts.run))
        except UserError:  # damaged meanwhile
            continue
    return found


def _tr(text: str) -> str:
    return QCoreApplication.translate("SweepShown", text)
