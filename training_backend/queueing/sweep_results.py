"""What a sweep came to: its runs in a table, and which value did best, said with care. Light.

The held-out loss decides, since it is of questions that the model did not learn from; the
training loss only where no run has one, and not at all for settings that change what it means.
One run with one seed is one draw: what differs by less than seeds do is called chance.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from training_backend.errors import UserError
from training_backend.queueing import sweeps
from training_backend.queueing.sweeps import Sweep
from training_backend.summaries import run_facts
from training_backend.summaries.run_facts import RunFacts

CLOSE = 0.01  # of the loss: what is so near to the best is named beside it
SEED = "training.seed"

# With these a lower training loss may only mean an easier task, or more repeats of the same rows.
_NOT_BY_TRAINING = {
    "dataset.max_rows",
    "training.num_train_epochs",
    "lora.lora_dropout",
    "training.neftune_noise_alpha",
    "training.weight_decay",
}


@dataclass(frozen=True)
class SweepRow:
    """One run of a sweep, with its values by setting (`section.key`)."""

    facts: RunFacts
    values: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Which values did best.

    Attributes:
        by: the loss that decided; "" where nothing can be told.
        best: the values with the lowest loss; of several seeds their mean counts.
        loss: that loss.
        close: other values within `CLOSE` of it, each with how much higher its loss is.
        seeds: how many seeds the best values were tried with.
        spread: how much seeds alone changed the loss at most; None with one seed each.
        text: all of it in plain sentences.
    """

    by: Literal["held_out", "training", ""]
    best: dict[str, Any]
    loss: float | None
    close: tuple[tuple[dict[str, Any], float], ...]
    seeds: int
    spread: float | None
    text: str


@dataclass(frozen=True)
class SweepTable:
    sweep: Sweep
    rows: tuple[SweepRow, ...]
    verdict: Verdict

    def is_best(self, row: SweepRow) -> bool:
        """Whether a run has the values that did best."""
        return bool(self.verdict.best) and _without_seed(row.values) == self.verdict.best


def table(sweep: Sweep) -> SweepTable:
    """Reads the journals of all its runs: for a thread. A damaged run is left out."""
    rows = []
    for run in sweep.runs():
        try:
            job = run.training_job()
        except UserError:
            continue
        values = {axis.field: sweeps.value_of(job, axis.field) for axis in sweep.axes}
        rows.append(SweepRow(run_facts.read(run, job.name), values))
    return SweepTable(sweep, tuple(rows), _verdict(rows))


def values_text(values: dict[str, Any]) -> str:
    """Some values in the words of a run's name: "rank 8, 4-bit"."""
    return ", ".join(sweeps.label(field, value) for field, value in values.items())


def _verdict(rows: list[SweepRow]) -> Verdict:
    done = [row for row in rows if row.facts.state == "completed"]
    by_held_out = any(row.facts.held_out_loss is not None for row in done)
    done = [row for row in done if _loss(row, by_held_out) is not None]
    missing = _missing(len(rows) - len(done))
    if len(done) < 2:
        return _nothing(
            "Fewer than two runs came to their end with a loss, so there is nothing to compare."
        )
    if not by_held_out and not _NOT_BY_TRAINING.isdisjoint(done[0].values):
        return _nothing(
            "No rows were held out, and training losses say nothing about these settings. Hold "
            "out a share of the rows and try again." + missing
        )
    groups: dict[str, list[SweepRow]] = defaultdict(list)
    for row in done:
        groups[repr(_without_seed(row.values))].append(row)
    losses = {
        key: [_loss(row, by_held_out) or 0.0 for row in members] for key, members in groups.items()
    }
    known = {key: mean(each) for key, each in losses.items()}
    ordered = sorted(known, key=lambda key: known[key])
    spread = max((max(each) - min(each) for each in losses.values() if len(each) > 1), default=None)
    best = ordered[0]
    chosen = _without_seed(groups[best][0].values)
    close = tuple(
        (_without_seed(groups[key][0].values), known[key] - known[best])
        for key in ordered[1:]
        if known[key] - known[best] <= CLOSE * abs(known[best])
    )
    seeds = len(groups[best])
    text = _sentences(chosen, known[best], by_held_out, close, seeds)
    text += _chance([known[key] for key in ordered], spread, seeds) + missing
    return Verdict(
        "held_out" if by_held_out else "training", chosen, known[best], close, seeds, spread, text
    )


def _sentences(
    best: dict[str, Any],
    loss: float,
    by_held_out: bool,
    close: tuple[tuple[dict[str, Any], float], ...],
    seeds: int,
) -> str:
    kind = "held-out loss" if by_held_out else "training loss"
    mean_of = f"mean {kind} of {seeds} seeds" if seeds > 1 else kind
    if not best:  # seeds alone
        return f"The {mean_of} is {loss:.3f}."
    text = f"{_begin(values_text(best))} gave the lowest {mean_of}, {loss:.3f}."
    if close:
        others = "; ".join(f"{values_text(values)} by {gap:.3f}" for values, gap in close)
        text += f" Only a little higher: {others}."
    if not by_held_out:
        text += " No rows were held out, so this says little about new questions."
    return text


def _chance(means: list[float], spread: float | None, seeds: int) -> str:
    if spread is None:
        return (
            " Each value was tried with one seed, so small differences may be chance; vary the "
            "seed too to see how much."
        )
    text = f" Seeds alone changed the loss by up to {spread:.3f}"
    if len(means) > 1 and means[1] - means[0] < spread:
        return f"{text}, more than lies between the best two: that difference may be chance."
    return f"{text}."


def _nothing(text: str) -> Verdict:
    return Verdict("", {}, None, (), 0, None, text)


def _loss(row: SweepRow, by_held_out: bool) -> float | None:
    """None also for a loss that was no number, which the journal does not hold."""
    return row.facts.held_out_loss if by_held_out else row.facts.train_loss


def _without_seed(values: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in values.items() if field != SEED}


def _missing(count: int) -> str:
    if not count:
        return ""
    runs = "1 run" if count == 1 else f"{count} runs"
    return f" Without {runs} that did not come to the end."


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
