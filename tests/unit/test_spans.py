"""Where answers stand in a rendered conversation, for every family of chat templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from training_backend.data.abilities import Abilities, adapt, find_abilities, notices
from training_backend.data.mapping import Conversation, Message, RowProblem
from training_backend.data.shapes import Shapes
from training_backend.data.spans import Layout, lay_out

TEMPLATES = Path(__file__).parents[1] / "assets" / "chat_templates"
STANDARD = Path(__file__).parents[2] / "resources" / "chat_templates"
SOURCES = {path.stem: path for path in sorted(TEMPLATES.glob("*.jinja"))} | {
    f"standard_{path.stem}": path for path in sorted(STANDARD.glob("*.jinja"))
}
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}


class Template:
    """A chat template as transformers renders it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.can: Abilities = find_abilities(source, VARIABLES)
        self.shapes = Shapes(self.can.generation_tail)

    def render(self, messages: list[Message], add_generation_prompt: bool = False) -> str:
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            (text,), _ = render_jinja_template(
                [messages], chat_template=self.source,
                add_generation_prompt=add_generation_prompt, **VARIABLES,
            )  # fmt: skip
        except Exception as error:
            raise RowProblem(str(error)) from None
        return str(text)

    def lay_out(self, messages: list[Message]) -> Layout:
        fitting = adapt(Conversation(messages), self.can)
        return lay_out(fitting, self.render, self.can.generation_tail)


@pytest.fixture(scope="module", params=SOURCES)
def template(request: pytest.FixtureRequest) -> Template:
    return Template(SOURCES[request.param].read_text(encoding="utf-8"))


# White space at the ends, signs that templates and tokenizers care about, anything else; but
# not the words that this test looks for.
_KEPT = ("question", "answer", "sysx", "think")
words = st.one_of(
    st.text(alphabet=st.sampled_from(list(" \n\t<>[]{}|%aé🙂/_-\"'\\#:")), max_size=30),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30),
).filter(lambda text: not any(word in text for word in _KEPT))


@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(st.lists(st.tuples(words, words, words, words), min_size=1, max_size=4), st.booleans())
def test_answers_and_nothing_else_are_found_whatever_the_texts(
    template: Template, pairs: list[tuple[str, str, str, str]], system: bool
) -> None:
    messages: list[Message] = [{"role": "system", "content": "sysx"}] if system else []
    for number, (before, after, lead, trail) in enumerate(pairs):
        messages += [
            {"role": "user", "content": f"{before}question{number}x{after}"},
            {"role": "assistant", "content": f"{lead}answer{number}x{trail}"},
        ]
    layout = template.lay_out(messages)
    answers = [layout.text[first:last] for _, (first, last) in layout.answers]
    assert len(answers) == len(pairs)
    quick = template.shapes.lay_out(adapt(Conversation(messages), template.can), template.render)
    assert (quick.text, quick.answers) == (layout.text, layout.answers)
    for number, (answer, (_, _, lead, trail)) in enumerate(zip(answers, pairs, strict=True)):
        assert answer.count(f"{lead}answer{number}x{trail}".strip()) == 1
        assert "question" not in answer and "sysx" not in answer
        assert answer.count("answer") == 1
    rest = layout.text
    for _, (first, last) in reversed(layout.answers):
        rest = rest[:first] + rest[last:]
    assert "answer" not in rest
    assert all(f"question{number}x" in rest for number in range(len(pairs)))
    prompt = template.render(adapt(Conversation(messages), template.can).messages[:-1], True)
    if layout.text.startswith(prompt):  # the last answer begins where the model takes over
        assert layout.answers[-1][1][0] == len(prompt)


def test_every_answer_ends_with_the_token_that_ends_a_turn(template: Template) -> None:
    messages: list[Message] = [
        {"role": "user", "content": "One?"}, {"role": "assistant", "content": "Alpha."},
        {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "Beta."},
    ]  # fmt: skip
    layout = template.lay_out(messages)
    ends = [layout.text[first:last].rpartition(".")[2] for _, (first, last) in layout.answers]
    assert ends[0] and ends[1].startswith(ends[0])
    assert ends[0].startswith(("<", "</s>"))


def test_a_conversation_that_the_template_refuses_says_why() -> None:
    gemma = Template(SOURCES["gemma"].read_text(encoding="utf-8"))
    twice: list[Message] = [
        {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello.", "weight": 0},
        {"role": "assistant", "content": "Yes?"},
    ]  # fmt: skip
    with pytest.raises(RowProblem, match="roles must alternate"):
        gemma.lay_out(twice)


def test_a_greeting_is_kept_or_left_out_as_the_template_can(template: Template) -> None:
    messages: list[Message] = [
        {"role": "assistant", "content": "Welcome!"}, {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
    ]  # fmt: skip
    layout = template.lay_out(messages)
    answers = [layout.text[first:last] for _, (first, last) in layout.answers]
    assert "Yes?" in answers[-1]
    assert (len(answers) == 2) == ("Welcome!" in layout.text) == template.can.openings
    said = "begins with a question" in " ".join(notices(Conversation(messages), template.can))
    assert said != template.can.openings


def test_a_template_that_hides_its_answers_is_refused_rather_than_guessed_at() -> None:
    template = Template(
        "{% for m in messages %}{{ m.content | replace('a', 'b') }};{% endfor %}"
        "{% if 'secret' in messages[0].content %}{{ messages[0].content | length }}{% endif %}"
        "zebraquestion zebraanswer"
    )
    messages: list[Message] = [
        {"role": "user", "content": "secret"}, {"role": "assistant", "content": "x"},
        {"role": "user", "content": "again"}, {"role": "assistant", "content": "y"},
    ]  # fmt: skip
    with pytest.raises(RowProblem, match="rewritten by the chat template"):
        template.lay_out(messages)


def test_a_header_that_differs_from_the_generation_prompt_is_not_learned() -> None:
    template = Template(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{{ messages | length }}{{ 'assistant: ' if add_generation_prompt else '' }}"
    )
    layout = template.lay_out([
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "x"},
        {"role": "user", "content": "b"}, {"role": "assistant", "content": "y"},
    ])  # fmt: skip
    (first, _), (last, _) = [span for _, span in layout.answers]
    assert (layout.text[first], layout.text[last]) == ("x", "y")


def test_reasoning_of_earlier_turns_is_stripped_and_the_last_is_learned() -> None:
    qwen = Template(SOURCES["qwen"].read_text(encoding="utf-8"))
    messages: list[Message] = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Alpha.", "reasoning_content": "first"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "Beta.", "reasoning_content": "second"},
    ]
    layout = qwen.lay_out(messages)
    assert [layout.text[a:b] for _, (a, b) in layout.answers] == [
        "Alpha.<|im_end|>", "<think>\nsecond\n</think>\n\nBeta.<|im_end|>",
    ]  # fmt: skip


CALLING: list[Any] = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "call00001", "type": "function",
         "function": {"name": "look", "arguments": {"city": "Bonn", "days": 3}}}]},
    {"role": "tool", "name": "look", "tool_call_id": "call00001", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]  # fmt: skip


def test_calls_are_learned_and_results_are_not(template: Template) -> None:
    layout = template.lay_out(CALLING)
    call, answer = [layout.text[a:b] for _, (a, b) in layout.answers]
    assert "look" in call and "Bonn" in call and "3" in call
    assert "rain" not in call.replace("rains", "") and "Weather" not in call
    assert "It rains." in answer and "look" not in answer
    assert call.count("look") == 1
