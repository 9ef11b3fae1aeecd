"""What is known of a run's end, from its folder: the numbers before it, and its log. Light.

Reads files: for a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training_backend.computer.devices import gigabytes
from training_backend.lifecycle import checkpoints, ends, journal
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    MemorySampled,
    MetricsLogged,
    Phase,
    PhaseChanged,
    RunFailed,
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
        exit_code: of its worker, where that died without a word and not by us; negative for a
            signal.
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

    @property
    def code(self) -> str:
        """The name of a failure; "" of any other end."""
        return self.terminal.code if isinstance(self.terminal, RunFailed | RunInterrupted) else ""


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
        exit_code=died.exit_code if died and died.code not in ends.BY_US else None,
        saved_step=saved[-1].step if saved else None,
        log=(died.log_tail if died else run.log_tail()).strip(),
    )


def lines(found: Evidence) -> list[str]:
    """The same in words, for a terminal and a report."""
    told = []
    if found.phase is not None:
        told.append(f"It was at: {found.phase}")
    if found.exit_code is not None:
        how = f"signal {-found.exit_code}" if found.exit_code < 0 else f"code {found.exit_code}"
        told.append(f"The worker ended with: {how}")
    if (step := found.metrics) is not None:
        norm = "" if step.grad_norm is None else f", gradient norm {step.grad_norm:.3g}"
        told.append(f"Last step: {step.step} of {step.total_steps}, loss {step.loss:.3f}{norm}")
    if (memory := found.memory) is not None:
        used, total = gigabytes(memory.device_used_bytes), gigabytes(memory.device_total_bytes)
        own = memory.process_bytes
        beside = "" if own is None else f", {gigabytes(own)} GB of it by this run"
        told.append(f"Memory ({memory.device}): {used} of {total} GB in use{beside}")
    saved = "nothing" if found.saved_step is None else f"everything up to step {found.saved_step}"
    return [*told, f"Saved: {saved}"]


def _last_attempt(events: Sequence[Event]) -> Sequence[Event]:
    starts = [at for at, event in enumerate(events) if isinstance(event, RunStarted)]
    return events[starts[-1] :] if starts else events
