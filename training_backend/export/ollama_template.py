"""A model's chat template in the language that Ollama reads: Go's.

Ollama does not run the Jinja template that stands in a GGUF file. What it is given instead is
found by writing a few marked conversations with the Jinja template and taking what stands between
their marks; then it is held against the Jinja template on other conversations. A template that
does more than join texts fails that, and is not handed on.

Go: https://pkg.go.dev/text/template. What Ollama fills in: https://docs.ollama.com/modelfile
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from training_backend.data.abilities import adapt, find_abilities
from training_backend.data.mapping import Conversation, Message
from training_backend.data.safe_template import render_safely

Chat = Sequence[Message]

# Words that no template writes by itself; none is part of another.
_SYSTEM, _FIRST, _ANSWER, _SECOND = "zebraplan", "zebraasks", "zebrareplies", "zebrawonders"


class NotExpressible(Exception):
    """Ollama cannot be given this template; the text says why, and follows a colon."""


@dataclass(frozen=True)
class Shape:
    """What a template writes between the messages of a conversation that ends with a question.

    Attributes:
        first_user: before a question that opens the conversation.
        first_system: before a system prompt that does.
        system_user: between such a system prompt and the question after it.
        user_assistant: between a question and the answer to it.
        assistant_user: between an answer and the next question.
        user_generation: after the last question; the model goes on from there.
        assistant_system: before a system prompt after an answer.
        later_user: between that system prompt and the question after it.
    """

    first_user: str
    first_system: str
    system_user: str
    user_assistant: str
    assistant_user: str
    user_generation: str
    assistant_system: str
    later_user: str

    def render(self, chat: Chat) -> str:
        """What Ollama makes of a chat with the template that `go_template` writes."""
        text, before = "", ""
        for place, message in enumerate(chat):
            last, role = place == len(chat) - 1, message["role"]
            if role == "system":
                text += (self.assistant_system if before else self.first_system) + message[
                    "content"
                ]
                before = "later" if before else "system"
            elif role == "user":
                openings = {
                    "": self.first_user, "system": self.system_user, "later": self.later_user
                }  # fmt: skip
                text += openings.get(before, self.assistant_user) + message["content"]
                text += self.user_generation if last else ""
                before = "user"
            elif role == "assistant" and before == "user":
                text += self.user_generation if last else self.user_assistant
                text += message["content"]
                before = "assistant"
        return text

    def without(self, opening: str) -> Shape:
        """The same, without the token that the engine itself puts before every text."""
        return replace(
            self,
            first_user=self.first_user.removeprefix(opening),
            first_system=self.first_system.removeprefix(opening),
        )


def find_shape(template: str, variables: Mapping[str, Any]) -> Shape:
    """What a Jinja chat template writes, found out in a bounded child process.

    Args:
        template: its source.
        variables: the texts of special tokens by their names, such as `bos_token`.

    Raises `NotExpressible`; `UserError` for a template that cannot be used at all.
    """
    asked, told = {"role": "user", "content": _FIRST}, {"role": "system", "content": _SYSTEM}
    answered = {"role": "assistant", "content": _ANSWER}
    again = {"role": "user", "content": _SECOND}
    marked = [
        [asked],
        [asked, answered, again],
        [told, asked],
        [asked, answered, told, again],
    ]
    plain, turns, system, later, *varied = _written(template, variables, [*marked, *_VARIED])
    first_user, user_generation = _around(plain, _FIRST)
    _, user_assistant, assistant_user, _ = _around(turns, _FIRST, _ANSWER, _SECOND)
    first_system, system_user, _ = _around(system, _SYSTEM, _FIRST)
    shape = Shape(
        first_user, first_system, system_user, user_assistant, assistant_user, user_generation,
        # What it would have no place for opens the next question, as in training.
        assistant_system=assistant_user, later_user="\n\n",
    )  # fmt: skip
    if later is not None and later.find(_ANSWER) < later.find(_SYSTEM) < later.find(_SECOND):
        _, _, assistant_system, later_user, _ = _around(later, _FIRST, _ANSWER, _SYSTEM, _SECOND)
        shape = replace(shape, assistant_system=assistant_system, later_user=later_user)
    for chat, text in zip(_VARIED, varied, strict=True):
        if text != shape.render(_messages(chat)):
            raise NotExpressible(
                f"it writes a chat of {len(chat)} messages in a way that is more than joining texts"
            )
    return shape


def go_template(shape: Shape) -> str:
    """The template as Ollama's `TEMPLATE` takes it. `Shape.render` says what it writes."""
    question = _choice(
        {
            'eq $before ""': shape.first_user,
            'eq $before "system"': shape.system_user,
            'eq $before "later"': shape.later_user,
        },
        shape.assistant_user,
    )
    answer = _choice({"$last": shape.user_generation}, shape.user_assistant)
    return "\n".join(
        (
            '{{- $before := "" }}',
            "{{- range $i, $_ := .Messages }}",
            "{{- $last := eq (len (slice $.Messages $i)) 1 }}",
            '{{- if eq .Role "system" }}'
            '{{ if eq $before "" }}' + _go(shape.first_system) + "{{ .Content }}"
            '{{ $before = "system" }}'
            "{{ else }}" + _go(shape.assistant_system) + "{{ .Content }}"
            '{{ $before = "later" }}{{ end }}',
            '{{- else if eq .Role "user" }}' + question + '{{ .Content }}{{ $before = "user" }}',
            '{{- else if and (eq .Role "assistant") (eq $before "user") }}'
            + answer
            + '{{ .Content }}{{ $before = "assistant" }}',
            "{{- end }}",
            '{{- if and $last (eq .Role "user") }}' + _go(shape.user_generation) + "{{ end }}",
            "{{- end }}",
        )
    )


