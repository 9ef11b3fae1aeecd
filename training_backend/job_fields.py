"""What the sections of a job are made of: frozen models whose fields know their form."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict


class Section(BaseModel):
    """A part of a job. Frozen; unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def field(
    default: Any,
    title: str,
    help: str,
    *,
    unit: str = "",
    advanced: bool = False,
    special: str = "",
    form: bool = True,
    aliases: tuple[str, ...] = (),
    **bounds: Any,
) -> Any:
    """A pydantic field that also says how a form shows it.

    Args:
        special: what the form writes instead of the field's lowest value.
        form: False for fields that another page chooses (model and data).
        aliases: what people call it elsewhere; a job that does is told the name here.
    """
    extra: JsonDict = {
        "unit": unit, "advanced": advanced, "special": special, "form": form,
        "aliases": list(aliases),
    }  # fmt: skip
    return Field(default, title=title, description=help, json_schema_extra=extra, **bounds)
