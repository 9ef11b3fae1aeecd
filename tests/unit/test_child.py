"""Work in a process of its own: what comes back, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from training_backend.errors import StopRequested, UserError
from training_backend.export.child import ChildDied, ChildFailed, in_child

if sys.platform == "win32":
    pytest.skip("signals", allow_module_level=True)


def double(number: int) -> int:
    return 2 * number


def tell_and_double(tell: Any, number: int) -> int:
    tell(0.5, "half")
    tell(None, "more")
    return 2 * number


def refuse() -> None:
    raise UserError("odd", "The {what} is {{odd}}.", "Take {what} 2.", field="out", what="{x}")


def fail(kind: str, path: str) -> None:
    if kind == "missing":
        Path(path, "nowhere").read_bytes()
    if kind == "memory":
        raise MemoryError
    raise LookupError("nobody expected this")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(file: str) -> None:
    Path(file).write_text(str(os.getpid()), encoding="ascii")
    time.sleep(600)


def test_a_result_and_what_is_told_come_back_in_order() -> None:
    assert in_child(double, 21, name="test") == 42
    told: list[Any] = []
    assert in_child(tell_and_double, 4, name="test", tell=lambda *what: told.append(what)) == 8
    assert told == [(0.5, "half"), (None, "more")]


def test_a_refusal_comes_back_whole() -> None:
    with pytest.raises(UserError) as caught:
        in_child(refuse, name="test")
    error = caught.value
    assert (error.code, error.field, error.params) == ("odd", "out", {"what": "{x}"})
    assert str(error) == "The {x} is {odd}. Take {x} 2."


@pytest.mark.parametrize(
    ("kind", "error"),
    [("missing", FileNotFoundError), ("memory", MemoryError), ("unknown", ChildFailed)],
)
def test_other_errors_keep_their_kind(kind: str, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        in_child(fail, kind, str(tmp_path), name="test")


def test_a_death_is_told_with_its_exit_code() -> None:
    with pytest.raises(ChildDied) as caught:
        in_child(die, name="test")
    assert caught.value.exit_code == -9
    assert not caught.value.out_of_memory


def test_what_is_raised_meanwhile_ends_the_process_at_once(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def stop() -> None:
        if file.exists() and file.read_text():
            raise StopRequested

    began = time.monotonic()
    with pytest.raises(StopRequested):
        in_child(sleep, str(file), name="test", meanwhile=stop)
    assert time.monotonic() - began < 300
    assert not psutil.pid_exists(int(file.read_text()))
