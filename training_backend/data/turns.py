"""The turns of a conversation, as files write them. Light: no torch.

Whatever is wrong with a row is a `RowProblem`, which says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Required, TypedDict

TEXT = "text"
CALL = "call"  # a role of its own in some files: an assistant that calls a tool

ROLES = {
    **dict.fromkeys(("system", "developer", "context", "system_prompt"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "customer", "question", "instruction"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "gpt4", "bard", "bing", "claude", "gemini", "model", "bot",
         "chatbot", "ai", "llm", "answer", "response"),
        "assistant",
    ),
    **dict.fromkeys(
        ("tool", "function", "observation", "ipython", "tool_response", "function_response",
         "tool_result", "tool_results", "tool_output"),
        "tool",
    ),
    **dict.fromkeys(("function_call", "tool_call", "function-call", "tool-call"), CALL),
}  # fmt: skip

_WEIGHTS = ("weight", "loss_weight", "train")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_PART_TEXTS = ("text", "value", "content", "reasoning", "thinking")


class Message(TypedDict, total=False):
    """One turn, in the terms of chat templates."""

    role: Required[str]  # system, user, assistant, tool or text
    content: Required[str]
    reasoning_content: str  # of an assistant
    thinking: str  # the same, under the name that some templates read
    tool_calls: list[dict[str, Any]]  # {"type": "function", "function": {name, arguments}}
    name: str  # of a tool
    tool_call_id: str
    weight: float  # 0 where the turn is not to be learned from


@dataclass(frozen=True)
class Conversation:
    """What one row says. `tools` are the JSON schemas of functions that may be called."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


class RowProblem(ValueError):
    """A row cannot be trained on; the text is a clause that completes "row 7 ...".

    `code` names the kind of problem, as lint reports it.
    """

    def __init__(self, clause: str, code: str = "unusable") -> None:
        super().__init__(clause)
        self.code = code


# --- turns ------------------------------------------------------------------------------


def read_turns(turns: Any) -> list[Message]:
    """A list of turns in any of the usual ways to write one, or JSON text of it.

    Raises `RowProblem` for an unknown role, an empty question, or content that is no text.
    """
    if isinstance(turns, str):
        turns = parsed(turns)
    if not isinstance(turns, list):
        raise RowProblem("has no list of messages", "no_messages")
    return [_turn(turn) for turn in turns]


