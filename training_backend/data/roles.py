"""What the columns of a table of one's own may be, guessed from their names and texts. Light."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from training_backend.data.table import Row
from training_backend.job_data import ColumnRole

# Words of a column's name, the surest first; a few in the languages that forms are often in.
_WORDS: dict[ColumnRole, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog", "turns"),
    "system": ("system", "persona"),
    "tools": ("tools", "functions"),
    "reasoning": ("reasoning", "thinking", "rationale", "thought", "thoughts", "cot"),
    "assistant": (
        "answer", "answers", "response", "output", "completion", "assistant", "reply", "target",
        "chosen", "accepted", "solution", "resolution", "a", "bot", "gpt", "agent", "body",
        "description", "summary", "translation", "content", "result", "article", "explanation",
        "antwort", "respuesta", "reponse", "risposta", "resposta", "losung", "ausgabe", "otvet",
    ),
    "user": (
        "question", "questions", "prompt", "instruction", "query", "input", "user", "human",
        "request", "q", "ask", "ticket", "issue", "problem", "task", "customer", "title",
        "subject", "headline", "topic", "heading", "source", "name", "message",
        "frage", "pregunta", "domanda", "pergunta", "titel", "titulo", "titre", "eingabe",
        "betreff", "vopros",
    ),
    "text": ("text", "markdown", "document", "passage", "story", "paragraph"),
    "weight": ("weight",),
}  # fmt: skip
# More that belongs to the question, in the order in which it stands there.
_INSTRUCTION = ("instruction", "prompt", "task")
_CONTEXT = ("context", "passage", "background", "document", "kontext", "contexto")
_HEADING = ("title", "subject", "headline", "heading", "betreff", "titel", "titulo", "titre")
_DETAIL = ("input", "question", "problem", "issue", "body", "description", "details",
           "beschreibung", "frage", "descripcion")  # fmt: skip
_MAX_SYSTEM_WORDS = 3  # a longer name has the word by chance
# What goes with a text rather than being one.
_ASIDE = (
    "id", "ids", "uuid", "guid", "key", "index", "idx", "date", "time", "timestamp", "created",
    "updated", "url", "uri", "link", "email", "mail", "phone", "author", "status", "state",
    "lang", "language", "locale", "category", "tag", "tags", "type", "kind", "score", "rating",
    "count", "length", "number", "no", "nr", "price", "rejected", "split", "label", "version",
    "path", "file",
)  # fmt: skip
_ENDING_IN_S = {
    word for words in (*_WORDS.values(), _DETAIL, _ASIDE) for word in words if word.endswith("s")
}
_SPLIT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^a-zA-Z0-9]+")
_MIN_TEXT = 12  # characters on average; what is shorter is hardly an answer


def guess_roles(columns: tuple[str, ...], rows: list[Row]) -> dict[str, ColumnRole]:
    """What each column is; those that are left out are of no use. Empty where nothing is text.

    Names decide first. Where they name no answer, the texts do: the longest is the answer,
    and the longest of the others, or else any other text, is the question.
    """
    texts = {column: _mean_length(column, rows) for column in columns}
    texts = {column: length for column, length in texts.items() if length > 0}
    named = {role: _best(role, texts) for role in _WORDS}
    turns = [column for column in columns if _holds_turns(column, rows)]
    if turns:
        listed = [column for column in turns if _rank("messages", column) is not None]
        return {(listed or turns)[0]: "messages", **_only("system", named), **_tools(columns, rows)}
    answer, question = named["assistant"], named["user"]
    if answer is None and question is None and named["text"] is not None:
        return {named["text"]: "text"}
    if answer is None:
        taken = {question, named["system"], named["reasoning"]}
        answer = _longest(texts, taken)
    if answer is None:
        if question is None:
            return {}
        return {question: "text"} if texts[question] >= _MIN_TEXT else {}
    if question is None:
        question = _longest(texts, {answer, named["system"], named["reasoning"]}, short=True)
    if question is None:
        return {answer: "text"}
    roles: dict[str, ColumnRole] = _only("system", named)
    asked = [
        column
        for column in texts
        if column == question
        or (column not in (answer, named["system"], named["reasoning"]) and _place(column) < 4)
    ]
    roles |= dict.fromkeys(sorted(asked, key=_place), "user")
    roles |= _only("reasoning", named)
    roles[answer] = "assistant"
    return {**roles, **_tools(columns, rows)}


def _only(role: ColumnRole, named: dict[ColumnRole, str | None]) -> dict[str, ColumnRole]:
    column = named[role]
    return {column: role} if column is not None else {}


def _best(role: ColumnRole, texts: dict[str, float]) -> str | None:
    """The column whose name says most surely that it has this role."""
    ranked = [(rank, place) for place, column in enumerate(texts)
              if (rank := _rank(role, column)) is not None]  # fmt: skip
    return list(texts)[min(ranked)[1]] if ranked else None


def _rank(role: ColumnRole, column: str) -> float | None:
    """How surely a name says the role: 0 is the surest, None is not at all."""
    words = _words(column)
    for other in ("system", "reasoning"):
        short = len(words) <= _MAX_SYSTEM_WORDS
        if short and role not in (other, "messages") and set(words) & set(_WORDS[other]):
            return None  # system_prompt is no question, reasoning_output no answer
    if set(words) & set(_ASIDE):
        return None  # question_id, answer_date
    if role in ("system", "reasoning") and len(words) > _MAX_SYSTEM_WORDS:
        return None
    ranks = [_WORDS[role].index(word) for word in words if word in _WORDS[role]]
    # The last word is what it is: "customer reply" is a reply.
    last = bool(words) and words[-1] in _WORDS[role]
    return min(ranks) + (0 if last else 0.5) if ranks else None


def _place(column: str) -> int:
    """Where a column stands in the question; 4 where its name says nothing of that kind."""
    words = set(_words(column))
    if not words & set(_ASIDE):
        for place, known in enumerate((_INSTRUCTION, _CONTEXT, _HEADING, _DETAIL)):
            if words & set(known):
                return place
    return 4


def _words(column: str) -> list[str]:
    plain = unicodedata.normalize("NFKD", column).encode("ascii", "ignore").decode()
    words = [_singular(word.rstrip("0123456789").lower()) for word in _SPLIT.split(plain) if word]
    return words if len(words) == 1 else [word for word in words if len(word) > 1]  # not option_a


def _singular(word: str) -> str:
    """problems as problem; the known words that end in s are written so in the lists."""
    return word[:-1] if word.endswith("s") and word not in _ENDING_IN_S else word


def _longest(texts: dict[str, float], taken: set[str | None], short: bool = False) -> str | None:
    """The longest texts that go with nothing else; short ones only where asked for."""
    free = {
        column: length
        for column, length in texts.items()
        if column not in taken and not set(_words(column)) & set(_ASIDE)
        if short or length >= _MIN_TEXT
    }
    return max(free, key=lambda column: free[column]) if free else None


def _mean_length(column: str, rows: list[Row]) -> float:
    """Of the texts in a column; 0 where it holds anything but texts, or none."""
    values = [row.get(column) for row in rows]
    given = [value for value in values if value not in (None, "")]
    if not given or not all(isinstance(value, str) for value in given):
        return 0.0
    if all(_is_number(value) for value in given):
        return 0.0
    return sum(min(len(value), 10_000) for value in given) / len(given)


def _is_number(value: Any) -> bool:
    try:
        float(str(value).replace(",", ".").rstrip("%"))
    except ValueError:
        return False
    return True


def _holds_turns(column: str, rows: list[Row]) -> bool:
    values = [row[column] for row in rows if row.get(column)]
    return bool(values) and all(
        isinstance(value, list) and value and isinstance(value[0], dict)
        and {"role", "from"} & value[0].keys()
        for value in values
    )  # fmt: skip


def _tools(columns: tuple[str, ...], rows: list[Row]) -> dict[str, ColumnRole]:
    """Lists of functions, which some tables hold as JSON texts."""
    for column in columns:
        if set(_words(column)) & set(_WORDS["tools"]):
            values = [row[column] for row in rows if row.get(column)]
            if values and all(isinstance(v, list) or str(v).lstrip()[:1] == "[" for v in values):
                return {column: "tools"}
    return {}
