"""A command as a person types it: with the quotation marks that a shell wants."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# What PowerShell takes for itself. A word with a dash in front is left bare only where PowerShell
# cannot read it as a parameter with a value: it takes `-m:x` and `-v.5` apart.
_BARE = re.compile(r"(?!-)[\w./\\:+=-]+|--?[A-Za-z][\w-]*", re.ASCII)
# It takes all of these for the same sign, and two of them for one inside of a quotation.
_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")


def posix(words: Sequence[str]) -> str:
    """For bash, zsh and the other shells of Linux and macOS."""
    return shlex.join(words)


def powershell(words: Sequence[str]) -> str:
    """For PowerShell, also its version 5 that Windows brings."""
    return " ".join(
        word if _BARE.fullmatch(word) else "'" + _QUOTES.sub(r"\1\1", word) + "'" for word in words
    )