# -------------------------------------------------------------------------------- under the hood


def _written(
    template: str, variables: Mapping[str, Any], chats: Sequence[list[dict[str, str]]]
) -> list[str | None]:
    """Each chat as in training, with what begins an answer; None where the template refuses it."""
    can = find_abilities(template, variables)
    requests = [
        {
            "messages": adapt(Conversation(_messages(chat)), can).messages,
            "add_generation_prompt": True,
        }
        for chat in chats
    ]
    return [rendering.text for rendering in render_safely(template, variables, requests)]


def _messages(chat: list[dict[str, str]]) -> list[Message]:
    return [Message(role=turn["role"], content=turn["content"]) for turn in chat]


def _around(text: str | None, *marks: str) -> list[str]:
    """What stands before, between and after marks. Raises `NotExpressible`."""
    if text is None:
        raise NotExpressible("it refuses a plain chat")
    pieces = []
    for mark in marks:
        piece, found, text = text.partition(mark)
        if not found or mark in text:
            raise NotExpressible("it leaves messages out, repeats them or changes their order")
        pieces.append(piece)
    return [*pieces, text]


def _choice(cases: Mapping[str, str], otherwise: str) -> str:
    """Go for: the text of the one condition that holds, else the other."""
    parts = [
        f"if {condition} }}}}{_go(text)}" for condition, text in cases.items() if text != otherwise
    ]
    if not parts:
        return _go(otherwise)
    return "{{ " + "{{ else ".join(parts) + "{{ else }}" + _go(otherwise) + "{{ end }}"


def _go(text: str) -> str:
    """A text as it stands in a Go template inside of a Modelfile.

    Braces would begin an action, and three quotation marks end the template. Of signs that
    cannot be seen Ollama's reader of Modelfiles keeps spaces and line ends alone.
    """
    pieces = []
    for place, sign in enumerate(text):
        quoted = sign == '"' and text[max(0, place - 2) : place + 1] == '"""'
        if sign == "{" or quoted or not (sign.isprintable() or sign in "\n\t"):
            pieces.append("{{ " + _go_string(sign) + " }}")
        else:
            pieces.append(sign)
    return "".join(pieces)


def _go_string(sign: str) -> str:
    if sign in '"\\':
        return f'"\\{sign}"'
    return f'"{sign}"' if sign.isprintable() else f'"\\U{ord(sign):08x}"'


def _chat(*contents: str, system: str = "") -> list[dict[str, str]]:
    """A chat that ends with a question."""
    turns = [
        {"role": "assistant" if place % 2 else "user", "content": content}
        for place, content in enumerate(contents)
    ]
    return [{"role": "system", "content": system}, *turns] if system else turns


_VARIED: tuple[list[dict[str, str]], ...] = (
    _chat("Hi"),
    _chat("What is {{ 2 }} + {% 2 %}?", system='Answer in\n\ntwo lines. "Now", it\'s <b>said</b>.'),
    _chat("Grüße 你好 🙂", "1. one\n2. two\n\n```py\nprint('{}')\n```", "And now?"),
    _chat("a", "b", "c", system="s"),
    _chat("12", '{"a": [1, 2]}', "34", "5 < 6 & 7 > 6", "56", "ok", "78"),
    _chat("One?", "Two.", "Three?", "Four.", "Five?", system="You are terse."),
)
