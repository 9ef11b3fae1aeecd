"""Work off the GUI thread comes back on it, and never to somebody who is gone."""

from __future__ import annotations

import threading

from PySide6.QtCore import QCoreApplication, QObject
from pytestqt.qtbot import QtBot
from shiboken6 import delete

from app import background
from app.background import Latest, run_in_background


def test_result_arrives_on_the_gui_thread(qtbot: QtBot) -> None:
    seen: list[tuple[int, bool]] = []
    owner = QObject()
    main = threading.main_thread()

    def done(value: int) -> None:
        seen.append((value, threading.current_thread() is main))

    run_in_background(lambda: 3, done, lambda error: None, owner)
    qtbot.waitUntil(lambda: bool(seen))
    assert seen == [(3, True)]


def test_error_arrives_as_error(qtbot: QtBot) -> None:
    errors: list[Exception] = []
    owner = QObject()
    run_in_background(lambda: 1 // 0, lambda value: None, errors.append, owner)
    qtbot.waitUntil(lambda: bool(errors))
    assert isinstance(errors[0], ZeroDivisionError)


def test_nothing_is_called_for_a_destroyed_owner(qtbot: QtBot) -> None:
    go = threading.Event()
    called: list[object] = []
    owner = QObject()
    run_in_background(go.wait, called.append, called.append, owner)
    delete(owner)
    go.set()
    background.shutdown()
    qtbot.wait(50)
    assert called == []


def test_of_several_questions_only_the_newest_is_answered(qtbot: QtBot) -> None:
    may_answer = threading.Event()
    owner, taken = QObject(), list[str]()
    latest = Latest(owner)
    latest.ask(lambda: _slow("old", may_answer), taken.append, lambda error: None)
    latest.ask(lambda: "new", taken.append, lambda error: None)
    qtbot.waitUntil(lambda: bool(taken))
    may_answer.set()
    _wait_for_late_answers()
    assert taken == ["new"]


def test_an_older_question_answered_first_is_not_taken_either(qtbot: QtBot) -> None:
    may_answer = threading.Event()
    owner, taken = QObject(), list[str]()
    latest = Latest(owner)
    latest.ask(lambda: "old", taken.append, lambda error: None)
    latest.ask(lambda: _slow("new", may_answer), taken.append, lambda error: None)
    qtbot.wait(50)
    assert taken == []
    may_answer.set()
    qtbot.waitUntil(lambda: bool(taken))
    assert taken == ["new"]


def test_what_went_wrong_with_an_older_question_is_not_told(qtbot: QtBot) -> None:
    may_answer = threading.Event()
    owner, taken, errors = QObject(), list[str](), list[Exception]()

    def fail() -> str:
        raise ValueError(_slow("old", may_answer))

    latest = Latest(owner)
    latest.ask(fail, taken.append, errors.append)
    latest.ask(lambda: "new", taken.append, errors.append)
    qtbot.waitUntil(lambda: bool(taken))
    may_answer.set()
    _wait_for_late_answers()
    assert taken == ["new"]
    assert errors == []


def test_what_is_forgotten_is_not_answered_and_the_next_question_is(qtbot: QtBot) -> None:
    owner, taken = QObject(), list[str]()
    latest = Latest(owner)
    latest.ask(lambda: "old", taken.append, lambda error: None)
    latest.forget()
    _wait_for_late_answers()
    assert taken == []
    latest.ask(lambda: "new", taken.append, lambda error: None)
    qtbot.waitUntil(lambda: bool(taken))
    assert taken == ["new"]


def test_the_same_question_asked_too_often_is_answered_and_never_goes_back(qtbot: QtBot) -> None:
    may_answer = threading.Event()
    owner, taken = QObject(), list[str]()
    latest = Latest(owner, same=True)
    latest.ask(lambda: _slow("oldest", may_answer), taken.append, lambda error: None)
    second = threading.Event()
    latest.ask(lambda: "older", taken.append, lambda error: None)
    latest.ask(lambda: _slow("newest", second), taken.append, lambda error: None)
    qtbot.waitUntil(lambda: taken == ["older"])  # though it is not the newest
    may_answer.set()
    qtbot.wait(50)
    assert taken == ["older"]
    second.set()
    qtbot.waitUntil(lambda: taken == ["older", "newest"])


def _slow(answer: str, may_answer: threading.Event) -> str:
    may_answer.wait(120)
    return answer


def _wait_for_late_answers() -> None:
    background.shutdown()
    QCoreApplication.processEvents()
