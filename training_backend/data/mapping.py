"""From rows of any known form to one: a conversation. Light: no torch.

A plain text (`format` "text") is one message of the pseudo-role "text". What a model's chat
template cannot hold is dealt with later (`adapting.py`); here nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Required, TypedDict

from training_backend.data.reader import FIELD, Row
from training_backend.errors import UserError
from training_backend.job import DataFormat, MappingSection
from training_backend.job_data import PLACEHOLDER, placeholders

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

_CONVERSATIONS = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
_QUESTIONS = ("question", "query", "q", "input", "prompt", "user")
_ANSWERS = ("answer", "response", "a", "output", "completion", "target", "assistant")
_ALPACA_ANSWERS = ("output", "response", "completion", "answer")
_COMPLETIONS = ("completion", "response")
_TEXTS = ("text", "content", "markdown")
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
        columns=", ".join(sorted(columns)[:12]) or "(none)",
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
            messages = _turns(_column(row, _CONVERSATIONS))
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
            return Conversation([Message(role=TEXT, content=_filled(_only_text(row), "text"))])
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
    return Conversation(messages, tools if tools is not None else _tools(row.get("tools")))


def require_answers(messages: list[Message]) -> None:
    """Raises `RowProblem` when an answer, or a plain text, says nothing."""
    for message in messages:
        if message["role"] == "assistant" and not _says_something(message):
            raise RowProblem("has an empty answer", "empty_answer")
        if message["role"] == TEXT and not message["content"].strip():
            raise RowProblem("has an empty text", "empty_answer")


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
    question = _filled(_column(row, ("instruction",)), "instruction")
    if _column(row, ("input",)):
        question += "\n\n" + _text(_column(row, ("input",)), "input")
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", content=_answer(_column(row, _ALPACA_ANSWERS), "output")),
    ]
    history = row.get("history")
    if isinstance(history, list):
        earlier = [pair for pair in history if isinstance(pair, list) and len(pair) == 2]
        messages[:0] = [
            Message(role=role, content=_text(text, "history"))
            for pair in earlier
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    _with_system(messages, row)
    return messages


def _prompt_and_answer(prompt: Any, answer: Any, what: str) -> list[Message]:
    messages = (
        _turns(prompt)
        if isinstance(prompt, list)
        else [Message(role="user", content=_filled(prompt, "prompt"))]
    )
    if isinstance(answer, list):
        return messages + _turns(answer)
    return [*messages, Message(role="assistant", content=_answer(answer, what))]


def _question_answer(row: Row) -> list[Message]:
    question = _filled(_column(row, _QUESTIONS), "question")
    context = _column(row, ("context",))
    if isinstance(context, str) and context.strip():
        question = f"{context}\n\n{question}"
    messages = [
        Message(role="user", content=question),
        Message(role="assistant", content=_answer(_column(row, _ANSWERS), "answer")),
    ]
    _with_system(messages, row)
    return messages


def _preference(row: Row) -> list[Message]:
    prompt, chosen = row.get("prompt"), row.get("chosen")
    if isinstance(chosen, list) and not prompt:
        return _turns(chosen)  # the prompt is in both
    if isinstance(chosen, list) and isinstance(prompt, str):
        turns = _turns(chosen)
        if turns and turns[0]["role"] in ("user", "system"):
            return turns
        return [Message(role="user", content=_filled(prompt, "prompt")), *turns]
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
        return "\n\n".join(_text(value, role) for value in by_role.get(role, ()))

    if "text" in mapping.columns.values():
        return [Message(role=TEXT, content=_filled(joined("text"), "text"))], None
    tools = _tools(by_role["tools"][0]) if "tools" in by_role else None
    messages = [
        Message(role=role, content=text)
        for role in ("system", "user", "tool")
        if (text := joined(role))
    ]
    for turns in by_role.get("messages", ()):
        messages += _turns(_parsed(turns))
    if "assistant" in mapping.columns.values():
        answer = Message(role="assistant", content=_answer(joined("assistant") or None, "answer"))
        if reasoning := joined("reasoning"):
            answer["reasoning_content"] = reasoning
        if "weight" in by_role:
            answer["weight"] = _weight(by_role["weight"][0])
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
        return "" if row[column] is None else _text(row[column], column)

    return PLACEHOLDER.sub(value, template)


# --- turns ------------------------------------------------------------------------------


def _turns(turns: Any) -> list[Message]:
    if isinstance(turns, str):
        turns = _parsed(turns)
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
        message = Message(role=role, content=content)  # as nearly all are
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
        found = _call(_parsed(content))
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
    message = Message(role=role, content=_text(content, role))
    if role == "assistant" and reasoning.strip():
        message["reasoning_content"] = reasoning
    if role == "assistant" and calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if role == "tool" and isinstance(turn.get(key), str):
            message[key] = turn[key]
    for key in _WEIGHTS:
        if turn.get(key) is not None:
            message["weight"] = _weight(turn[key])
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
            call = _call(_parsed(given))
            if call is None:
                raise RowProblem("has a tool call without a name", "bad_tool_call")
            calls.append(call)
        elif kind in ("text", "input_text", "output_text"):
            texts.append(_text(value, "a text part"))
        elif kind in ("reasoning", "thinking", "thought"):
            reasoning.append(_text(value, "a reasoning part"))
        else:
            raise RowProblem(f"holds {kind[:20]}, and only text can be learned", "not_text")
    return "".join(texts), "".join(reasoning), calls


def _calls(many: Any, one: Any) -> list[dict[str, Any]]:
    given = _parsed(many) or ([one] if one else [])
    if not isinstance(given, list):
        raise RowProblem("has tool calls that are no list", "bad_tool_call")
    calls = [_call(_parsed(call)) for call in given]
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
    arguments = _parsed(arguments)
    call: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if isinstance(given.get("id"), str):
        call["id"] = given["id"]
    return call


def _tools(given: Any) -> list[dict[str, Any]] | None:
    given = _parsed(given)
    if not isinstance(given, list):
        return None
    return [tool for tool in given if isinstance(tool, dict)] or None


def _parsed(value: Any) -> Any:
    """What a JSON text says; anything else as it is. Columns of tables hold such texts."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


# --- values -----------------------------------------------------------------------------


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


def _answer(value: Any, what: str) -> str:
    if value is None:
        raise RowProblem(f"has no text in {what}", "no_answer")
    text = _text(value, what)
    if not text.strip():
        raise RowProblem(f"has an empty {what}", "empty_answer")
    return text


def _filled(value: Any, what: str) -> str:
    text = _text(value, what)
    if not text.strip():
        raise RowProblem(f"has an empty {what}", "empty_turn")
    return text


def _text(value: Any, what: str) -> str:
    """The text itself; numbers are written out, anything else is no text."""
    if isinstance(value, str):
        # A half of a pair, which JSON can hold and no tokenizer takes.
        return value if value.isascii() or not _has_surrogate(value) else _healed(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return str(value)
    if value is None or value != value:  # tables write NaN where there is nothing
        raise RowProblem(f"has no text in {what}", "null_content")
    raise RowProblem(f"has no plain text in {what}", "wrong_type")


def _has_surrogate(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _healed(text: str) -> str:
    """Pairs of surrogates joined, lone halves replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _weight(value: Any) -> float:
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
