"""Rows of every known form become the same messages; a row that cannot is named as one."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from training_backend.data import mapping, reader
from training_backend.data.mapping import RowProblem, detect, to_messages
from training_backend.errors import UserError
from training_backend.job import DataFormat


def turns(*texts: str, system: str = "") -> list[dict[str, str]]:
    """Messages, taking turns from the user's on."""
    roles = ("user", "assistant")
    found = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *found] if system else found


def problem(row: dict[str, Any], format: DataFormat) -> str:
    with pytest.raises(RowProblem) as caught:
        to_messages(row, format)
    return str(caught.value)


ROWS: list[tuple[dict[str, Any], DataFormat, list[dict[str, str]]]] = [
    ({"messages": turns("q", "a")}, "messages", turns("q", "a")),
    (
        {"messages": turns("q", "a", "r", "b", system="s")},
        "messages",
        turns("q", "a", "r", "b", system="s"),
    ),
    (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        "sharegpt",
        turns("q", "a"),
    ),
    ({"conversations": turns("q", "a")}, "sharegpt", turns("q", "a")),
    (
        {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        "messages",
        turns("q", "a"),
    ),
    ({"instruction": "q", "input": "", "output": "a"}, "alpaca", turns("q", "a")),
    ({"instruction": "q", "output": "a"}, "alpaca", turns("q", "a")),
    ({"instruction": "q", "input": None, "output": "a"}, "alpaca", turns("q", "a")),
    ({"instruction": "q", "input": "more", "output": "a"}, "alpaca", turns("q\n\nmore", "a")),
    (
        {"instruction": "q", "output": "a", "system": "s"},
        "alpaca",
        turns("q", "a", system="s"),
    ),
    ({"prompt": "q", "completion": "a"}, "prompt_completion", turns("q", "a")),
    ({"prompt": "q", "response": "a"}, "prompt_completion", turns("q", "a")),
    (
        {"prompt": turns("q", "a", "r"), "completion": [{"role": "assistant", "content": "b"}]},
        "prompt_completion",
        turns("q", "a", "r", "b"),
    ),
    ({"text": " as it is\n"}, "text", [{"role": "text", "content": " as it is\n"}]),
]


@pytest.mark.parametrize(("row", "format", "messages"), ROWS)
def test_every_form_is_recognised_and_mapped(
    row: dict[str, Any], format: DataFormat, messages: list[dict[str, str]]
) -> None:
    assert detect([row]) == format
    assert to_messages(row, format) == messages
    assert to_messages(row, "auto") == messages


def test_every_form_of_a_job_is_tested() -> None:
    assert {format for _, format, _ in ROWS} == set(get_args(DataFormat)) - {"auto"}


@pytest.mark.parametrize(
    ("role", "known"),
    [
        ("human", "user"),
        ("user", "user"),
        ("prompter", "user"),
        ("Human", "user"),
        ("gpt", "assistant"),
        ("GPT", "assistant"),
        ("chatgpt", "assistant"),
        ("model", "assistant"),
        ("bot", "assistant"),
        ("assistant", "assistant"),
        ("system", "system"),
        ("developer", "system"),
    ],
)
def test_sharegpt_roles_are_mapped(role: str, known: str) -> None:
    conversation = [
        {"from": "human", "value": "q"},
        {"from": role, "value": "x"},
        {"from": "gpt", "value": "a"},
    ]
    found = to_messages({"conversations": conversation}, "sharegpt")
    assert [message["role"] for message in found] == ["user", known, "assistant"]


@pytest.mark.parametrize("role", ["tool", "function", "", None, 5, ["user"], {"a": 1}, "x" * 900])
def test_an_unknown_role_is_the_rows_problem(role: Any) -> None:
    found = problem({"messages": [{"role": role, "content": "x"}]}, "messages")
    assert found.startswith("has the unknown role ")
    assert len(found) < 100


def test_what_follows_the_last_answer_is_dropped() -> None:
    assert to_messages({"messages": turns("q", "a", "thanks")}, "messages") == turns("q", "a")


def test_a_greeting_before_the_first_question_is_dropped() -> None:
    """ShareGPT conversations often begin so, and chat templates do not know it."""
    conversation = [
        {"from": "gpt", "value": "Hello!"},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "a"},
    ]
    assert to_messages({"conversations": conversation}, "sharegpt") == turns("q", "a")
    found = problem({"conversations": conversation[:1]}, "sharegpt")
    assert found == "has an answer but no question"


