"""Where the rows of a dataset come from, so that one of them can be named. Light."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class RowPlaces:
    """By the number of a row in the dataset: its source and its row there, both from 0."""

    names: tuple[str, ...]  # of the sources
    sources: array[int]
    positions: array[int]

    @classmethod
    def of(cls, names: Iterable[str], origins: Iterable[tuple[int, int]]) -> RowPlaces:
        """From the source and the position of each row, in the order of the dataset."""
        places = cls(tuple(names), array("h"), array("q"))
        for source, position in origins:
            places.sources.append(source)
            places.positions.append(position)
        return places

    def name(self, row: int) -> str:
        """As a person finds it: "data.jsonl, row 7", counted from 1."""
        return f"{self.names[self.sources[row]]}, row {self.positions[row] + 1}"
