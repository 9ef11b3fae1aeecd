"""A chat template that turns bad only at a certain row is stopped, and says so."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from training_backend.data import bounded as module
from training_backend.data import safe_template
from training_backend.data.bounded import bounded
from training_backend.errors import UserError

MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_template, "MAX_SECONDS", 1.0)
    monkeypatch.setattr(module, "LOOKS_EVERY", 0.05)
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)


def rendered(template: str, content: str) -> Any:
    program = safe_template._compiled(template)
    with bounded():
        return program.render(messages=[{"role": "user", "content": content}])


LOOPS = (
    "{% if 'trap' in messages[0].content %}{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}"
)
GROWS = (
    "{% if 'trap' in messages[0].content %}{% set ns = namespace(x=['a'] * 1000) %}"
    "{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% for b in range(50000) %}{% endfor %}"
    "{% endfor %}{% endif %}{{ messages[0].content }}"
)


def test_one_that_runs_for_ever_at_a_certain_row_is_stopped_there() -> None:
    assert rendered(LOOPS, "fine") == "fine"
    began = time.monotonic()
    with pytest.raises(UserError, match="does not come to an end within 1 second") as caught:
        rendered(LOOPS, "a trap")
    assert time.monotonic() - began < 200
    assert (caught.value.code, caught.value.field) == ("template_refused", "model.id")
    assert rendered(LOOPS, "fine again") == "fine again"  # nothing is left over


def test_one_that_fills_the_memory_at_a_certain_row_is_stopped_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(safe_template, "MAX_SECONDS", 300.0)
    monkeypatch.setattr(safe_template, "MAX_BYTES", 50 * MEGABYTE)
    with pytest.raises(UserError, match="asks for more memory than a template may"):
        rendered(GROWS, "a trap")


def test_each_thread_is_stopped_for_its_own_rendering_alone() -> None:
    ends: dict[str, object] = {}

    def run(content: str) -> None:
        try:
            until = time.monotonic() + 2.5
            while content == "fine" and time.monotonic() < until:
                rendered(LOOPS, content)
            ends[content] = rendered(LOOPS, content)
        except UserError as error:
            ends[content] = error.code

    threads = [threading.Thread(target=run, args=(content,)) for content in ("fine", "trap")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert ends == {"fine": "fine", "trap": "template_refused"}


def test_the_thread_that_looks_on_ends_when_nothing_is_rendered() -> None:
    rendered(LOOPS, "fine")
    assert any(thread.name == "template-bound" for thread in threading.enumerate())
    until = time.monotonic() + 200
    while any(thread.name == "template-bound" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert rendered(LOOPS, "fine") == "fine"


def test_what_a_template_raises_itself_comes_through() -> None:
    with pytest.raises(Exception, match="no system"):
        rendered("{{ raise_exception('no system') }}", "")
