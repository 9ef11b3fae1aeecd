"""What Ollama is told of a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import go_template
from tests.gguf_files import CHATML, write_gguf
from training_backend.errors import UserError
from training_backend.export import gguf_file, ollama_modelfile


def as_ollama_reads(text: str) -> list[tuple[str, str]]:
    """Commands and values, as Ollama's `parser.ParseFile` takes them: signs that cannot be seen
    are dropped, and a value ends with the first line after which its quotation is closed."""
    text = "".join(sign for sign in text if sign.isprintable() or sign in "\n\t")
    found = []
    lines = text.split("\n")
    while lines:
        line = lines.pop(0)
        if not line or line.startswith("#"):
            continue
        command, _, value = line.partition(" ")
        if command == "PARAMETER":
            command, _, value = value.partition(" ")
        while (read := unquoted(value.strip())) is None:
            value += "\n" + lines.pop(0)
        found.append((command, read))
    return found


def unquoted(value: str) -> str | None:
    for mark in ('"""', '"'):
        if value.startswith(mark):
            whole = len(value) >= 2 * len(mark) and value.endswith(mark)
            return value[len(mark) : -len(mark)] if whole else None
    return value


def told(path: Path, **config: Any) -> tuple[dict[str, str], list[str]]:
    """What a Modelfile written for the file says: one value of each kind, and all stops."""
    generation = path.with_name("generation_config.json")
    generation.write_text(json.dumps(config), "utf-8")
    ollama_modelfile.write(path, generation)
    text = path.with_name("Modelfile").read_text("utf-8")
    said = as_ollama_reads(text)
    return dict(said), [value for command, value in said if command == "stop"]


def test_it_names_the_file_the_template_and_where_an_answer_ends(tmp_path: Path) -> None:
    said, stops = told(write_gguf(tmp_path / "my model-Q8_0.gguf"))
    assert said["FROM"] == "./my model-Q8_0.gguf"
    chat = {"Messages": [{"Role": "user", "Content": 'Say "hi"'}]}
    assert go_template.render(said["TEMPLATE"], chat) == (
        '<|im_start|>user\nSay "hi"<|im_end|>\n<|im_start|>assistant\n'
    )
    assert stops == ["<|im_end|>", "</s>"]


def test_ends_that_only_the_generation_config_names_are_told_once_each(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", tokenizer__ggml__eot_token_id=4)
    assert told(path, eos_token_id=[2, 5, 99])[1] == ["<|im_end|>", "</s>", "hello"]
    assert told(path, eos_token_id=5)[1][-1] == "hello"
    assert told(path, eos_token_id="x")[1] == ["<|im_end|>", "</s>"]


def test_the_first_token_is_not_written_twice(tmp_path: Path) -> None:
    template = "{{ bos_token }}" + CHATML.read_text("utf-8")
    chat = {"Messages": [{"Role": "user", "Content": "a"}]}
    for number, (entries, begins) in enumerate(
        (
            ({"tokenizer__ggml__add_bos_token": True}, "<|im_start|>"),
            ({"tokenizer__ggml__add_bos_token": False}, "<s><|im_start|>"),
            ({"tokenizer__ggml__model": "llama"}, "<|im_start|>"),
            ({"tokenizer__ggml__model": "gpt2"}, "<s><|im_start|>"),
        )
    ):
        said, _ = told(write_gguf(tmp_path / f"{number}.gguf", template, **entries))
        assert go_template.render(said["TEMPLATE"], chat).startswith(begins), entries


def test_how_the_model_is_meant_to_be_asked_goes_along(tmp_path: Path) -> None:
    said, _ = told(
        write_gguf(
            tmp_path / "a.gguf", general__sampling__temp=0.6, general__sampling__top_k=20,
            general__sampling__top_p=0.95, general__sampling__min_p=float("nan"),
        )
    )  # fmt: skip
    assert (said["temperature"], said["top_k"], said["top_p"]) == ("0.6", "20", "0.95")
    assert "min_p" not in said


def test_a_template_without_tokens_ends_at_the_next_question(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:\n{% endif %}"
    )
    assert told(write_gguf(tmp_path / "a.gguf", template))[1] == ["### user:", "</s>"]


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("", "ollama_no_template"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "ollama_template_left_out"),
        ("{% for m in messages %}{{ m.content }}<{{ loop.index }}>{% endfor %}",
         "ollama_template_left_out"),
        ("{% for m", "ollama_template_left_out"),
    ],
)  # fmt: skip
def test_without_a_template_that_ollama_can_take_it_says_why(
    template: str, code: str, tmp_path: Path
) -> None:
    made = ollama_modelfile.compose(gguf_file.read(write_gguf(tmp_path / "a.gguf", template)))
    assert made.problem is not None and made.problem.code == code
    assert f"# {made.problem}" in made.text
    said = as_ollama_reads(made.text)
    assert said == [("FROM", "./a.gguf"), ("stop", "</s>")]


def test_nothing_in_a_file_becomes_a_command_of_its_own(tmp_path: Path) -> None:
    """A GGUF file may come from anywhere; a Modelfile can name any file of this computer."""
    evil = "\nADAPTER /etc/passwd\n"
    refuses = "{{ raise_exception('x\nADAPTER /etc/passwd\n') }}"
    writes = "{% for m in messages %}{{ m.content }}" + f'"""{evil}' + "{% endfor %}"
    for number, template in enumerate((refuses, writes)):
        tokens = ["<unk>", "<s>", f'"""{evil}', f'a"{evil}', "b\u200b", f"c{evil}d"]
        path = write_gguf(
            tmp_path / f"{number}.gguf", template,
            tokenizer__ggml__tokens=tokens, tokenizer__ggml__token_type=[3] * len(tokens),
        )  # fmt: skip
        ollama_modelfile.write(path)
        ends = [str(token) for token in tokens]
        text = ollama_modelfile.compose(gguf_file.read(path), ends).text
        for said in (
            as_ollama_reads(path.with_name("Modelfile").read_text("utf-8")),
            as_ollama_reads(text),
        ):
            assert {command for command, _ in said} <= {"FROM", "TEMPLATE", "stop"}
            assert said[0] == ("FROM", f"./{number}.gguf")
        assert ("stop", f"c{evil}d") in as_ollama_reads(text)
    hidden = tmp_path / f"a{evil.replace('/', '')}.gguf"
    with pytest.raises(UserError, match="signs that cannot be seen"):
        ollama_modelfile.write(hidden)


def test_a_file_cut_short_is_a_sentence(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"a\.gguf is no whole GGUF file"):
        ollama_modelfile.write(path)
