"""What a mapping makes of the first rows, and in one sentence what is still missing."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError
from PySide6.QtCore import QCoreApplication

from training_backend.data import mapping as mappings
from training_backend.data.mapping import Message, RowProblem
from training_backend.errors import UserError
from training_backend.job_data import DataFormat, MappingSection, placeholders

TEXTS = ("system", "user", "assistant")


@dataclass(frozen=True)
class Verdict:
    """The sentence, how bad it is, and each row's messages or why it has none."""

    sentence: str
    level: Literal["good", "careful", "error"]
    rows: list[list[Message] | str] = field(default_factory=list)


def judge(
    form: DataFormat | None,
    mapping: dict[str, Any] | None,
    columns: tuple[str, ...],
    rows: list[dict[str, Any]],
) -> Verdict:
    """What becomes of the rows. `form` is what they are read as without a mapping, if known."""
    if not columns:
        return Verdict(_tr("Choose a data file first; its columns will stand here."), "careful")
    section = None
    if mapping is None:
        if form is None:
            sentence = _tr("The rows are of no known form: say what each column is.")
            return Verdict(sentence, "error")
    else:
        missing = _missing(mapping, columns)
        if missing:
            return Verdict(missing, "error", [])
        try:
            section = MappingSection.model_validate_json(json.dumps(mapping), strict=True)
        except ValidationError as error:  # from a job file written by hand
            return Verdict(_sentence(str(error.errors()[0]["msg"])), "error")
        form = "custom"
    shown: list[list[Message] | str] = []
    problems: list[str] = []
    for row in rows:
        try:
            shown.append(mappings.to_conversation(row, form or "auto", section).messages)
        except RowProblem as problem:
            problems.append(str(problem))
            shown.append(_tr("This row {problem}; it cannot be used.").format(problem=problem))
        except UserError as problem:
            problems.append(str(problem))
            shown.append(str(problem))
    if problems:
        text = _tr("{count} of the first {all} rows cannot be used.")
        level: Literal["careful", "error"] = "error" if len(problems) == len(rows) else "careful"
        return Verdict(text.format(count=len(problems), all=len(rows)), level, shown)
    if mapping is not None and (careful := _careful(mapping)):
        return Verdict(careful, "careful", shown)
    return Verdict(
        _tr("The first {count} rows can be used.").format(count=len(rows)), "good", shown
    )


def _missing(mapping: dict[str, Any], columns: tuple[str, ...]) -> str:
    """The first thing that a mapping lacks, as one sentence; "" when it is whole."""
    if mapping.get("assistant") is None:
        given = mapping.get("columns") or {}
        if not {"assistant", "messages", "text"} & set(given.values()):
            if "user" in given.values():
                return _tr("Choose the column that holds the answer.")
            return _tr("Choose the column that is the question and the one that is the answer.")
        unknown = [column for column in given if column not in columns]
    else:
        texts = [mapping.get(role) or "" for role in TEXTS]
        if not texts[2].strip():
            return _tr("Write what the answer is made of, such as {column}.").format(
                column="{" + columns[-1] + "}"
            )
        if not placeholders(texts[2]):
            return _tr("Put a column into the answer, or it would be the same for every row.")
        unknown = [name for text in texts for name in placeholders(text) if name not in columns]
    if not unknown:
        return ""
    close = difflib.get_close_matches(unknown[0], columns, n=1, cutoff=0.5)
    if close:
        text = _tr("There is no column {missing}; did you mean {close}?")
        return text.format(missing=unknown[0], close=close[0])
    return _tr("There is no column {missing} in this file.").format(missing=unknown[0])


def _careful(mapping: dict[str, Any]) -> str:
    """What works and is hardly meant."""
    roles = list((mapping.get("columns") or {}).values())
    if "text" in roles and len(set(roles)) > 1:
        return _tr("The plain text is learned whole; the other columns are not used beside it.")
    asked = (mapping.get("user") or "").strip() or {"user", "messages", "text"} & set(roles)
    if not asked:
        return _tr("There is no question yet: the answers would be learned without being asked.")
    return ""


def _sentence(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{message[:1].upper()}{message[1:]}."


def _tr(text: str) -> str:
    return QCoreApplication.translate("mapping_verdict", text)
