"""Single settings in words: their titles as in the form, values as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from PySide6.QtCore import QCoreApplication

from app.forms import specs
from app.widgets import figures

MOST_LINES = 12  # of a tool tip


@cache
def _titles() -> dict[str, str]:
    return {spec.field: spec.title for spec in specs()}


def title(field: str) -> str:
    """The form's name of a field, `section.key`."""
    if field == "name":
        return _tr("Name of the run")
    return QCoreApplication.translate("job", _titles().get(field, field))


def value(shown: object) -> str:
    """A setting's value as the form would show it."""
    match shown:
        case bool():
            return _tr("on") if shown else _tr("off")
        case -1:
            return _tr("by epochs")
        case int():
            return figures.count(shown)
        case float():
            return f"{shown:g}"
        case list() | tuple():
            return ", ".join(map(str, shown))
    return str(shown)


def changes(steps: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """One line each, as `Rank: 16 → 32`, for fields with their values before and after."""
    lines = [
        _tr("{setting}: {before} → {after}").format(
            setting=title(field), before=_short(before), after=_short(after)
        )
        for field, (before, after) in steps.items()
    ]
    if len(lines) > MOST_LINES:
        more = _tr("and {count} more").format(count=len(lines) - MOST_LINES + 1)
        lines = [*lines[: MOST_LINES - 1], more]
    return lines


def _short(shown: object) -> str:
    text = " ".join(value(shown).split())
    return text if len(text) <= 40 else text[:39] + "…"


def _tr(text: str) -> str:
    return QCoreApplication.translate("setting", text)
