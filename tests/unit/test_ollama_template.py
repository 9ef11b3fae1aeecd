"""A chat template for Ollama says what the model's own says, or is not given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import go_template
from training_backend.data.abilities import adapt, find_abilities
from training_backend.data.mapping import Conversation
from training_backend.data.safe_template import render_safely
from training_backend.errors import UserError
from training_backend.export import ollama_template
from training_backend.export.ollama_template import NotExpressible, Shape

REPOSITORY = Path(__file__).parents[2]
TEMPLATES = {
    f"{path.parent.parent.name}/{path.stem}": path.read_text("utf-8")
    for folder, names in (
        ("tests/assets/chat_templates", "*.jinja"),
        ("resources/chat_templates", "[ap]*.jinja"),
    )
    for path in sorted((REPOSITORY / folder).glob(names))
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def chat(*contents: str, system: str = "") -> list[Any]:
    """Question, answer, question …"""
    turns = [
        {"role": "assistant" if place % 2 else "user", "content": content}
        for place, content in enumerate(contents)
    ]
    return [{"role": "system", "content": system}, *turns] if system else turns


CHATS = [
    chat("Why?"),
    chat("Why {{ .Content }}?", system='Be "brief"'),
    chat("Why?", "So:\n\n- `{}`", "Really?\nReally."),
    chat("日本語で", "はい。", "もう一度", "はい。", "👍🏽", system="Línea uno\nLínea dos"),
]


def as_ollama(template: str, messages: list[Any]) -> str:
    turns = [{"Role": turn["role"], "Content": turn["content"]} for turn in messages]
    return go_template.render(template, {"Messages": turns, "System": "", "Response": ""})


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_go_template_writes_what_the_model_was_trained_on(name: str) -> None:
    source = TEMPLATES[name]
    written = ollama_template.go_template(ollama_template.find_shape(source, TOKENS))
    can = find_abilities(source, TOKENS)
    requests = [
        {"messages": adapt(Conversation(messages), can).messages, "add_generation_prompt": True}
        for messages in CHATS
    ]
    own = [rendering.text for rendering in render_safely(source, TOKENS, requests)]
    assert [as_ollama(written, messages) for messages in CHATS] == own
    assert all(own)


def test_an_answer_that_was_begun_is_gone_on_with() -> None:
    shape = ollama_template.find_shape(TEMPLATES["assets/chatml"], {})
    begun = chat("Why?", "Because")
    assert as_ollama(ollama_template.go_template(shape), begun) == (
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause"
    )


def test_a_system_prompt_between_turns_stands_where_it_was_given() -> None:
    messages = [*chat("Why?", "So."), {"role": "system", "content": "Rhyme"}, *chat("Why?")]
    for name, between in (
        ("assets/chatml", "So.<|im_end|>\n<|im_start|>system\nRhyme<|im_end|>\n<|im_start|>user\n"),
        ("assets/gemma", "So.<end_of_turn>\n<start_of_turn>user\nRhyme\n\nWhy?"),
    ):
        shape = ollama_template.find_shape(TEMPLATES[name], TOKENS)
        text = as_ollama(ollama_template.go_template(shape), messages)
        assert between in text and text == shape.render(messages)


def test_an_answer_before_every_question_is_left_out() -> None:
    shape = ollama_template.find_shape(TEMPLATES["assets/chatml"], {})
    opened = [{"role": "assistant", "content": "Hello"}, *chat("Why?")]
    written = ollama_template.go_template(shape)
    assert as_ollama(written, opened) == as_ollama(written, chat("Why?")) == shape.render(opened)


def test_the_first_token_is_left_to_the_engine_that_writes_it() -> None:
    shape = ollama_template.find_shape(TEMPLATES["assets/gemma"], TOKENS)
    for messages in (chat("a"), chat("a", system="b")):
        assert shape.render(messages) == "<s>" + shape.without("<s>").render(messages)
    assert shape.without("") == shape


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{% for m in messages | reverse %}{{ m.role }}: {{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ loop.index }}. {{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content | replace('<', '&lt;') }}\n{% endfor %}",
        "{% for m in messages %}<{{ m.content | length }}>{{ m.content }}{% endfor %}",
        "{{ messages[-1].content }}{{ messages[0].content }}",
    ],
)
def test_a_template_that_does_more_than_join_texts_is_not_handed_on(source: str) -> None:
    with pytest.raises((NotExpressible, UserError)):
        ollama_template.find_shape(source, TOKENS)


def test_a_template_that_does_harm_is_a_sentence() -> None:
    with pytest.raises(UserError, match="chat template"):
        ollama_template.find_shape("{% for m in messages %}{{ m", TOKENS)


@pytest.mark.parametrize(
    "text",
    ["{", "}}", "{{ end }}", "a{", '"', '""', '"""', '""""', "\\", "\u00a0", "\u200b\U000e0001",
     "\r\n", "\t ", "\n\n", "`", "\uff5c\u2581", " {{- x -}} "],
)  # fmt: skip
def test_any_text_of_a_template_comes_out_as_it_is(text: str) -> None:
    shape = Shape(*[f"{place}{text}" for place in range(8)])
    written = ollama_template.go_template(shape)
    for messages in CHATS:
        assert as_ollama(written, messages) == shape.render(messages)
    assert '"""' not in written
    assert all(sign.isprintable() or sign in "\n\t" for sign in written)
