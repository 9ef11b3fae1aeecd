"""What is known of a run's end, from its folder: the numbers before it, and its log. Light.

Reads files: for a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training_backend.lifecycle import checkpoints, journal
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    MemorySampled,
    MetricsLogged,
    Phase,
    PhaseChanged,
    RunInterrupted,
    RunStarted,
    Terminal,
)
from training_backend.runs import Run

# Holds the last steps of a run whose steps take a minute each: memory is told once a second.
_TAIL_BYTES = 2**20


@dataclass(frozen=True)
class Evidence:
    """The newest attempt at its end; None where that is not known.

    Attributes:
        phase: what it was at.
        metrics: its last reported step.
        memory: the last that it said of memory, a second before.
        exit_code: of its worker, where that died without a word; negative for a signal.
        saved_step: of the newest checkpoint.
        log: the end of what its worker wrote.
    """

    terminal: Terminal | None = None
    phase: Phase | None = None
    metrics: MetricsLogged | None = None
    memory: MemorySampled | None = None
    exit_code: int | None = None
    saved_step: int | None = None
    log: str = ""


def gather(run: Run) -> Evidence:
    """Of a run that has ended."""
    events = _last_attempt(journal.tail(run.folder, _TAIL_BYTES))
    terminal = next((e for e in reversed(events) if isinstance(e, TERMINAL_TYPES)), None)
    phase = next((e for e in reversed(events) if isinstance(e, PhaseChanged)), None)
    saved = checkpoints.finished(run.checkpoints)
    died = terminal if isinstance(terminal, RunInterrupted) else None
    return Evidence(
        terminal=terminal,
        phase=phase.phase if phase else None,
        metrics=next((e for e in reversed(events) if isinstance(e, MetricsLogged)), None),
        memory=next((e for e in reversed(events) if isinstance(e, MemorySampled)), None),
        exit_code=died.exit_code if died else None,
        saved_step=saved[-1].step if saved else None,
        log=(died.log_tail if died else run.log_tail()).strip(),
    )


def _last_attempt(events: Sequence[Event]) -> Sequence[Event]:
    starts = [at for at, event in enumerate(events) if isinstance(event, RunStarted)]
    return events[starts[-1] :] if starts else events
