"""Errors that a person can act on.

Every mistake that somebody can make or meet (a missing folder, a bad line in a data
file, a setting out of bounds, a full disk) is raised as a `UserError`: one sentence that
says what is wrong and where, one that says what to do. Anything else that escapes is a
defect of ours and is reported as such.

Texts are English templates with a stable `code` and `params`, so that the window can
translate them by code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class UserError(Exception):
    """One problem, said so that the person knows what to do next.

    Args:
        code: stable snake_case name of the problem, the key for translation.
        message: English template for what is wrong and where, filled from `params`.
        remedy: English template for what to do about it.
        field: the job field at fault as `section.key`, where there is one; the window
            shows the message beside that field.
        params: values for the templates. They come from files and people, so they are
            only ever shown as plain text.
    """

    def __init__(
        self, code: str, message: str, remedy: str = "", *, field: str | None = None, **params: Any
    ) -> None:
        self.code = code
        self.params = params
        self.field = field
        self.message = message.format(**params)
        self.remedy = remedy.format(**params)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()


def as_document(error: UserError) -> dict[str, Any]:
    """An error as JSON, for another process."""
    return {
        "code": error.code,
        "message": error.message,
        "remedy": error.remedy,
        "field": error.field,
        "params": {key: str(value) for key, value in error.params.items()},
    }


def from_document(document: dict[str, Any]) -> UserError:
    """The error that `as_document` wrote."""
    texts = [document[key].replace("{", "{{").replace("}", "}}") for key in ("message", "remedy")]
    return UserError(document["code"], *texts, field=document["field"], **document["params"])


@dataclass(frozen=True)
class Problem:
    """One mistake in a job: the field (`section.key`, or "" for the whole) and a sentence."""

    field: str
    message: str


class JobError(UserError):
    """All the mistakes of one job document at once, each with its place."""

    def __init__(self, problems: Sequence[Problem], source: str = "job") -> None:
        self.problems = tuple(problems)
        lines = "; ".join(f"{p.field}: {p.message}" if p.field else p.message for p in problems)
        super().__init__(
            "invalid_job",
            "{source} has {count} mistake(s): {lines}",
            source=source,
            count=len(self.problems),
            lines=lines,
            field=self.problems[0].field if self.problems else None,
        )


class StopRequested(Exception):
    """Raised inside the worker to unwind after a request to stop; not an error."""
