"""The demo dataset that ships with the app keeps its form and its house style."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "resources" / "demo" / "support.jsonl"

LEAD = "In short: "
CLOSE = "Next step: "


def _rows() -> list[dict]:
    text = DEMO.read_bytes().decode("utf-8")  # strict: a bad byte fails here
    assert text.endswith("\n")
    return [json.loads(line) for line in text[:-1].split("\n")]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return _rows()


@pytest.fixture(scope="module")
def answers(rows: list[dict]) -> list[str]:
    return [m["content"] for row in rows for m in row["messages"] if m["role"] == "assistant"]


@pytest.fixture(scope="module")
def questions(rows: list[dict]) -> list[str]:
    return [m["content"] for row in rows for m in row["messages"] if m["role"] == "user"]


def _normalised(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def test_there_are_enough_rows(rows):
    assert len(rows) >= 200


def test_every_row_has_the_messages_form(rows):
    for number, row in enumerate(rows, 1):
        assert set(row) == {"messages"}, f"line {number}"
        messages = row["messages"]
        assert len(messages) >= 2, f"line {number}"
        for message in messages:
            assert set(message) == {"role", "content"}, f"line {number}"
            content = message["content"]
            assert isinstance(content, str) and content, f"line {number}"
            assert content == content.strip(), f"line {number}"
        # Alternating from a user turn, and an even count, so it ends with an answer.
        roles = [message["role"] for message in messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2), f"line {number}"


def test_some_rows_have_two_exchanges_but_most_have_one(rows):
    share = sum(len(row["messages"]) == 4 for row in rows) / len(rows)
    assert all(len(row["messages"]) in (2, 4) for row in rows)
    assert 0.08 <= share <= 0.16


def test_every_answer_follows_the_house_style(answers):
    for answer in answers:
        assert answer.startswith(LEAD), answer
        lines = answer.split("\n")
        assert len(lines) == 2, answer
        assert lines[-1].startswith(CLOSE), answer
        assert lines[-1].endswith("."), answer
        assert answer.count(LEAD) == 1 and answer.count(CLOSE) == 1, answer


def test_no_answer_has_an_exclamation_mark(answers):
    assert [a for a in answers if "!" in a] == []


def test_the_typography_is_plain(answers, questions):
    odd = re.compile("[\u2018\u2019\u201c\u201d\u2010-\u2015\u2026\u00a0\t]|  ")
    assert [t for t in answers + questions if odd.search(t)] == []


def test_answers_are_short_but_not_empty(answers):
    for answer in answers:
        assert 25 <= len(answer.split()) <= 60, answer


def test_questions_are_of_varied_but_bounded_length(questions):
    lengths = [len(q.split()) for q in questions]
    assert min(lengths) >= 1
    assert max(lengths) <= 60
    assert sum(n <= 5 for n in lengths) >= 10
    assert sum(n >= 15 for n in lengths) >= 20


def test_no_question_or_answer_occurs_twice(questions, answers):
    for texts in (questions, answers):
        seen: dict[str, str] = {}
        for text in texts:
            key = _normalised(text)
            assert key not in seen, f"{text!r} repeats {seen.get(key)!r}"
            seen[key] = text


def test_no_two_questions_use_nearly_the_same_words(questions):
    words = [(q, set(_normalised(q).split())) for q in questions]
    for i, (first, a) in enumerate(words):
        for second, b in words[:i]:
            assert len(a & b) / len(a | b) < 0.7, f"{first!r} is close to {second!r}"


def test_next_steps_are_not_a_stock_phrase(answers):
    steps = [a.split("\n")[-1] for a in answers]
    assert len(set(steps)) == len(steps)
