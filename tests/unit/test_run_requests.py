"""Who asked a run to stop is known at its end; what a person asks comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training_backend.lifecycle import run_requests
from training_backend.lifecycle.run_requests import Requests


@pytest.fixture
def requests(tmp_path: Path) -> Requests:
    return Requests(tmp_path / "requests")


@pytest.mark.parametrize("reason", ["sleep", "system"])
def test_a_stop_that_the_computer_asked_for_says_why(requests: Requests, reason: Any) -> None:
    requests.ask_to_stop(reason)
    assert requests.is_asked("stop")
    assert requests.pending() == ["stop"]
    assert requests.stop_reason() == reason


def test_the_person_s_stop_outdoes_the_computer_s_before_and_after(requests: Requests) -> None:
    requests.ask_to_stop("sleep")
    requests.ask("stop")
    assert requests.stop_reason() == "asked"
    requests.ask_to_stop("sleep")
    assert requests.stop_reason() == "asked"


def test_what_else_stands_in_the_file_counts_as_the_person(requests: Requests) -> None:
    requests.ask("stop")
    for content in (b"sleep or so", b"\xff\xfe"):
        (requests.folder / "stop").write_bytes(content)
        assert requests.stop_reason() == "asked"


def test_on_a_full_disk_it_is_asked_without_a_reason(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_requests, "write_text_atomic", full)
    requests.ask_to_stop("sleep")
    assert requests.is_asked("stop")
    assert requests.stop_reason() == "asked"
