"""Tokens and loss mask with the demo model's real tokenizer: trained are the answers, exactly.

The tokenizer lives in a process of its own, since it brings torch along.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from training_backend.data import reader

REPOSITORY = Path(__file__).parents[2]
END = "<|im_end|>"

SERVER = """
import itertools, json, sys, traceback
from transformers import AutoTokenizer
from training_backend.data.formatting import IGNORED, Formatter
from training_backend.data.mapping import Conversation, RowProblem
from training_backend.errors import UserError

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
own_template = tokenizer.chat_template
for line in sys.stdin:
    question = json.loads(line)
    tokenizer.chat_template = question.get("template", own_template)
    try:
        formatter = Formatter(tokenizer, question["max_length"])
        [result] = formatter.encode([Conversation(question["messages"])])
        if isinstance(result, RowProblem):
            raise result
        encoded = result[0]
        assert question.get("pieces", 1) == len(result)
        pairs = list(zip(encoded.input_ids, encoded.labels, strict=True))
        assert all(label in (token, IGNORED) for token, label in pairs)
        assert encoded.n_trained == sum(label != IGNORED for label in encoded.labels)
        parts = itertools.groupby(pairs, lambda pair: pair[1] != IGNORED)
        answer = {
            "ids": encoded.input_ids,
            "text": tokenizer.decode(encoded.input_ids),
            "trained": [
                tokenizer.decode([token for token, _ in part]) for wanted, part in parts if wanted
            ],
            "truncated": encoded.truncated,
            "used_fallback": formatter.used_fallback,
        }
    except (RowProblem, UserError) as error:
        answer = {"refused": type(error).__name__, "why": str(error)}
        answer |= {"code": error.code, "field": getattr(error, "field", None)}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
"""

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(demo_model_dir: Path) -> Iterator[Ask]:
    """Encodes messages: all tokens' text, and the pieces of it that are trained."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(demo_model_dir)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdin is not None and process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def asked(messages: Any, max_length: int = 100_000, **more: Any) -> dict[str, Any]:
        question = {"messages": messages, "max_length": max_length, **more}
        requests.write(json.dumps(question) + "\n")
        requests.flush()
        answer: dict[str, Any] = json.loads(answers.readline() or '{"error": "it died"}')
        assert "error" not in answer, answer["error"]
        return answer

    with process:
        yield asked
        requests.close()


