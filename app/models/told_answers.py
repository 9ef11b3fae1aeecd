"""The answers that a run gave to its questions: the base model's, and those of each checkpoint."""

from __future__ import annotations

import difflib
import re
from bisect import insort

from training_backend.protocol import SampleGenerated

MOST_WORDS = 1_500  # beyond which comparing two answers would hold up the window
_WORD = re.compile(r"\S+")


class ToldAnswers:
    """Each answer by its question and step; a later one for the same place supersedes it."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self._base: dict[str, str] = {}
        self._steps: list[int] = []
        self._at: dict[int, dict[str, str]] = {}

    def add(self, event: SampleGenerated) -> None:
        if event.prompt not in self.questions:
            self.questions.append(event.prompt)
        if event.base:
            self._base[event.prompt] = event.answer
            return
        if event.step not in self._at:
            self._at[event.step] = {}
            insort(self._steps, event.step)
        self._at[event.step][event.prompt] = event.answer

    def steps(self) -> list[int]:
        """The steps with answers to compare with the first; 0 is an adapter that was started from.

        Where no answer is marked as the base model's, those at step 0 stand for it.
        """
        return [step for step in self._steps if step or self._base]

    def knows_base(self) -> bool:
        return bool(self._base)

    def first(self, question: str) -> str | None:
        """What all others are compared with; None while that is not known."""
        if self._base:
            return self._base.get(question)
        return self._at.get(0, {}).get(question)

    def newest(self, question: str, step: int) -> tuple[int, str] | None:
        """The newest answer up to a step, and at which step it was given."""
        for earlier in reversed(self.steps()):
            if earlier <= step and question in self._at[earlier]:
                return earlier, self._at[earlier][question]
        return None


def changed_words(before: str, after: str) -> list[tuple[int, int]]:
    """Where `after` has words that `before` has not there: ranges of its characters.

    Ranges next to one another are one. None are told of very long answers.
    """
    old = _WORD.findall(before)
    new = list(_WORD.finditer(after))
    if max(len(old), len(new)) > MOST_WORDS:
        return []
    matcher = difflib.SequenceMatcher(None, old, [word[0] for word in new], autojunk=False)
    return [
        (new[low].start(), new[high - 1].end())
        for kind, _, _, low, high in matcher.get_opcodes()
        if kind in ("replace", "insert")
    ]
