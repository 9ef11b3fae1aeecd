"""What is known of a base model that can be chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Source = Literal["demo", "cache", "catalogue", "folder", "hub"]


@dataclass(frozen=True)
class CatalogEntry:
    """A base model to choose, or one that is here but cannot be trained.

    `id` is what goes into a job. `size_bytes` is what is downloaded, or lies here: its weights.
    `location` is the folder, or None while it is not here (whole). `parameters`, `size_bytes`,
    `context_length` (tokens) and `chat_template` are None where nothing tells. `licence` is its
    short name (`apache-2.0`), `licence_note` the same in words. `problem` says in one sentence
    why it cannot be trained, and is empty otherwise. `adapter_of` is the base model of an
    adapter folder, and empty for a model.
    """

    id: str
    title: str
    parameters: int | None
    size_bytes: int | None
    licence: str
    location: Path | None
    description: str
    family: str = ""
    context_length: int | None = None
    chat_template: bool | None = None
    gated: bool = False
    source: Source = "folder"
    problem: str = ""
    licence_note: str = ""
    adapter_of: str = ""

    def to_json(self) -> dict[str, Any]:
        """Only strings, numbers, booleans and None."""
        return {**asdict(self), "location": str(self.location) if self.location else None}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> CatalogEntry:
        location = document.get("location")
        return cls(**{**document, "location": Path(location) if location else None})
