"""Hostile chat templates are stopped in a child process; sound ones pass."""

from __future__ import annotations

import time

import pytest

from training_backend.data import safe_template
from training_backend.data.safe_template import render_safely
from training_backend.errors import UserError

ASK = {"messages": [{"role": "user", "content": "Hi"}]}


def test_a_sound_template_is_rendered_with_its_variables() -> None:
    template = "{{ bos_token }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"  # noqa: E501
    (rendering,) = render_safely(template, {"bos_token": "<s>"}, [ASK])
    assert rendering.text == "<s>Hi"


def test_a_refusal_of_the_template_is_no_error_of_the_template() -> None:
    (rendering,) = render_safely("{{ raise_exception('no system') }}", {}, [ASK])
    assert rendering.text is None and rendering.error == "no system"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
         "does not come to an end"),
        ("{% set ns = namespace(x='a') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}"
         "{% endfor %}{{ ns.x }}", None),
        ("{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", None),
        ("{% for m in messages %}", "not a valid one"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "too deeply nested"),
    ],
)  # fmt: skip
def test_hostile_templates_are_stopped(
    template: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = reason == "does not come to an end"
    monkeypatch.setattr(safe_template, "MAX_SECONDS", 2.0 if endless else 120.0)
    began = time.monotonic()
    if reason is None:
        (rendering,) = render_safely(template, {}, [ASK])
        assert rendering.text is None and rendering.error
    else:
        with pytest.raises(UserError, match=reason) as caught:
            render_safely(template, {}, [ASK])
        assert caught.value.field == "model.id"
    assert time.monotonic() - began < 300


def test_the_sandbox_keeps_python_out_of_reach() -> None:
    (rendering,) = render_safely("{{ ''.__class__.__mro__ }}", {}, [ASK])
    assert not rendering.text or "class" not in rendering.text


def test_a_template_is_tried_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    first = render_safely("once {{ messages[0].content }}", {}, [ASK])

    def no_other(method: str) -> None:
        pytest.fail("it was tried again")

    monkeypatch.setattr(safe_template.multiprocessing, "get_context", no_other)
    assert render_safely("once {{ messages[0].content }}", {}, [ASK]) == first