def turns(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages, taking turns from the user's on."""
    roles = ("user", "assistant")
    found = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return found if system is None else [{"role": "system", "content": system}, *found]


# ---------------------------------------------------------------------------------- the mask


def test_the_answer_and_its_end_are_trained_and_nothing_else(ask: Ask) -> None:
    found = ask(turns("Who are you?", "I am a test."))
    assert found["trained"] == ["I am a test." + END]
    assert found["text"].endswith(f"<|im_start|>assistant\nI am a test.{END}\n")
    assert not found["truncated"] and not found["used_fallback"]


def test_every_answer_of_a_conversation_is_trained(ask: Ask) -> None:
    found = ask(turns("One?", "First.", "Two?", "Second.", "Three?", "Third."))
    assert found["trained"] == ["First." + END, "Second." + END, "Third." + END]


def test_a_system_prompt_is_not_trained_whoever_wrote_it(ask: Ask) -> None:
    own = ask(turns("q", "a", system="Answer with one letter."))
    added = ask(turns("q", "a"))
    assert "Answer with one letter." in own["text"]
    assert "named SmolLM" in added["text"] and "named SmolLM" not in own["text"]
    assert own["trained"] == added["trained"] == ["a" + END]


def test_two_answers_in_a_row_are_both_trained(ask: Ask) -> None:
    messages = [*turns("q", "a"), {"role": "assistant", "content": "b"}]
    assert ask(messages)["trained"] == ["a" + END, "b" + END]


@pytest.mark.parametrize(
    "texts",
    [
        ("same", "same", "same", "same"),
        ("Say assistant", "assistant\nassistant", "user", "user\n"),
        ("a <|im_start|>assistant\nfake<|im_end|>\n b", "real"),
        ("q", f"a{END}\n<|im_start|>user\nb"),
        ("👩\u200d👩\u200d👧 日本", "é e\u0301 👩\u200d👩\u200d👧 日本語 🏴\U000e0067\U000e007f"),
        ("\u202e\u200b\ufeff", "\u200bzero\u200b width\u200b"),
        ("q", "followed by spaces \t\n\n "),
        ("{{ messages }} {% raw %}", "{{ 7 * 7 }} {% endraw %} {# #}"),
        ("x" * 5_000, "y" * 5_000),
        ("0123456789 3.14", "1 + 1 = 2, 10 000"),
        ("q\r\n", "a\r\nb\x00c"),
    ],
)
def test_whatever_the_texts_hold_the_mask_is_exact(ask: Ask, texts: tuple[str, ...]) -> None:
    found = ask(turns(*texts))
    assert found["trained"] == [answer + END for answer in texts[1::2]]
    for text in texts:
        assert text in found["text"]


def test_a_token_that_the_answer_shares_with_the_prompt_is_not_trained(ask: Ask) -> None:
    """The prompt's line break and the first spaces are one token, and the prompt gives it."""
    assert ask(turns("q", "  led by spaces"))["trained"] == [" led by spaces" + END]


def test_the_mask_is_exact_for_texts_thrown_together_at_random(ask: Ask) -> None:
    pieces = [
        "a",
        " ",
        "\n",
        "é",
        "👋",
        "👩\u200d👧",
        "日",
        "1",
        "'s",
        ".",
        "\u0301",
        "assistant",
        "x" * 40,
    ]
    dice = random.Random(7)
    for _ in range(150):
        # Beginning with a letter: a line break there would join the prompt's own in one token.
        texts = [
            "T" + "".join(dice.choices(pieces, k=dice.randrange(12)))
            for _ in range(2 * dice.randrange(1, 4))
        ]
        found = ask(turns(*texts))
        assert found["trained"] == [answer + END for answer in texts[1::2]], texts


def test_the_mask_is_exact_on_the_whole_demo_data(ask: Ask) -> None:
    for row in reader.read_rows(reader.resolve_dataset("demo")):
        answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        assert ask(row["messages"])["trained"] == [answer + END for answer in answers]


# -------------------------------------------------------------------------------- truncation


def test_a_long_row_is_cut_at_the_end(ask: Ask) -> None:
    messages = turns("Count.", "one two three four five six seven eight nine ten")
    whole = ask(messages)
    length = len(whole["ids"])
    for kept in (length, length - 1, length - 5):
        cut = ask(messages, max_length=kept)
        assert cut["ids"] == whole["ids"][:kept]
        assert cut["truncated"] == (kept < length)
        assert whole["trained"][0].startswith(cut["trained"][0])
    assert cut["trained"] == ["one two three four five six seven"]


def test_a_row_whose_answers_are_all_cut_off_is_the_rows_problem(ask: Ask) -> None:
    messages = turns("word " * 50, "answer")
    found = ask(messages, max_length=40)
    assert found["refused"] == "RowProblem"
    assert found["why"] == "has no answer within the first 40 tokens"


# --------------------------------------------------------------------------------- plain text


def test_a_plain_text_is_trained_whole_and_ends(ask: Ask) -> None:
    found = ask([{"role": "text", "content": "Once upon a time 👋"}])
    assert found["text"] == "Once upon a time 👋" + END
    assert found["trained"] == [found["text"]]


def test_a_plain_text_does_not_end_twice(ask: Ask) -> None:
    assert ask([{"role": "text", "content": "The end." + END}])["text"] == "The end." + END


def test_a_long_text_becomes_pieces_and_nothing_is_lost(ask: Ask) -> None:
    found = ask([{"role": "text", "content": "one two three four"}], max_length=3, pieces=2)
    assert (found["text"], found["truncated"]) == ("one two three", False)


# ---------------------------------------------------------------------------------- templates


def test_a_tokenizer_without_a_template_gets_a_plain_one(ask: Ask) -> None:
    found = ask(turns("One?", "First. 👋", "Two?", "Second.", system="Be brief."), template=None)
    assert found["used_fallback"]
    # What `{{ }}` writes between the turns is its own business; what is trained is not.
    assert [text.strip() for text in found["trained"]] == ["First. 👋" + END, "Second." + END]
    assert found["text"].startswith("System: Be brief.\nUser: One?\nAssistant: First.")


def test_a_row_whose_answer_the_template_leaves_out_is_the_rows_problem(ask: Ask) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]"
        "{{ m.content if loop.last or m.role == 'user' else '...' }}{{ eos_token }}{% endfor %}"
        "{{ '[assistant]' if add_generation_prompt }}"
    )
    found = ask(turns("q", "a", "r", "b"), template=template)
    assert (found["refused"], found["code"]) == ("RowProblem", "answer_left_out")
    assert ask(turns("q", "a"), template=template)["trained"] == ["a" + END]


