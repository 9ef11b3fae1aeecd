"""Where an export stands among its stages, and how long it will still take."""

from __future__ import annotations

from training_backend.export.needs import Stage
from training_backend.protocol import Phase

# Before a guess by what is done means anything.
LEAST_SECONDS = 2.0
LEAST_SHARE = 0.05

# The same phase may belong to several stages; work only ever goes forward.
_PHASES: dict[Stage, tuple[Phase, ...]] = {
    "download": ("loading",),
    "look": ("converting", "quantising"),
    "merge": ("loading", "merging", "verifying"),
    "copy": ("saving",),
    "convert": ("converting",),
    "pack": ("quantising",),
    "save": ("saving",),
    "prove": ("verifying",),
}


class ExportCourse:
    """Follows one export.

    Args:
        stages: how many seconds each is thought to take, in their order.
    """

    def __init__(self, stages: dict[Stage, float]) -> None:
        self.stages = tuple(stages)
        self._guesses = tuple(stages.values())
        self.current = -1  # before the first
        self._phase: Phase | None = None
        self._began = 0.0
        self._share: float | None = None

    def apply(self, phase: Phase, share: float | None, now: float) -> None:
        """Work moved on; `now` in seconds on any clock that only goes forward."""
        if phase != self._phase:
            self._phase, self._began = phase, now
            later = range(max(0, self.current), len(self.stages))
            self.current = next(
                (index for index in later if phase in _PHASES[self.stages[index]]), self.current
            )
        self._share = share

    def is_at(self, stage: Stage) -> bool:
        return self.current >= 0 and self.stages[self.current] == stage

    def phase_seconds_left(self, now: float) -> float | None:
        """Of the phase under way, by how much of it is done; None while that says nothing."""
        spent = now - self._began
        if self._share is None or spent < LEAST_SECONDS or not LEAST_SHARE <= self._share < 1:
            return None
        return spent / self._share * (1 - self._share)

    def seconds_left(self, now: float) -> float | None:
        """Of the whole export; None where not even a guess is known."""
        if not self.stages:
            return self.phase_seconds_left(now)
        here = self.phase_seconds_left(now)
        if here is None:
            guess = self._guesses[self.current] if self.current >= 0 else 0.0
            here = max(0.0, guess - (now - self._began))
        return here + sum(self._guesses[self.current + 1 :])
