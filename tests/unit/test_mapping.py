"""Rows of every form become conversations, and what cannot says why."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_backend.data.mapping import (
    ROLES,
    TEXT,
    Message,
    RowProblem,
    check_columns,
    detect,
    fill,
    notice,
    to_conversation,
    to_messages,
)
from training_backend.errors import UserError
from training_backend.job import DataFormat, MappingSection

ASKED = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}

FORMS: list[tuple[DataFormat, dict[str, Any]]] = [
    ("messages", {"messages": ASKED}),
    ("messages", {"conversation": ASKED}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "Hi?"},
                                    {"from": "gpt", "value": "Hello."}]}),
    ("alpaca", {"instruction": "Hi?", "input": "", "output": "Hello."}),
    ("prompt_completion", {"prompt": "Hi?", "completion": "Hello."}),
    ("prompt_completion", {"prompt": ASKED[:1], "completion": ASKED[1:]}),
    ("question_answer", {"Question": "Hi?", "Answer": "Hello."}),
    ("question_answer", {"input": "Hi?", "output": "Hello."}),
    ("preference", {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}),
    ("preference", {"chosen": ASKED, "rejected": ASKED}),
    ("kto", {"prompt": "Hi?", "completion": "Hello.", "label": True}),
]  # fmt: skip


@pytest.mark.parametrize(("form", "row"), FORMS)
def test_each_form_is_detected_and_becomes_the_same_conversation(
    form: DataFormat, row: dict[str, Any]
) -> None:
    assert detect([row]) == form
    assert to_messages(row, form) == ASKED
    assert to_messages(row, "auto") == ASKED


def test_plain_text_is_one_message_of_its_own_role() -> None:
    assert detect([{"text": "Once upon a time"}]) == "text"
    assert to_messages({"text": "Once"}, "text") == [{"role": TEXT, "content": "Once"}]


def test_unknown_columns_are_named() -> None:
    with pytest.raises(UserError, match=r"beta, Alpha.*no known form"):
        detect([{"beta": 1, "Alpha": 2}])


def test_alpaca_input_follows_the_instruction() -> None:
    row = {"instruction": "Add.", "input": "2 and 2", "output": "4", "system": "Be brief."}
    assert [m["content"] for m in to_messages(row, "alpaca")] == [
        "Be brief.",
        "Add.\n\n2 and 2",
        "4",
    ]


def test_what_follows_the_last_answer_is_dropped() -> None:
    assert to_messages({"messages": [*ASKED, ASKED[0]]}, "messages") == ASKED


def test_bad_labels_are_left_out_and_it_is_said() -> None:
    with pytest.raises(RowProblem, match="labelled as a bad answer") as caught:
        to_messages({"prompt": "Hi?", "completion": "No.", "label": False}, "kto")
    assert caught.value.code == "labelled_bad"
    assert "left out" in notice("kto") and "rejected" in notice("preference")


def test_typed_parts_become_text_reasoning_and_calls() -> None:
    parts = [
        {"type": "reasoning", "value": "1 + 1"},
        {"type": "text", "text": "I will "},
        {"type": "text", "value": "add."},
        {"type": "tool_call", "tool_call": {"name": "add", "arguments": '{"a": 1}'}},
    ]
    row = {"messages": [ASKED[0], {"role": "assistant", "content": parts}]}
    answer = to_messages(row, "messages")[1]
    assert answer == {
        "role": "assistant", "content": "I will add.", "reasoning_content": "1 + 1",
        "tool_calls": [CALL],
    }  # fmt: skip


def test_tool_calls_tools_and_results_are_kept() -> None:
    row = {
        "messages": [
            ASKED[0],
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "x1", "function": {"name": "add", "arguments": '{"a": 1}'}}]},
            {"role": "tool", "tool_call_id": "x1", "content": "1"},
            ASKED[1],
        ],
        "tools": json.dumps([{"type": "function", "function": {"name": "add"}}]),
    }  # fmt: skip
    conversation = to_conversation(row, "messages")
    assert conversation.messages[1]["tool_calls"] == [{**CALL, "id": "x1"}]
    assert conversation.messages[2] == {"role": "tool", "content": "1", "tool_call_id": "x1"}
    assert conversation.tools == [{"type": "function", "function": {"name": "add"}}]


def test_sharegpt_function_calls_are_tool_calls() -> None:
    row = {"conversations": [
        {"from": "human", "value": "Hi?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "1"},
        {"from": "gpt", "value": "Hello."},
    ]}  # fmt: skip
    messages = to_messages(row, "sharegpt")
    assert messages[1]["tool_calls"] == [CALL]
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(("key", "value"), [("weight", 0), ("loss_weight", 0.0), ("train", False)])
def test_weights_of_messages_are_kept(key: str, value: Any) -> None:
    row = {"messages": [ASKED[0], {**ASKED[1], key: value}, *ASKED]}
    assert to_messages(row, "messages")[1]["weight"] == 0


@pytest.mark.parametrize(
    ("row", "form", "code"),
    [
        ({"messages": []}, "messages", "no_answer"),
        ({"messages": None}, "messages", "no_messages"),
        ({"messages": ["x"]}, "messages", "no_messages"),
        ({"messages": ASKED[:1]}, "messages", "no_answer"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages", "unknown_role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages", "null_content"),
        ({"messages": [{"role": "user", "content": 3.5}, {"role": "assistant", "content": " "}]},
         "messages", "empty_answer"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]},
         "messages", "not_text"),
        ({"prompt": "Hi?", "completion": ""}, "prompt_completion", "empty_answer"),
        ({"prompt": "Hi?", "completion": None}, "prompt_completion", "no_answer"),
        ({"prompt": "", "completion": "x"}, "prompt_completion", "empty_turn"),
        ({"prompt": "Hi?", "completion": {"a": 1}}, "prompt_completion", "wrong_type"),
        ({"question": "Hi?", "answer": float("nan")}, "question_answer", "null_content"),
        ({"text": "  "}, "text", "empty_turn"),
    ],
)  # fmt: skip
def test_bad_rows_say_what_is_wrong(row: dict[str, Any], form: DataFormat, code: str) -> None:
    with pytest.raises(RowProblem) as caught:
        to_messages(row, form)
    assert caught.value.code == code


def test_lone_surrogates_are_replaced() -> None:
    row = {"prompt": "Hi \ud83d", "completion": "\ud83d\ude42 ok"}
    question, answer = to_messages(row, "prompt_completion")
    assert (question["content"], answer["content"]) == ("Hi \ufffd", "🙂 ok")
    chat = {"messages": [{"role": "user", "content": "Hi \ud83d"}, ASKED[1]]}
    assert to_messages(chat, "messages")[0]["content"] == "Hi \ufffd"


def test_custom_columns_become_roles() -> None:
    mapping = MappingSection(
        columns={"topic": "user", "ask": "user", "why": "reasoning", "say": "assistant"},
        system_prompt="Be kind.",
    )
    row = {"topic": "Sums", "ask": "2 + 2?", "why": "count", "say": 4, "other": "x"}
    assert to_messages(row, "custom", mapping) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Sums\n\n2 + 2?"},
        {"role": "assistant", "content": "4", "reasoning_content": "count"},
    ]


def test_custom_templates_are_filled_from_columns() -> None:
    mapping = MappingSection(user="{a} and {b c}: {{x}}", assistant="{d}", system="{a}")
    row = {"a": "one", "b c": "two", "d": "three"}
    assert [m["content"] for m in to_messages(row, "custom", mapping)] == [
        "one", "one and two: {x}", "three",
    ]  # fmt: skip
    with pytest.raises(RowProblem, match="no column d"):
        to_messages({"a": "", "b c": ""}, "custom", mapping)


def test_a_mapping_of_missing_columns_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match="names nope, but the columns are a, b") as caught:
        check_columns(MappingSection(user="{nope}", assistant="{a}"), ["a", "b"])
    assert caught.value.field == "dataset.mapping"


def test_placeholders_read_columns_and_nothing_else() -> None:
    assert fill("{a.__class__} {a}", {"a.__class__": "safe", "a": "x"}) == "safe x"


any_text = st.text(alphabet=st.characters())  # lone surrogates too, as JSON can hold them
texts = st.text(alphabet=st.characters(), min_size=1).filter(lambda text: text.strip())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.data())
def test_no_text_is_lost_or_changed_in_any_form(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    user = data.draw(st.sampled_from([role for role, known in ROLES.items() if known == "user"]))
    gpt = data.draw(st.sampled_from([r for r, known in ROLES.items() if known == "assistant"]))
    role, content = data.draw(st.sampled_from([("role", "content"), ("from", "value")]))
    turns = [
        {role: name, content: text}
        for pair in pairs
        for name, text in zip((user, gpt), pair, strict=True)
    ]
    expected = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
                for pair in pairs for text in pair]  # fmt: skip
    for row in ({"messages": turns}, {"conversations": turns}):
        messages = to_messages(row, detect([row]))
        assert [m["content"] for m in messages] == expected
        assert [m["role"] for m in messages] == ["user", "assistant"] * len(pairs)
    question, answer = expected[:2]
    for row in (
        {"instruction": pairs[0][0], "output": pairs[0][1]},
        {"prompt": pairs[0][0], "completion": pairs[0][1]},
        {"question": pairs[0][0], "answer": pairs[0][1]},
        {"prompt": pairs[0][0], "chosen": pairs[0][1], "rejected": "x"},
    ):
        assert [m["content"] for m in to_messages(row, detect([row]))] == [question, answer]


@given(
    st.dictionaries(
        st.sampled_from(
            ["messages", "conversations", "instruction", "output", "prompt", "completion", "label",
             "question", "answer", "chosen", "rejected", "text", "system", "tools", "history"]
        ),
        json_values,
        min_size=1,
    ),
    st.sampled_from(["auto", "messages", "sharegpt", "alpaca", "prompt_completion",
                     "question_answer", "text", "preference", "kto"]),
)  # fmt: skip
def test_any_row_maps_or_says_why_not(row: dict[str, Any], form: DataFormat) -> None:
    with contextlib.suppress(RowProblem, UserError):
        check(to_messages(row, form))


def check(messages: list[Message]) -> None:
    assert messages and all(isinstance(m["content"], str) for m in messages)
    assert messages[-1]["role"] in ("assistant", TEXT)
    for message in messages:
        message["content"].encode("utf-8")  # no lone surrogates


@given(st.lists(json_values, max_size=4))
def test_any_list_of_turns_maps_or_says_why_not(turns: list[Any]) -> None:
    keyed = [
        {"role": "assistant", "content": turn, "tool_calls": turn, "weight": turn} for turn in turns
    ]
    for given_turns in (turns, keyed):
        with contextlib.suppress(RowProblem):
            check(to_messages({"messages": given_turns}, "messages"))
