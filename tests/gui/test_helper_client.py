"""The window's link to the helper, with a real helper process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot
from shiboken6 import delete

from app.helper_client import HelperClient
from training_backend.errors import UserError

NO_DATA = {"model": {"id": "demo"}, "dataset": {"path": "/no/such/file.jsonl"}}


# Workers of earlier tests, which may still be on their way out.
others: set[int] = set()


@pytest.fixture
def client(qapp: object) -> Iterator[HelperClient]:
    others.clear()
    others.update(process.pid for process in psutil.Process().children())
    client = HelperClient()
    yield client
    client.shutdown()


def helpers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children()
        if process.pid not in others and "spawn_main" in _command(process)
    ]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def ask(client: HelperClient, owner: QObject, kind: str = "preview", **more: Any) -> list[Any]:
    heard: list[Any] = []
    client.ask(kind, {"job": NO_DATA, "start": 0} | more, heard.append, heard.append, owner)
    return heard


def test_an_error_is_the_error_of_the_backend(qtbot: QtBot, client: HelperClient) -> None:
    heard = ask(client, client)
    qtbot.waitUntil(lambda: bool(heard))
    (error,) = heard
    assert isinstance(error, UserError)
    assert (error.code, error.field) == ("demo_model_not_ready", "model.id")
    assert "{" not in str(error)


def test_only_the_newest_of_a_kind_is_answered(qtbot: QtBot, client: HelperClient) -> None:
    old = ask(client, client)
    new = ask(client, client)
    other = ask(client, client, "lint")
    qtbot.waitUntil(lambda: bool(new and other))
    assert old == []
    assert not client.is_asked("preview")


def test_what_another_owner_asks_takes_no_answer_away(qtbot: QtBot, client: HelperClient) -> None:
    others, leaver = QObject(), QObject()
    first = ask(client, others)
    left = ask(client, leaver)
    second = ask(client, client)
    client.cancel("preview", leaver)
    qtbot.waitUntil(lambda: bool(first and second))
    assert left == []


def test_nothing_is_called_for_an_owner_that_is_gone(qtbot: QtBot, client: HelperClient) -> None:
    owner = QObject()
    heard = ask(client, owner)
    owner.deleteLater()
    last = ask(client, client, "lint")
    qtbot.waitUntil(lambda: bool(last) and not client.is_asked("preview"))
    assert heard == []


def test_what_an_owner_that_is_gone_asked_keeps_nobody_waiting(
    qtbot: QtBot, client: HelperClient
) -> None:
    owner = QObject()
    ask(client, owner, "lint")
    delete(owner)
    assert client.is_asked("lint")
    heard = ask(client, client)
    assert not client.is_asked("lint") and client.is_asked("preview")
    qtbot.waitUntil(lambda: bool(heard))


def test_the_helper_that_has_torch_ends_when_its_question_is_taken_back(
    qtbot: QtBot, client: HelperClient
) -> None:
    heard = ask(client, client, "layers")
    qtbot.waitUntil(lambda: bool(helpers()))
    client.cancel("layers", client)
    qtbot.waitUntil(lambda: not helpers())
    assert heard == []


def test_a_helper_that_dies_is_replaced(qtbot: QtBot, client: HelperClient) -> None:
    heard = ask(client, client)
    qtbot.waitUntil(lambda: bool(helpers()))
    helpers()[0].kill()
    qtbot.waitUntil(lambda: bool(heard))
    assert heard[0].code == "demo_model_not_ready"  # asked again, of the next one


def test_one_that_kills_every_helper_is_told(qtbot: QtBot, client: HelperClient) -> None:
    heard = ask(client, client)
    for _ in range(2):
        qtbot.waitUntil(lambda: bool(helpers()))
        victim = helpers()[0]
        victim.kill()
        qtbot.waitUntil(lambda victim=victim: victim not in helpers())
    qtbot.waitUntil(lambda: bool(heard))
    assert heard[0].code == "helper_died"


def test_it_ends_at_once(qtbot: QtBot, client: HelperClient) -> None:
    client.warm_up()
    qtbot.waitUntil(lambda: bool(helpers()))
    client.shutdown()
    assert helpers() == []
    assert ask(client, client) == []
