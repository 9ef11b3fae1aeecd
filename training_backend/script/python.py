"""Python source as ruff formats it: literals and calls, one argument a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

WIDTH = 100


class Source(str):
    """Source already, not a text to quote."""

    __slots__ = ()


def literal(value: Any, indent: int = 0, before: int = 0) -> str:
    """A value of strings, numbers, lists and dicts as source; `Source` stands as it is.

    Args:
        indent: of the line that it stands in.
        before: how many characters stand before it in that line.
    """
    if isinstance(value, Source):
        return value
    if isinstance(value, str):
        return _string(value)
    if not isinstance(value, list | tuple | dict):
        return str(value)
    if isinstance(value, dict):
        parts = [f"{_string(str(key))}: {literal(part)}" for key, part in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [literal(part) for part in value]
        opening, closing = "[", "]"
    short = f"{opening}{', '.join(parts)}{closing}"
    if indent + before + len(short) + 1 <= WIDTH or not parts:
        return short
    inner = " " * (indent + 4)
    lines = "".join(f"{inner}{part},\n" for part in parts)
    return f"{opening}\n{lines}{' ' * indent}{closing}"


def call(
    function: str,
    arguments: dict[str, Any],
    positional: Sequence[str] = (),
    comments: dict[str, str] | None = None,
    indent: int = 0,
) -> str:
    """A call with one argument a line; values that are `Source` stand as they are."""
    pad = " " * (indent + 4)
    lines = [f"{pad}{argument}," for argument in positional]
    for name, value in arguments.items():
        shown = literal(value, indent + 4, before=len(name) + 1)
        comment = (comments or {}).get(name)
        lines.append(f"{pad}{name}={shown}," + (f"  # {comment}" if comment else ""))
    return "\n".join([f"{function}(", *lines, f"{' ' * indent})"])


def _string(text: str) -> str:
    """In double quotes, unless it holds some."""
    if '"' in text:
        return repr(text)
    return '"' + repr("'" + text)[2:]  # a ' in it makes Python take double quotes
