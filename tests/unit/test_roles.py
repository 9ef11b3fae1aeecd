"""What columns of any name are taken for."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_backend.data.mapping import RowProblem, to_conversation
from training_backend.data.roles import guess_roles
from training_backend.job_data import ColumnRole, MappingSection

SHORT = "A short question of six words"
LONG = "An answer that takes some more words than what was asked, as answers mostly do."


def roles(**row: object) -> dict[str, ColumnRole]:
    return guess_roles(tuple(row), [dict(row)] * 3)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("question", "answer"),
        ("Customer Question", "Agent Reply"),
        ("userInput", "modelOutput"),
        ("input", "output"),
        ("title", "body"),
        ("Ticket subject", "resolution"),
        ("Frage", "Antwort"),
        ("question_text", "answer_text"),
        ("Pregunta", "Respuesta"),
        ("question", "réponse"),
        ("prompt", "chosen"),
        ("q", "a"),
        ("Subject", "Description"),
    ],
)
def test_by_name(question: str, answer: str) -> None:
    # The texts say the opposite, and are not asked.
    assert roles(**{answer: SHORT, question: LONG}) == {question: "user", answer: "assistant"}


def test_by_text_where_names_say_nothing() -> None:
    assert roles(id="17", col_b=SHORT, col_c=LONG, lang="en") == {
        "col_b": "user",
        "col_c": "assistant",
    }
    assert roles(question=SHORT, column_7=LONG) == {"question": "user", "column_7": "assistant"}
    assert roles(option_a=SHORT, option_b=LONG) == {"option_a": "user", "option_b": "assistant"}
    assert roles(вопрос=SHORT, ответ=LONG) == {"вопрос": "user", "ответ": "assistant"}
    assert roles(anything=LONG, reply=LONG) == {"anything": "user", "reply": "assistant"}


def test_what_only_goes_with_texts_is_left_out() -> None:
    found = roles(
        question_id="q-17", question=SHORT, answer_url="https://example.org/a/long/path/to/it",
        answer=LONG, created_at="2026-11-21T12:00:00Z", score="0.75", n=3,
    )  # fmt: skip
    assert found == {"question": "user", "answer": "assistant"}


def test_context_system_and_reasoning() -> None:
    found = roles(
        answer=LONG, reasoning=LONG, question=SHORT, context=LONG, system_prompt="Be brief."
    )
    assert found == {
        "system_prompt": "system", "context": "user", "question": "user",
        "reasoning": "reasoning", "answer": "assistant",
    }  # fmt: skip
    order = list(found)
    assert order.index("context") < order.index("question")  # it stands above what is asked
    found = roles(input=LONG, instruction=SHORT, response=LONG)
    assert list(found) == ["instruction", "input", "response"]


def test_a_question_of_several_columns() -> None:
    found = roles(title=SHORT, body=LONG, tags="a, b", answer=LONG)
    assert found == {"title": "user", "body": "user", "answer": "assistant"}
    names = ("Ticket-ID", "Betreff", "Beschreibung des Problems", "Kategorie", "Lösung")
    rows = [dict(zip(names, ("7", SHORT, LONG, "Versand", LONG), strict=True))]
    assert guess_roles(names, rows) == {
        "Betreff": "user", "Beschreibung des Problems": "user", "Lösung": "assistant",
    }  # fmt: skip


def test_long_names() -> None:
    customer, agent = "col_7_of_the_old_ticket_system_customer_side", "col_9_agent_side_text_final"
    assert roles(**{agent: LONG, customer: SHORT}) == {customer: "user", agent: "assistant"}


def test_one_text_and_none() -> None:
    assert roles(text=LONG) == {"text": "text"}
    assert roles(whatever=LONG, id="4") == {"whatever": "text"}
    assert roles(id=4, price="3.5") == {}
    assert guess_roles((), []) == {}


def test_turns() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert roles(id="1", chat_log=turns, tools='[{"type": "function"}]') == {
        "chat_log": "messages",
        "tools": "tools",
    }


values = st.one_of(st.text(max_size=40), st.none(), st.integers(), st.lists(st.text(), max_size=2))


@given(st.lists(st.dictionaries(st.text(max_size=12), values, max_size=8), max_size=4))
def test_any_columns_give_a_mapping_that_can_be_used(rows: list[dict[str, object]]) -> None:
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    found = guess_roles(columns, rows)
    assert set(found) <= set(columns)
    if not found:
        return
    mapping = MappingSection(columns=found)  # names an answer, messages or a text
    for row in rows:
        with contextlib.suppress(RowProblem):  # an empty cell
            to_conversation(row, "custom", mapping)
