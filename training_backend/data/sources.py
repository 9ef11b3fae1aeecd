"""The sources of a job, opened, with their form found out. Light: no torch."""

from __future__ import annotations

from dataclasses import dataclass

from training_backend.data import mapping, reader
from training_backend.data.table import Table
from training_backend.errors import UserError
from training_backend.job import DataFormat, SourceSection


@dataclass(frozen=True)
class OpenSource:
    """One source of a job; `format` is never auto."""

    section: SourceSection
    table: Table
    format: DataFormat


def open_source(section: SourceSection) -> OpenSource:
    """Open a source and find out its form. Raises `UserError`."""
    table = reader.open_source(section)
    format = section.format
    if section.mapping is not None:
        mapping.check_columns(section.mapping, table.columns)
        format = "custom"
    elif format == "auto":
        format = mapping.detect(list(table.rows(limit=20)))
    return OpenSource(section, table, format)


def no_usable_rows(name: str, problem: str, field: str = reader.FIELD) -> UserError:
    """What to raise when there is nothing to train on."""
    return UserError(
        "no_usable_rows",
        "No row of {name} can be trained on: {problem}.",
        "Correct the file, or choose another.",
        field=field,
        name=name,
        problem=problem,
    )
