"""From rows of any known form to one: a list of messages. Light: no torch.

A plain text (`format` "text") is one message of the pseudo-role "text".
"""

from __future__ import annotations

from typing import Any, TypedDict

from training_backend.data.reader import FIELD, Row
from training_backend.errors import UserError
from training_backend.job import DataFormat

TEXT = "text"

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}


class Message(TypedDict):
    role: str  # system, user, assistant or text
    content: str


class RowProblem(ValueError):
    """A row cannot be trained on; the text is a clause that completes "row 7 ..."."""


def detect(rows: list[Row]) -> DataFormat:
    """The form that the first rows have. Raises `UserError` naming the columns found."""
    columns = set[str]().union(*(row.keys() for row in rows[:20]))
    if "messages" in columns:
        return "messages"
    if "conversations" in columns:
        return "sharegpt"
    if {"instruction", "output"} <= columns:
        return "alpaca"
    if {"prompt", "completion"} <= columns or {"prompt", "response"} <= columns:
        return "prompt_completion"
    if "text" in columns:
        return "text"
    raise UserError(
        "format_unknown",
        "The columns {columns} are of no known form.",
        "Known are messages; conversations; instruction and output; prompt and completion; text.",
        field=FIELD,
        columns=", ".join(sorted(columns)[:12]),
    )


def to_messages(row: Row, format: DataFormat) -> list[Message]:
    """One row as messages, roles mapped, the last one the assistant's.

    What follows the last answer is dropped, since nothing could be learned from it, and so is
    an answer before the first question, which chat templates do not know. Raises `RowProblem`
    when the row has no answer, an unknown role or content that is no text.
    """
    match format:
        case "messages":
            messages = _turns(row.get("messages"), "role", "content")
        case "sharegpt":
            messages = _turns(row.get("conversations"), "from", "value")
        case "alpaca":
            messages = _alpaca(row)
        case "prompt_completion":
            messages = _prompt_completion(row)
        case "text":
            return [Message(role=TEXT, content=_text(row.get("text"), "text"))]
        case "auto":
            return to_messages(row, detect([row]))
    while messages and messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages:
        raise RowProblem("has no answer")
    while messages and messages[0]["role"] == "assistant":
        messages.pop(0)
    if not messages:
        raise RowProblem("has an answer but no question")
    return messages


def _turns(turns: Any, role_key: str, content_key: str) -> list[Message]:
    if not isinstance(turns, list):
        raise RowProblem("has no list of messages")
    messages = []
    for turn in turns:
        if not isinstance(turn, dict):
            raise RowProblem("holds a message that is no object")
        # Files mix the two conventions; take whichever is there.
        role = turn.get(role_key, turn.get("role", turn.get("from")))
        content = turn.get(content_key, turn.get("content", turn.get("value")))
        known = ROLES.get(str(role).lower())
        if known is None:
            raise RowProblem(f"has the unknown role {_shown(role)}")
        messages.append(Message(role=known, content=_text(content, known)))
    return messages


def _alpaca(row: Row) -> list[Message]:
    question = _text(row.get("instruction"), "instruction")
    if row.get("input"):
        question += "\n\n" + _text(row["input"], "input")
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", content=_text(row.get("output"), "output")),
    ]
    if row.get("system"):
        messages.insert(0, Message(role="system", content=_text(row["system"], "system")))
    return messages


def _prompt_completion(row: Row) -> list[Message]:
    prompt, completion = row.get("prompt"), row.get("completion", row.get("response"))
    if isinstance(prompt, list) and isinstance(completion, list):
        return _turns(prompt + completion, "role", "content")
    return [
        Message(role="user", content=_text(prompt, "prompt")),
        Message(role="assistant", content=_text(completion, "completion")),
    ]


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise RowProblem(f"has no text in {what}" if value is None else f"has no plain {what}")
    if not value.strip() and what != "system":
        raise RowProblem(f"has an empty {what}")
    if value != _shown(value, len(value)):
        raise RowProblem(f"has half a character in {what}")
    return value


def _shown(value: Any, length: int = 40) -> str:
    """Text without lone surrogates (half an emoji), which neither tokenizers nor UTF-8 take."""
    return str(value)[:length].encode(errors="replace").decode()
