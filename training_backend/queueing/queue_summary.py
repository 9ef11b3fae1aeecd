"""What became of the queue while nobody looked: how each of its runs ended, and why. Light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training_backend import paths
from training_backend.errors import UserError
from training_backend.lifecycle import journal, run_folders
from training_backend.protocol import TERMINAL_TYPES
from training_backend.queueing import queue_file
from training_backend.runs import Run, State
from training_backend.summaries import run_facts
from training_backend.summaries.run_facts import RunFacts

_WORDS: dict[State, str] = {
    "completed": "came to the end",
    "failed": "failed",
    "interrupted": "was cut off",
    "stopped": "was stopped",
}


def ended_since(when: float) -> list[RunFacts]:
    """The runs that had waited in the queue and ended after `when` (Unix seconds), oldest first.

    Reads their whole journals: for a thread. A run whose job file is damaged goes by its id.
    """
    found = []
    for folder in run_folders.listed(paths.runs_dir()):
        run = Run(folder)
        if queue_file.read_mark(run) is None:
            continue
        last = journal.last_event(folder)
        if isinstance(last, TERMINAL_TYPES) and last.time > when:
            found.append(facts(run))
    return sorted(found, key=lambda one: one.ended or 0.0)


def facts(run: Run) -> RunFacts:
    """As `run_facts.read`, for a run whose job file may be damaged."""
    try:
        return run_facts.read(run)
    except UserError:
        return run_facts.read(run, run.id)


def sentence(ended: Sequence[RunFacts], waiting: int) -> str:
    """How many runs ended in which way: "2 runs came to the end, 1 failed; 1 is waiting."."""
    counts = Counter(one.state for one in ended)
    parts: list[str] = []
    for state, words in _WORDS.items():
        if count := counts[state]:
            noun = "" if parts else "run " if count == 1 else "runs "
            parts.append(f"{count} {noun}{words if count == 1 else words.replace('was', 'were')}")
    text = ", ".join(parts) or "No run has ended"
    if waiting:
        text += f"; {waiting} {'is' if waiting == 1 else 'are'} waiting"
    return f"{text}."