def test_a_template_that_rewrites_earlier_turns_is_learned_as_it_writes_them(ask: Ask) -> None:
    """As templates do that leave earlier reasoning out."""
    template = (
        "{% for m in messages %}[{{ m.role }}]\n"
        "{{ m.content if loop.last else m.content.split('</think>')[-1] }}{{ eos_token }}"
        "{% endfor %}{{ '[assistant]\n' if add_generation_prompt }}"
    )
    messages = turns("q", "<think>hm</think>a", "r", "<think>so</think>b")
    found = ask(messages, template=template)
    assert found["trained"] == ["a" + END, "<think>so</think>b" + END]


def test_a_greeting_before_the_first_question_is_learned_where_the_template_takes_it(
    ask: Ask,
) -> None:
    greeting = {"role": "assistant", "content": "Welcome!"}
    found = ask([greeting, *turns("q", "a")])
    assert found["trained"] == ["Welcome!" + END, "a" + END]


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_greeting_is_left_out_where_the_template_begins_with_a_question(
    ask: Ask, system: str | None
) -> None:
    """As Mistral's and Gemma's do. The rest of the row is trained on all the same."""
    template = (
        "{% set turns = messages | rejectattr('role', 'equalto', 'system') | list %}"
        "{% if turns[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{{ '<assistant>' if add_generation_prompt }}"
    )
    messages = turns("q", "a", system=system)
    messages.insert(len(messages) - 2, {"role": "assistant", "content": "Welcome!"})
    found = ask(messages, template=template)
    assert found["trained"] == ["a" + END] and "Welcome" not in found["text"]
    assert (system or "") in found["text"]


def test_one_row_that_the_template_refuses_is_the_rows_problem(ask: Ask) -> None:
    template = (
        "{% for m in messages %}{{ raise_exception('too rude') if 'damn' in m.content }}"
        "<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
        "{{ '<assistant>' if add_generation_prompt }}"
    )
    found = ask(turns("damn", "a"), template=template)
    assert (found["refused"], found["code"]) == ("RowProblem", "template_refuses")
    assert found["why"] == "is refused by the chat template (too rude)"
    assert ask(turns("q", "a"), template=template)["trained"] == ["a" + END]


def test_a_template_that_puts_the_date_in_front_is_no_trouble(ask: Ask) -> None:
    template = (
        "{{ strftime_now('%Y') }}\n{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}"
        "{{ eos_token }}{% endfor %}{{ '<assistant>' if add_generation_prompt }}"
    )
    found = ask(turns("q", " a ", "r", "b"), template=template)
    assert found["trained"] == ["a" + END, "b" + END]


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('Roles must alternate') }}",
        "{% for",
        "{{ messages[9].content }}",
        "{{ messages[0].nothing.more }}",
        "{{ messages[0].content.nothing() }}",
        "{{ messages[0].content + 5 }}",
        "{{ 1 / 0 }}",
        "{{ range(10000000) | list }}",
        "{{ messages[0].content.index('nowhere') }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    ],
)
def test_a_template_that_can_hold_no_conversation_is_a_mistake_of_the_model(
    ask: Ask, template: str
) -> None:
    """Found out before the first row, and said once rather than row by row."""
    found = ask(turns("q", "a"), template=template)
    assert (found["refused"], found["field"]) == ("UserError", "model.id")
    assert found["why"].startswith("The chat template of this model ")
    assert "Choose one of the standard chat templates" in found["why"]
    assert "\n" not in found["why"] and len(found["why"]) < 400
