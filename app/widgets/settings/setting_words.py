"""Single settings in words: their titles as in the form, values as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from PySide6.QtCore import QCoreApplication

from app.widgets import figures, wording
from training_backend.job import TrainingJob

MOST_LINES = 12  # of a tool tip


@cache
def _titles() -> dict[str, str]:
    return {
        f"{section}.{key}": field.title or key
        for section, info in TrainingJob.model_fields.items()
        for key, field in getattr(info.annotation, "model_fields", {}).items()
    }


def title(field: str) -> str:
    """The name of a field, `section.key`, as its form has it."""
    if field == "name":
        return _tr("Name of the run")
    return QCoreApplication.translate("job", _titles().get(field, field))


def value(shown: object) -> str:
    """A setting's value as the form would show it."""
    match shown:
        case None | "" | [] | ():
            return "–"
        case bool():
            return _tr("on") if shown else _tr("off")
        case -1:
            return _tr("by epochs")
        case int():
            return figures.count(shown)
        case float():
            return f"{shown:g}"
        case {"path": str(path)}:  # a source of data
            return wording.data_name(path)
        case {"code": str(code)}:  # a fix of data
            return code.replace("_", " ")
        case dict():
            known = {key: inner for key, inner in shown.items() if inner not in (None, {}, [])}
            return ", ".join(f"{key}: {value(inner)}" for key, inner in known.items())
        case list() | tuple():
            return ", ".join(map(value, shown))
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
