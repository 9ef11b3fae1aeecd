"""Settings for common cases, to begin with: `resources/presets/*.json`. Light."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict


class Preset(BaseModel):
    """`values` are fields of a job (`section.key`); the rest of the job stays as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    description: str
    values: dict[str, Any]

    def matches(self, values: Mapping[str, Any]) -> bool:
        """Whether these settings are what the preset gives."""
        return all(values[field] == value for field, value in self.values.items())


@cache
def presets() -> tuple[Preset, ...]:
    """All of them, in the order to show them."""
    files = (resources.files("resources") / "presets").iterdir()
    texts = {file.name: file.read_text("utf-8") for file in files if file.name.endswith(".json")}
    return tuple(Preset.model_validate(json.loads(texts[name])) for name in sorted(texts))
