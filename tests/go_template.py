"""Go's text/template, as far as the templates for Ollama use it: variables, a range over messages,
`if` with eq, ne, and, len and slice, fields and texts. Anything else is an error.

It was compared once with Go's own (1.19), on the templates and chats of `test_ollama_template.py`.
"""

from __future__ import annotations

import re
from typing import Any

_ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\(|\)|:=|,|[^\s(),]+')
_SPACE = " \t\r\n"


def render(template: str, values: dict[str, Any]) -> str:
    run = _Run(template, values)
    text = run.block(values, lives=True)
    assert not run.tokens, f"left over: {run.tokens[0]}"
    return text


class _Run:
    """Parses and renders in one go; what lies in a branch not taken is parsed alone."""

    def __init__(self, template: str, values: dict[str, Any]) -> None:
        self.tokens = _lex(template)
        self.root = values
        self.variables: dict[str, Any] = {}

    def block(self, dot: Any, *, lives: bool) -> str:
        """Up to the `else` or `end` that closes it, which stays."""
        text = ""
        while self.tokens and not _closes(self.tokens[0]):
            token = self.tokens.pop(0)
            if isinstance(token, str):
                text += token
            elif token[0] == "if":
                text += self.branches(token[1:], dot, lives=lives)
            elif token[0] == "range":
                text += self.loop(token[1:], dot, lives=lives)
            elif lives:
                text += self.action(token, dot)
        return text if lives else ""

    def branches(self, condition: list[str], dot: Any, *, lives: bool) -> str:
        taken = lives and bool(self.value(condition, dot))
        text = self.block(dot, lives=taken)
        closing = self.tokens.pop(0)
        if closing[:2] == ["else", "if"]:
            return text + self.branches(closing[2:], dot, lives=lives and not taken)
        if closing == ["else"]:
            text += self.block(dot, lives=lives and not taken)
            closing = self.tokens.pop(0)
        assert closing == ["end"]
        return text

    def loop(self, words: list[str], dot: Any, *, lives: bool) -> str:
        index, comma, item, assign, *what = words
        assert (comma, assign) == (",", ":=")
        body = self.tokens[:]
        text = self.block(dot, lives=False)  # finds its end
        after = self.tokens
        for place, value in enumerate(self.value(what, dot) if lives else ()):
            self.variables |= {index: place, item: value}
            self.tokens = body[:]
            text += self.block(value, lives=True)
        self.tokens = after
        assert self.tokens.pop(0) == ["end"]
        return text

    def action(self, words: list[str], dot: Any) -> str:
        if words[1:2] in ([":="], ["="]):
            assert words[1] == ":=" or words[0] in self.variables
            self.variables[words[0]] = self.value(words[2:], dot)
            return ""
        return str(self.value(words, dot))

    def value(self, words: list[str], dot: Any) -> Any:
        values: list[Any] = []
        rest = words[:]
        while rest:
            word = rest.pop(0)
            if word == "(":
                values.append(self.value(_to_parenthesis(rest), dot))
            elif word in _FUNCTIONS and not values:
                values.append(_FUNCTIONS[word])
            else:
                values.append(self.one(word, dot))
        head, *arguments = values
        return head(*arguments) if callable(head) else head

    def one(self, word: str, dot: Any) -> Any:
        if word.startswith('"'):
            return re.sub(r"\\U([0-9a-f]{8})|\\(.)", _unescaped, word[1:-1])
        if word.isdigit():
            return int(word)
        if word.startswith("$."):
            return self.root[word[2:]]
        if word.startswith("$"):
            return self.variables[word]
        assert word.startswith("."), word
        return dot[word[1:]]


_FUNCTIONS: dict[str, Any] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "len": len,
    "slice": lambda a, begin: a[begin:],
}


def _lex(template: str) -> list[Any]:
    """Texts as they are, actions as lists of words; a dash takes the white space beside it."""
    found: list[Any] = []
    end, trims = 0, False
    for match in _ACTION.finditer(template):
        text = template[end : match.start()]
        text = text.lstrip(_SPACE) if trims else text
        found += [text.rstrip(_SPACE) if match[1] else text, _WORD.findall(match[2])]
        end, trims = match.end(), bool(match[3])
    rest = template[end:]
    found.append(rest.lstrip(_SPACE) if trims else rest)
    return [token for token in found if token]


def _closes(token: Any) -> bool:
    return isinstance(token, list) and token[0] in ("else", "end")


def _to_parenthesis(rest: list[str]) -> list[str]:
    """Takes the words up to the parenthesis that closes, and that."""
    taken: list[str] = []
    open_ones = 1
    while True:
        word = rest.pop(0)
        open_ones += {"(": 1, ")": -1}.get(word, 0)
        if not open_ones:
            return taken
        taken.append(word)


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else match[2]