def _turn(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise RowProblem("holds a message that is no object", "no_messages")
    # Files mix the two conventions; take whichever is there.
    name = turn.get("role", turn.get("from"))
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        role = ROLES.get(str(name).strip().lower())
        if role is None:
            raise RowProblem(f"has the unknown role {str(name)[:40]}", "unknown_role")
    content = turn.get("content", turn.get("value", turn.get("text")))
    if type(content) is str and len(turn) == 2 and role is not CALL:
        message = Message(role=role, content=as_text(content, role))  # as nearly all are
    else:
        message = _rich_turn(role, content, turn)
    if role == "user" and not message["content"].strip():
        raise RowProblem("has an empty user turn", "empty_turn")
    return message


def _rich_turn(role: str, content: Any, turn: dict[str, Any]) -> Message:
    calls = _calls(turn.get("tool_calls"), turn.get("function_call"))
    reasoning = next((turn[key] for key in _REASONING if isinstance(turn.get(key), str)), "")
    if role == CALL:
        role = "assistant"
        found = _call(parsed(content))
        if found is not None:
            calls, content = [*calls, found], ""
    if isinstance(content, list):
        content, thought, called = _parts(content)
        reasoning = reasoning or thought
        calls += called
    elif content is None and (calls or reasoning):
        content = ""
    elif content is None:
        raise RowProblem(f"has no text in a turn of the {role}", "null_content")
    elif isinstance(content, dict):
        content = json.dumps(content, ensure_ascii=False)  # what a tool gave back
    message = Message(role=role, content=as_text(content, role))
    if role == "assistant" and reasoning.strip():
        message["reasoning_content"] = reasoning
    if role == "assistant" and calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if role == "tool" and isinstance(turn.get(key), str):
            message[key] = turn[key]
    for key in _WEIGHTS:
        if turn.get(key) is not None:
            message["weight"] = as_weight(turn[key])
    return message


def _parts(parts: list[Any]) -> tuple[str, str, list[dict[str, Any]]]:
    """Text, reasoning and tool calls of a content that is a list of typed parts."""
    texts: list[str] = []
    reasoning: list[str] = []
    calls: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise RowProblem("holds a content part that is no object", "wrong_type")
        kind = str(part.get("type", "text")).lower()
        value = next((part[key] for key in _PART_TEXTS if part.get(key) is not None), None)
        if kind in ("tool_call", "tool_use", "function_call"):
            given = part.get("tool_call", value if value is not None else part)
            call = _call(parsed(given))
            if call is None:
                raise RowProblem("has a tool call without a name", "bad_tool_call")
            calls.append(call)
        elif kind in ("text", "input_text", "output_text"):
            texts.append(as_text(value, "a text part"))
        elif kind in ("reasoning", "thinking", "thought"):
            reasoning.append(as_text(value, "a reasoning part"))
        else:
            raise RowProblem(f"holds {kind[:20]}, and only text can be learned", "not_text")
    return "".join(texts), "".join(reasoning), calls


def _calls(many: Any, one: Any) -> list[dict[str, Any]]:
    given = parsed(many) or ([one] if one else [])
    if not isinstance(given, list):
        raise RowProblem("has tool calls that are no list", "bad_tool_call")
    calls = [_call(parsed(call)) for call in given]
    if None in calls:
        raise RowProblem("has a tool call without a name", "bad_tool_call")
    return [call for call in calls if call is not None]


def _call(given: Any) -> dict[str, Any] | None:
    """A tool call in the one form that chat templates know; None when it has no name."""
    if not isinstance(given, dict):
        return None
    inner = given.get("function")
    function = inner if isinstance(inner, dict) else given
    name = function.get("name")
    if not isinstance(name, str) or not name:
        return None
    arguments = function.get("arguments", function.get("parameters", function.get("input", {})))
    arguments = parsed(arguments)
    call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if isinstance(given.get("id"), str):
        call["id"] = given["id"]
    return call


def read_tools(given: Any) -> list[dict[str, Any]] | None:
    given = parsed(given)
    if not isinstance(given, list):
        return None
    return [tool for tool in given if isinstance(tool, dict)] or None


def parsed(value: Any) -> Any:
    """What a JSON text says; anything else as it is. Columns of tables hold such texts."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


# --- values -----------------------------------------------------------------------------


def as_answer(value: Any, what: str) -> str:
    if value is None:
        raise RowProblem(f"has no text in {what}", "no_answer")
    text = as_text(value, what)
    if not text.strip():
        raise RowProblem(f"has an empty {what}", "empty_answer")
    return text


def as_filled(value: Any, what: str) -> str:
    text = as_text(value, what)
    if not text.strip():
        raise RowProblem(f"has an empty {what}", "empty_turn")
    return text


def as_text(value: Any, what: str) -> str:
    """The text itself; numbers are written out, anything else is no text."""
    if isinstance(value, str):
        return healed(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return str(value)
    if value is None or value != value:  # tables write NaN where there is nothing
        raise RowProblem(f"has no text in {what}", "null_content")
    raise RowProblem(f"has no plain text in {what}", "wrong_type")


def healed(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can hold and no tokenizer takes."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_weight(value: Any) -> float:
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.strip().lower(), value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RowProblem(f"has the weight {str(value)[:20]}", "bad_weight") from None


def _says_something(message: Message) -> bool:
    return bool(
        message["content"].strip() or message.get("tool_calls") or message.get("reasoning_content")
    )


def require_answers(messages: list[Message]) -> None:
    """Raises `RowProblem` when an answer, or a plain text, says nothing."""
    for message in messages:
        if message["role"] == "assistant" and not _says_something(message):
            raise RowProblem("has an empty answer", "empty_answer")
        if message["role"] == TEXT and not message["content"].strip():
            raise RowProblem("has an empty text", "empty_answer")
