"""From rows of any known form to one: a conversation. Light: no torch.

A plain text (`format` "text") is one message of the pseudo-role "text". What a model's chat
template cannot hold is dealt with later (`abilities.py`); here nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from training_backend.data.reader import FIELD, Row
from training_backend.data.turns import ROLES as ROLES
from training_backend.data.turns import TEXT as TEXT
from training_backend.data.turns import Conversation as Conversation
from training_backend.data.turns import Message as Message
from training_backend.data.turns import RowProblem as RowProblem
from training_backend.data.turns import (
    as_answer,
    as_filled,
    as_text,
    as_weight,
    parsed,
    read_tools,
    read_turns,
)
from training_backend.data.turns import require_answers as require_answers
from training_backend.errors import UserError
from training_backend.job import DataFormat, MappingSection
from training_backend.job_data import PLACEHOLDER, placeholders

_CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
_QUESTIONS = ("question", "query", "q", "input", "prompt", "user")
_ANSWERS = ("answer", "response", "a", "output", "completion", "target", "assistant")
_ALPACA_ANSWERS = ("output", "response", "completion", "answer")
_COMPLETIONS = ("completion", "response")
_TEXTS = ("text", "content", "markdown")


def detect(rows: list[Row]) -> DataFormat:
    """The form that the first rows have. Raises `UserError` naming the columns found."""
    first = rows[:20]
    columns = {str(key).lower() for row in first for key in row}
    for name in _CONVERSATIONS:
        turns = next((_column(row, (name,)) for row in first if _column(row, (name,))), None)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            return "sharegpt" if "from" in turns[0] else "messages"
    if "messages" in columns:
        return "messages"
    if "conversations" in columns:
        return "sharegpt"
    if {"chosen", "rejected"} <= columns:
        return "preference"
    if "label" in columns and "prompt" in columns and columns & set(_COMPLETIONS):
        return "kto"
    if "instruction" in columns and columns & set(_ALPACA_ANSWERS):
        return "alpaca"
    if "prompt" in columns and columns & set(_COMPLETIONS):
        return "prompt_completion"
    if columns & set(_QUESTIONS) and columns & set(_ANSWERS):
        return "question_answer"
    if columns & set(_TEXTS):
        return "text"
    raise UserError(
        "format_unknown",
        "The columns {columns} are of no known form.",
        "Known are messages; conversations; instruction and output; prompt and completion; "
        "question and answer; chosen and rejected; text. For any other choose the format custom "
        "and say what each column is.",
        field=FIELD,
        columns=", ".join(list(dict.fromkeys(str(key) for row in first for key in row))[:12])
        or "(none)",
    )


def notice(format: DataFormat) -> str:
    """What a person should know about how rows of this form are used; "" for nothing."""
    if format == "preference":
        return "Of every pair the prompt and the chosen answer are learned; the rejected is unused."
    if format == "kto":
        return "Answers labelled as bad are left out; the good ones are learned."
    return ""


def to_messages(
    row: Row, format: DataFormat, mapping: MappingSection | None = None
) -> list[Message]:
    """The messages of `to_conversation`."""
    return to_conversation(row, format, mapping).messages


def to_conversation(
    row: Row, format: DataFormat, mapping: MappingSection | None = None
) -> Conversation:
    """One row as a conversation, roles mapped, the last turn the assistant's.

    What follows the last answer is dropped, since nothing could be learned from it. Raises
    `RowProblem` when the row has no answer, an unknown role or content that is no text.
    """
    tools = None
    match format:
        case "messages" | "sharegpt":
            messages = read_turns(_column(row, _CONVERSATIONS))
            _with_system(messages, row)
        case "alpaca":
            messages = _alpaca(row)
        case "prompt_completion":
            prompt, answer = row.get("prompt"), _column(row, _COMPLETIONS)
            messages = _prompt_and_answer(prompt, answer, "completion")
        case "question_answer":
            messages = _question_answer(row)
        case "preference":
            messages = _preference(row)
        case "kto":
            messages = _labelled(row)
        case "text":
            return Conversation([Message(role=TEXT, content=as_filled(_only_text(row), "text"))])
        case "custom":
            assert mapping is not None  # the job model sees to it
            messages, tools = _custom(row, mapping)
        case "auto":
            if mapping is not None:
                return to_conversation(row, "custom", mapping)
            return to_conversation(row, detect([row]))
    if messages and messages[0]["role"] == TEXT:
        return Conversation(messages)
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise RowProblem("has no answer", "no_answer")
    require_answers(messages)
    return Conversation(messages, tools if tools is not None else read_tools(row.get("tools")))


def check_columns(mapping: MappingSection, columns: Iterable[str]) -> None:
    """Raises `UserError` for a mapping that names columns which the data has not."""
    known = set(columns)
    templates = (mapping.user, mapping.assistant, mapping.system)
    named = [*mapping.columns, *(c for text in templates if text for c in placeholders(text))]
    missing = [column for column in dict.fromkeys(named) if column not in known]
    if missing:
        raise UserError(
            "mapping_column_missing",
            "The mapping names {missing}, but the columns are {columns}.",
            "Choose columns that the data has.",
            field="dataset.mapping",
            missing=", ".join(missing[:5]),
            columns=", ".join(sorted(known)[:12]),
        )


# --- the forms --------------------------------------------------------------------------


def _with_system(messages: list[Message], row: Row) -> None:
    system = row.get("system")
    if isinstance(system, str) and system.strip() and messages and messages[0]["role"] != "system":
        messages.insert(0, Message(role="system", content=system))


def _alpaca(row: Row) -> list[Message]:
    question = as_filled(_column(row, ("instruction",)), "instruction")
    if _column(row, ("input",)):
        question += "\n\n" + as_text(_column(row, ("input",)), "input")
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", content=as_answer(_column(row, _ALPACA_ANSWERS), "output")),
    ]
    history = row.get("history")
    if isinstance(history, list):
        earlier = [pair for pair in history if isinstance(pair, list) and len(pair) == 2]
        messages[:0] = [
            Message(role=role, content=as_text(text, "history"))
            for pair in earlier
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    _with_system(messages, row)
    return messages


def _prompt_and_answer(prompt: Any, answer: Any, what: str) -> list[Message]:
    messages = (
        read_turns(prompt)
        if isinstance(prompt, list)
        else [Message(role="user", content=as_filled(prompt, "prompt"))]
    )
    if isinstance(answer, list):
        return messages + read_turns(answer)
    return [*messages, Message(role="assistant", content=as_answer(answer, what))]


def _question_answer(row: Row) -> list[Message]:
    question = as_filled(_column(row, _QUESTIONS), "question")
    context = _column(row, ("context",))
    if isinstance(context, str) and context.strip():
        question = f"{context}\n\n{question}"
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", content=as_answer(_column(row, _ANSWERS), "answer")),
    ]
    _with_system(messages, row)
    return messages


def _preference(row: Row) -> list[Message]:
    prompt, chosen = row.get("prompt"), row.get("chosen")
    if isinstance(chosen, list) and not prompt:
        return read_turns(chosen)  # the prompt is in both
    if isinstance(chosen, list) and isinstance(prompt, str):
        turns = read_turns(chosen)
        if turns and turns[0]["role"] in ("user", "system"):
            return turns
        return [Message(role="user", content=as_filled(prompt, "prompt")), *turns]
    return _prompt_and_answer(prompt, chosen, "chosen")


def _labelled(row: Row) -> list[Message]:
    label = row.get("label")
    if isinstance(label, str):
        label = label.strip().lower() in ("true", "1", "good", "yes", "desirable", "chosen")
    if not label:
        raise RowProblem("is labelled as a bad answer", "labelled_bad")
    return _prompt_and_answer(row.get("prompt"), _column(row, _COMPLETIONS), "completion")


def _custom(row: Row, mapping: MappingSection) -> tuple[list[Message], list[dict[str, Any]] | None]:
    tools = None
    if mapping.assistant:
        messages = [
            Message(role=role, content=text)
            for role, template in (
                ("system", mapping.system),
                ("user", mapping.user),
                ("assistant", mapping.assistant),
            )
            if template and ((text := fill(template, row)).strip() or role == "assistant")
        ]
        if not messages[-1]["content"].strip():
            raise RowProblem("has an empty answer", "empty_answer")
    else:
        messages, tools = _by_columns(row, mapping)
    if mapping.system_prompt and messages and messages[0]["role"] not in ("system", TEXT):
        messages.insert(0, Message(role="system", content=mapping.system_prompt))
    return messages, tools


def _by_columns(
    row: Row, mapping: MappingSection
) -> tuple[list[Message], list[dict[str, Any]] | None]:
    by_role: dict[str, list[Any]] = {}
    for column, role in mapping.columns.items():
        if row.get(column) not in (None, ""):
            by_role.setdefault(role, []).append(row[column])

    def joined(role: str) -> str:
        return "\n\n".join(as_text(value, role) for value in by_role.get(role, ()))

    if "text" in mapping.columns.values():
        return [Message(role=TEXT, content=as_filled(joined("text"), "text"))], None
    tools = read_tools(by_role["tools"][0]) if "tools" in by_role else None
    messages = [
        Message(role=role, content=text)
        for role in ("system", "user", "tool")
        if (text := joined(role))
    ]
    for turns in by_role.get("messages", ()):
        messages += read_turns(parsed(turns))
    if "assistant" in mapping.columns.values():
        answer = Message(role="assistant", content=as_answer(joined("assistant") or None, "answer"))
        if reasoning := joined("reasoning"):
            answer["reasoning_content"] = reasoning
        if "weight" in by_role:
            answer["weight"] = as_weight(by_role["weight"][0])
        messages.append(answer)
    return messages, tools


def fill(template: str, row: Row) -> str:
    """`template` with every {column} replaced by the row's text; {{ and }} are braces.

    Raises `RowProblem` when the row lacks a column that the template names.
    """

    def value(match: Any) -> str:
        column = match[1]
        if not column:
            return str(match[0][0])
        if column not in row:
            raise RowProblem(f"has no column {column[:40]}", "missing_column")
        return "" if row[column] is None else as_text(row[column], column)

    return PLACEHOLDER.sub(value, template)


# --- columns ---------------------------------------------------------------------------


def _column(row: Row, names: Iterable[str]) -> Any:
    """The first column of one of these names, whatever its case; None without one."""
    for name in names:
        if name in row:
            return row[name]
    by_name = {str(key).strip().lower(): value for key, value in row.items()}
    return next((by_name[name] for name in names if name in by_name), None)


def _only_text(row: Row) -> Any:
    text = _column(row, _TEXTS)
    return next(iter(row.values())) if text is None and len(row) == 1 else text
