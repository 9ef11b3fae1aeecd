"""How long a run stood still, told from its events: time in which nothing was trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from training_backend.protocol import TERMINAL_TYPES, Event, Phase, PhaseChanged, RunStarted

if TYPE_CHECKING:  # the window imports this before its first paint
    import numpy as np
    from numpy.typing import NDArray

STANDING: tuple[Phase, ...] = ("waiting", "paused", "no_room")
Seconds = TypeVar("Seconds", float, "NDArray[np.float64]")


@dataclass
class Pauses:
    """Is told a run's events in order; of those that only count, `reach` may tell the time.

    `seconds` are those of all pauses that are over, in all attempts.
    """

    seconds: float = 0.0
    _began: float | None = None  # this, what was reached and what is over: seconds into the attempt
    _reached: float = 0.0
    _is_before_work: bool = False
    _over: list[tuple[float, float]] = field(default_factory=list)

    @property
    def is_on(self) -> bool:
        return self._began is not None

    def take(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._began, self._reached = None, 0.0
            self._over.clear()
        self.reach(event.elapsed)
        match event:
            case PhaseChanged(phase=phase) if phase in STANDING:
                if self._began is None:
                    self._began = event.elapsed
                    self._is_before_work = phase == "waiting"
            # A paused run may answer a question before it goes on; one that waits for a card
            # goes on with whatever comes next.
            case PhaseChanged(phase=phase) if phase == "training" or self._is_before_work:
                self._end()
        if isinstance(event, TERMINAL_TYPES):
            self._end()

    def reach(self, elapsed: float) -> None:
        """The attempt is so many seconds old."""
        # The end of a worker that died was written by another process, with a clock of its own.
        self._reached = max(self._reached, elapsed)

    def worked(self, elapsed: Seconds) -> Seconds:
        """Seconds into this attempt without the pauses before them."""
        for began, ended in self._over:
            elapsed = elapsed - (ended - began) * (elapsed >= ended)
        return elapsed

    def _end(self) -> None:
        if self._began is not None:
            self._over.append((self._began, self._reached))
            self.seconds += self._reached - self._began
            self._began = None