@pytest.mark.parametrize(
    "messages",
    [[], turns("q"), [{"role": "system", "content": "s"}], turns("q", system="s")],
)
def test_a_conversation_without_an_answer_is_the_rows_problem(messages: Any) -> None:
    assert problem({"messages": messages}, "messages") == "has no answer"


@pytest.mark.parametrize("answer", ["", "  \n\t", None, 5, True, ["a"], {"text": "a"}, []])
def test_an_answer_that_is_no_text_is_the_rows_problem(answer: Any) -> None:
    rows: list[tuple[dict[str, Any], DataFormat]] = [
        ({"messages": [*turns("q"), {"role": "assistant", "content": answer}]}, "messages"),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": answer},
                ]
            },
            "sharegpt",
        ),
        ({"instruction": "q", "output": answer}, "alpaca"),
        ({"prompt": "q", "completion": answer}, "prompt_completion"),
        ({"text": answer}, "text"),
    ]
    for row, format in rows:
        found = problem(row, format)
        assert found.startswith(("has an empty ", "has no text in ", "has no plain ")), found
        assert found.endswith(("assistant", "output", "completion", "text"))


def test_a_missing_column_is_the_rows_problem() -> None:
    for format in get_args(DataFormat):
        if format != "auto":
            assert problem({"other": 1}, format).startswith("has no ")


def test_an_empty_question_is_the_rows_problem_but_an_empty_system_prompt_is_not() -> None:
    assert problem({"messages": turns(" ", "a")}, "messages") == "has an empty user"
    assert problem({"instruction": "", "output": "a"}, "alpaca") == "has an empty instruction"
    messages = [{"role": "system", "content": ""}, *turns("q", "a")]
    assert to_messages({"messages": messages}, "messages") == messages


@pytest.mark.parametrize("value", [None, "text", {"role": "user"}, 5])
def test_messages_that_are_no_list_are_the_rows_problem(value: Any) -> None:
    assert problem({"messages": value}, "messages") == "has no list of messages"


@pytest.mark.parametrize("turn", [None, "text", 5, ["user", "text"]])
def test_a_message_that_is_no_object_is_the_rows_problem(turn: Any) -> None:
    assert problem({"messages": [turn]}, "messages") == "holds a message that is no object"


def test_half_a_character_is_the_rows_problem() -> None:
    """A text cut within an emoji: no tokenizer takes it, nor does the journal."""
    half = "👋".encode("utf-16-be", "surrogatepass")[:2].decode("utf-16-be", "surrogatepass")
    assert problem({"text": f"Hi {half}"}, "text") == "has half a character in text"
    found = problem({"messages": [{"role": half, "content": "a"}]}, "messages")
    assert found.encode()


def test_whole_characters_of_every_kind_are_kept_as_they_are() -> None:
    text = "é e\u0301 👩\u200d👩\u200d👧 日本 \u202e \x00 \ufffd \ufeff <|im_end|> {{ x }} ?"
    assert to_messages({"text": text}, "text")[0]["content"] == text


# --------------------------------------------------------------------------------- detection


def test_rows_of_no_known_form_name_their_columns() -> None:
    with pytest.raises(UserError) as caught:
        detect([{"frage": "q", "antwort": "a"}])
    assert caught.value.code == "format_unknown"
    assert caught.value.field == "dataset.path"
    assert "antwort, frage" in str(caught.value)
    with pytest.raises(UserError) as caught:
        detect([{f"column {n} " + "x" * 50: 1 for n in range(1_000)}])
    assert len(str(caught.value)) < 1_500


@pytest.mark.parametrize("row", [{}, {"output": "a"}, {"prompt": "q"}, {"instruction": "q"}])
def test_half_a_form_is_no_form(row: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        detect([row])


def test_the_form_may_show_only_after_the_first_row() -> None:
    assert detect([{}, {"prompt": "q"}, {"prompt": "q", "completion": "a"}]) == "prompt_completion"


def test_conversations_win_over_plain_text() -> None:
    assert detect([{"text": "x", "messages": turns("q", "a")}]) == "messages"


def test_every_row_of_the_demo_is_usable() -> None:
    rows = reader.read_rows(reader.resolve_dataset("demo"))
    assert detect(rows) == "messages"
    for row in rows:
        assert mapping.to_messages(row, "messages") == row["messages"]
