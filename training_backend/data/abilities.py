"""What a chat template can hold, and conversations made to fit it. Light: no torch.

Templates differ: some refuse a system prompt, tools or two questions in a row, some leave
out what they do not know without a word. What a template holds is found out by rendering
short probes in a bounded child process (`safe_template`); what it does not hold is written
in another form, and the person is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training_backend.data.mapping import Conversation, Message
from training_backend.data.safe_template import CHOOSE_ANOTHER, FIELD, Rendering, render_safely
from training_backend.errors import UserError

# Words that no template writes by itself.
_SYSTEM, _USER, _ANSWER = "zebrasystem", "zebraquestion", "zebraanswer"
_REASON, _TOOL, _VALUE, _RESULT = "zebrareason", "zebratool", "zebravalue", "zebraresult"

_NO_OPENINGS = (
    "The chat template begins with a question: what the assistant says before it is left out."
)

_QUESTION: Message = {"role": "user", "content": _USER}
_REPLY: Message = {"role": "assistant", "content": _ANSWER}
_SCHEMA = {
    "type": "function",
    "function": {
        "name": _TOOL,
        "description": "Looks it up.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    },
}
_CALL_ID = "call00001"  # Mistral's wants nine letters or digits


@dataclass(frozen=True)
class Abilities:
    """What a chat template can hold.

    Attributes:
        system: a system prompt.
        openings: what the assistant says before the first question, as a greeting.
        repeats: two turns of the same role in a row.
        reasoning: `reasoning_content` of an answer.
        inline_reasoning: reasoning between <think> and </think> in the answer's text.
        tools: the schemas of tools.
        calls: how tool calls are given: (without any content, arguments as text); None
            where they cannot be.
        results: turns of the role tool.
        own_system: the system prompt that the template writes when there is none, or "".
        generation_tail: what follows a question's text when an answer is asked for.
    """

    system: bool
    openings: bool
    repeats: bool
    reasoning: bool
    inline_reasoning: bool
    tools: bool
    calls: tuple[bool, bool] | None
    results: bool
    own_system: str
    generation_tail: str


def find_abilities(template: str, variables: Mapping[str, Any]) -> Abilities:
    """Try a template out in a bounded child. Raises `UserError` when it cannot be used."""
    variants = [(bare, as_text) for bare in (True, False) for as_text in (False, True)]
    requests: dict[str, dict[str, Any]] = {
        "plain": {"messages": [_QUESTION, _REPLY]},
        "prompt": {"messages": [_QUESTION], "add_generation_prompt": True},
        "system": {"messages": [{"role": "system", "content": _SYSTEM}, _QUESTION, _REPLY]},
        "openings": {"messages": [_REPLY, _QUESTION, {**_REPLY, "content": f"{_ANSWER}2"}]},
        "repeats": {"messages": [_QUESTION, {"role": "user", "content": f"{_USER}2"}, _REPLY]},
        "reasoning": {"messages": [_QUESTION, _with_reasoning(_REPLY, _REASON)]},
        "inline": {"messages": [_QUESTION, {**_REPLY, "content": _thought(_REASON, _ANSWER)}]},
        "tools": {"messages": [_QUESTION, _REPLY], "tools": [_SCHEMA]},
    }
    for variant in variants:
        requests[f"calls {variant}"] = {"messages": [_QUESTION, _call_turn(*variant)]}
        requests[f"results {variant}"] = {"messages": _with_result(*variant)}
    renderings = render_safely(template, variables, list(requests.values()))
    found = dict(zip(requests, renderings, strict=True))

    if not (_holds(found["plain"], _USER) and _holds(found["plain"], _ANSWER)):
        raise UserError(
            "template_unusable",
            "The chat template of this model does not take a question and its answer ({reason}).",
            CHOOSE_ANOTHER,
            field=FIELD,
            reason=found["plain"].error or "it leaves them out",
        )
    calls = next((v for v in variants if _holds(found[f"calls {v}"], _TOOL, _VALUE)), None)
    plain, prompt = found["plain"].text or "", found["prompt"].text or ""
    return Abilities(
        system=_holds(found["system"], _SYSTEM, _USER),
        openings=_times(found["openings"], _ANSWER) > 1,
        repeats=_holds(found["repeats"], _ANSWER) and _times(found["repeats"], _USER) > 1,
        reasoning=_holds(found["reasoning"], _REASON, _ANSWER),
        inline_reasoning=_holds(found["inline"], _REASON, _ANSWER),
        tools=_holds(found["tools"], _TOOL),
        calls=calls,
        results=calls is not None and _holds(found[f"results {calls}"], _RESULT, _ANSWER),
        own_system=_words_before(plain),
        generation_tail=prompt.rpartition(_USER)[2],
    )


def adapt(conversation: Conversation, can: Abilities) -> Conversation:
    """The conversation in a form that the template holds; the same object where it does.

    A system prompt goes to the head of the first question, what the assistant says before that
    question is left out, a tool call becomes the assistant's JSON text, what a tool gave back a
    question (which is never learned from), reasoning goes between <think> tags, and turns in a
    row become one.
    """
    turns = conversation.messages
    plain = all(m["role"] in ("user", "assistant") and len(m) == 2 for m in turns)
    opens = can.openings or turns[0]["role"] != "assistant"
    if plain and opens and can.repeats and not conversation.tools:
        return conversation
    keeps_calls = can.calls is not None and can.results
    turns = [_adapted(turn, can, keeps_calls) for turn in turns]
    if not can.system:
        turns = _without_system(turns)
    if not can.openings:
        turns = _without_opening(turns)
    if not can.repeats:
        turns = _joined(turns)
    return Conversation(turns, conversation.tools if can.tools and keeps_calls else None)


def notices(conversation: Conversation, can: Abilities) -> set[str]:
    """What a person should know of how this conversation was made to fit."""
    said: set[str] = set()
    if not can.openings and _has_opening(conversation.messages):
        said.add(_NO_OPENINGS)
    if not any(
        len(turn) > 2 or turn["role"] in ("system", "tool") or "</think>" in turn["content"]
        for turn in conversation.messages
    ):
        return said
    roles = {turn["role"] for turn in conversation.messages}
    uses_tools = "tool" in roles or any("tool_calls" in turn for turn in conversation.messages)
    if "system" in roles and not can.system:
        said.add("The chat template has no system role: system prompts open the first question.")
    if uses_tools and (can.calls is None or not can.results):
        said.add(
            "The chat template has no tools: a call is learned as JSON text, and what the tool "
            "gave back is shown as a question."
        )
    elif conversation.tools and not can.tools:
        said.add("The chat template leaves the descriptions of tools out.")
    apart = any("reasoning_content" in turn for turn in conversation.messages)
    inline = any("</think>" in turn["content"] for turn in conversation.messages)
    if not can.inline_reasoning and (inline or (apart and not can.reasoning)):
        said.add("The chat template leaves reasoning out.")
    elif apart and not can.reasoning:
        said.add("The chat template has no place for reasoning: it stands between <think> tags.")
    if any(turn.get("weight", 0) not in (0, 1) for turn in conversation.messages):
        said.add("A weight other than 0 counts as 1: a turn is learned from or it is not.")
    return said


def call_text(call: dict[str, Any]) -> str:
    """A tool call as the text that stands for it where a template has none."""
    function = call["function"]
    return json.dumps(
        {"name": function["name"], "arguments": function["arguments"]}, ensure_ascii=False
    )


def _adapted(turn: Message, can: Abilities, keeps_calls: bool) -> Message:
    if len(turn) == 2 and turn["role"] != "tool":
        return turn
    turn = turn.copy()
    reasoning = turn.get("reasoning_content")
    if reasoning and can.reasoning:
        turn = _with_reasoning(turn, reasoning)
    elif reasoning:
        del turn["reasoning_content"]
        if can.inline_reasoning:
            turn["content"] = _thought(reasoning, turn["content"])
    if turn["role"] == "tool" and not keeps_calls:
        turn["role"] = "user"
    if "tool_calls" in turn and keeps_calls and can.calls is not None:
        bare, as_text = can.calls
        turn["tool_calls"] = [_call_as(call, as_text) for call in turn["tool_calls"]]
        if bare and not turn["content"]:
            del turn["content"]  # type: ignore[misc]
    elif "tool_calls" in turn:
        texts = [call_text(call) for call in turn.pop("tool_calls")]
        turn["content"] = "\n".join([turn["content"], *texts] if turn["content"] else texts)
    return turn


def _with_reasoning(turn: Message, reasoning: str) -> Message:
    """Under both names that templates know it by."""
    return {**turn, "reasoning_content": reasoning, "thinking": reasoning}


def _call_as(call: dict[str, Any], as_text: bool) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    if as_text and not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**call["function"], "arguments": arguments}}


def _without_system(turns: list[Message]) -> list[Message]:
    kept: list[Message] = []
    waiting: list[str] = []
    for turn in turns:
        if turn["role"] == "system":
            waiting.append(turn["content"])
        elif waiting and turn["role"] == "user":
            text = "\n\n".join([*waiting, turn["content"]])
            kept.append({**turn, "content": text})
            waiting = []
        else:
            kept.append(turn)
    return kept


def _without_opening(turns: list[Message]) -> list[Message]:
    """From the first question on, what the assistant says before it left out."""
    if not _has_opening(turns):
        return turns
    asked = next(place for place, turn in enumerate(turns) if turn["role"] == "user")
    return [turn for turn in turns[:asked] if turn["role"] == "system"] + turns[asked:]


def _has_opening(turns: list[Message]) -> bool:
    """Whether the assistant speaks before the first question, and also after it."""
    roles = [turn["role"] for turn in turns]
    if "user" not in roles:
        return False
    asked = roles.index("user")
    return "assistant" in roles[:asked] and "assistant" in roles[asked:]


def _joined(turns: list[Message]) -> list[Message]:
    """Questions in a row as one; answers too where they are learned from alike."""
    kept: list[Message] = []
    for turn in turns:
        last = kept[-1] if kept else None
        same = last is not None and last["role"] == turn["role"]
        if last and same and turn["role"] in ("user", "assistant") and _alike(last, turn):
            kept[-1] = {**last, "content": f"{last['content']}\n\n{turn['content']}"}
        else:
            kept.append(turn)
    return kept


def _alike(one: Message, other: Message) -> bool:
    def rest(turn: Message) -> dict[str, Any]:
        return {key: value for key, value in turn.items() if key not in ("content", "name")}

    return rest(one) == rest(other) and "tool_calls" not in one


def _thought(reasoning: str, answer: str) -> str:
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{answer}"


def _call_turn(bare: bool, as_text: bool) -> dict[str, Any]:
    function = {"name": _TOOL, "arguments": {"key": _VALUE}}
    call = {"type": "function", "id": _CALL_ID, "function": function}
    turn = {"role": "assistant", "tool_calls": [_call_as(call, as_text)]}
    return turn if bare else {**turn, "content": ""}


def _with_result(bare: bool, as_text: bool) -> list[Any]:
    result = {"role": "tool", "name": _TOOL, "content": _RESULT, "tool_call_id": _CALL_ID}
    return [_QUESTION, _call_turn(bare, as_text), result, _REPLY]


def _holds(rendering: Rendering, *words: str) -> bool:
    return rendering.text is not None and all(word in rendering.text for word in words)


def _times(rendering: Rendering, word: str) -> int:
    return (rendering.text or "").count(word)


def _words_before(plain: str) -> str:
    """The sentence that a template opens with by itself: more than tokens and role names."""
    opening = plain.partition(_USER)[0]
    text = re.sub(r"<[^<>]*>|\[/?[A-Z_]+\]", "\n", opening)
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if len(re.findall(r"[^\W\d_]{2,}", line)) >= 3)
