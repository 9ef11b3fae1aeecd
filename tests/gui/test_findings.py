"""Findings with their fixes, and the histogram with its line."""

from __future__ import annotations

from typing import Any

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QInputDialog, QLabel, QPushButton
from pytestqt.qtbot import QtBot

from app.widgets.data.findings import FindingsCard
from app.widgets.data.length_histogram import LengthHistogram

NUMBERS = {
    "longest": 300, "max_length": 100, "cut_tokens_share": 0.25, "tokens": 400,
    "lengths": [(50, 2), (300, 1)], "histogram": [(1, 150, 2), (151, 300, 1)],
}  # fmt: skip


def finding(code: str, fix: str | None, severity: str = "warning", **more: Any) -> dict[str, Any]:
    return {
        "code": code, "fix": fix, "severity": severity, "count": 2, "rows": [4, 7],
        "message": f"About {code} in 2 rows.", **more,
    }  # fmt: skip


def report(*findings: dict[str, Any]) -> dict[str, Any]:
    return {"rows": 1200, "findings": list(findings), "numbers": NUMBERS, "notices": []}


@pytest.fixture
def card(qtbot: QtBot) -> FindingsCard:
    card = FindingsCard()
    qtbot.addWidget(card)
    card.resize(620, 300)
    card.show()
    return card


def press(card: FindingsCard, text: str) -> None:
    QApplication.processEvents()
    buttons = [b for b in card.findChildren(QPushButton) if b.isVisible()]
    next(b for b in buttons if b.text() == text).click()


def texts(card: FindingsCard) -> list[str]:
    QApplication.processEvents()
    return [label.text() for label in card.findChildren(QLabel) if label.isVisible()]


@pytest.mark.parametrize(
    ("code", "fix", "button", "asked"),
    [
        ("empty_answer", "drop_rows", "Leave them out", {"finding": "empty_answer", "rows": []}),
        ("near_duplicates", "drop_rows", "Leave them out", {"finding": None, "rows": [4, 7]}),
        ("duplicates", "deduplicate", "Keep one of each", {}),
        ("overlap", "drop_overlap", "Leave them out of the test", {}),
        ("control_tokens", "strip_control_tokens", "Remove the tokens", {}),
        ("encoding_damage", "repair_encoding", "Repair the texts", {}),
    ],
)
def test_fixes_are_one_click(
    card: FindingsCard, code: str, fix: str, button: str, asked: dict[str, Any]
) -> None:
    heard: list[Any] = []
    card.fix_requested.connect(heard.append)
    card.show_report(report(finding(code, fix)))
    assert "1,200 rows checked" in texts(card)
    assert "2 rows" in texts(card)
    press(card, button)
    assert heard == [{"code": fix, **asked}]


def test_texts_are_asked_for(card: FindingsCard, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    card.fix_requested.connect(heard.append)
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("Ann", True))
    monkeypatch.setattr(QInputDialog, "getMultiLineText", lambda *_: ("Be kind.", True))
    message = "Unfilled placeholders such as {{ name }} in 2 rows."
    card.show_report(report(finding("placeholders", "fill_placeholders", message=message)))
    press(card, "Fill it in")
    card.show_report(report(finding("own_system_prompt", "set_system_prompt")))
    press(card, "Set another")
    assert heard == [
        {"code": "fill_placeholders", "values": {"name": "Ann"}},
        {"code": "set_system_prompt", "text": "Be kind."},
    ]


def test_rows_are_shown_and_the_length_raised(card: FindingsCard) -> None:
    rows: list[Any] = []
    lengths: list[int] = []
    card.rows_requested.connect(lambda found, words: rows.append((found, words)))
    card.length_requested.connect(lengths.append)
    card.show_report(report(finding("truncated", "drop_rows")))
    press(card, "Show")
    press(card, "Raise the length to 320")
    assert rows[0][0] == [4, 7]
    assert "longer than 100 tokens" in rows[0][1]
    assert lengths == [320]


def test_progress_can_be_cancelled(card: FindingsCard) -> None:
    heard: list[str] = []
    card.cancel_requested.connect(lambda: heard.append("cancel"))
    card.show_progress(3000, 10_000)
    assert "3,000 of 10,000 rows" in texts(card)
    press(card, "Cancel")
    assert heard == ["cancel"]
    card.show_cancelled()
    asked: list[bool] = []
    card.check_requested.connect(asked.append)
    press(card, "Check again")
    assert asked == [False]


def test_fixes_in_force_can_be_undone(card: FindingsCard) -> None:
    removed: list[int] = []
    card.fix_removed.connect(removed.append)
    fixes = [{"code": "deduplicate"}, {"code": "drop_rows", "finding": "truncated", "rows": []}]
    card.show_fixes(fixes)
    assert "Of equal rows one is kept" in texts(card)
    assert "Left out: rows that are too long" in texts(card)
    press(card, "Undo")
    assert removed == [0]


def test_hostile_words_stay_text(card: FindingsCard) -> None:
    card.show_report(report(finding("odd", None, message="<img src=x> in 2 rows.")))
    assert "<img src=x> in 2 rows." in texts(card)
    assert all(label.textFormat() == Qt.TextFormat.PlainText for label in card.findChildren(QLabel))


def test_the_line_says_what_it_cuts_and_moves(qtbot: QtBot) -> None:
    histogram = LengthHistogram()
    qtbot.addWidget(histogram)
    histogram.resize(400, 220)
    histogram.show()
    histogram.set_max_length(100)
    histogram.show_numbers(NUMBERS)
    assert histogram.cut_share(100) == (1 / 3, 0.5)
    assert "33\u00a0% of the rows" in histogram._share.text()
    chosen: list[int] = []
    histogram.max_length_chosen.connect(chosen.append)
    qtbot.keyClick(histogram._plot, Qt.Key.Key_Right)
    assert chosen == [104]
    histogram._plot._line.setValue(301.7)  # as a drag does
    histogram._plot._line.sigPositionChangeFinished.emit(histogram._plot._line)
    assert chosen == [104, 304]
    assert "no row is cut" in histogram._share.text()
    assert histogram._plot.length() == 304
