"""Tokens on screen: plain text, marks, the cut, and what is said of each token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from PySide6.QtGui import QColor, QTextCursor
from pytestqt.qtbot import QtBot

from app import theme
from app.widgets.data.sequence_card import SequenceCard
from app.widgets.data.token_view import TokenView
from app.widgets.wording import visible


def token(text: str, **more: Any) -> dict[str, Any]:
    return {"id": 7, "text": text, "trained": False, "special": False, "mark": None, **more}


def row(*tokens: dict[str, Any], **more: Any) -> dict[str, Any]:
    trained = sum(one["trained"] for one in tokens)
    count = len(tokens)
    return {
        "index": 0, "tokens": list(tokens), "n_tokens": count, "n_tokens_full": count,
        "n_trained": trained, "truncated": False, **more,
    }  # fmt: skip


@pytest.fixture
def view(qtbot: QtBot) -> TokenView:
    view = TokenView()
    qtbot.addWidget(view)
    view.resize(600, 200)
    view.show()
    return view


def test_hostile_texts_stand_there_as_text(view: TokenView) -> None:
    view.show_row(row(token("<img src='file:///etc/passwd'><b>"), token("a\u202eb\x00\u2028c")), 9)
    assert "<img src='file:///etc/passwd'><b>" in view.toPlainText()
    assert "a⟨U+202E⟩b⟨U+0000⟩⟨U+2028⟩c" in view.toPlainText()
    assert visible("\ud800") == "⟨U+D800⟩"
    assert visible("👩\u200d👧 é\n\t") == "👩\u200d👧 é\n\t"


def test_tokens_are_told_apart(view: TokenView) -> None:
    tokens = (
        token("<s>", special=True, mark="bos"),
        token("Hi 😀 "),
        token("you", trained=True),
        token("</s>", trained=True, special=True, mark="eos"),
    )
    view.show_row(row(*tokens), 9)
    assert view.toPlainText() == "<s>Hi 😀 you</s>"
    assert view.describe(0) == "token 1: id 7, <s>, read only, begins a text (BOS)"
    at = len("<s>Hi 😀 ".encode("utf-16-le")) // 2
    assert view.describe(at) == "token 3: id 7, you, learned from"
    assert "ends an answer (EOS)" in view.describe(at + 3)
    cursor = view.textCursor()
    cursor.setPosition(at + 1)
    assert cursor.charFormat().foreground().color() == QColor(theme.current().text)
    picture = view.grab().toImage()
    colours = {
        picture.pixelColor(x, y).name().upper()
        for x in range(0, picture.width(), 2)
        for y in range(0, 60, 2)
    }
    assert theme.current().token_trained_bg in colours
    assert theme.current().token_special_bg in colours


def test_the_cut_is_drawn(view: TokenView) -> None:
    cut = row(token("one "), truncated=True, n_tokens_full=3, cut_text="two three")
    view.show_row(cut, 1)
    assert view.toPlainText() == "one cut at 1 tokenstwo three"
    cursor = view.textCursor()
    cursor.movePosition(QTextCursor.MoveOperation.End)
    assert cursor.charFormat().fontStrikeOut()
    assert view.describe(len(view.toPlainText()) - 2) == ""


def test_pointing_is_reported_but_filling_is_not(qtbot: QtBot, view: TokenView) -> None:
    heard: list[str] = []
    view.pointed.connect(heard.append)
    view.show_row(row(token("one"), token("two")), 9)
    assert heard == []
    view.moveCursor(QTextCursor.MoveOperation.End)
    assert heard == ["token 2: id 7, two, read only"]


def test_theme_changes_the_colours(qtbot: QtBot, view: TokenView, qapp: Any) -> None:
    view.show_row(row(token("you", trained=True)), 9)
    theme.apply(qapp, "dark")
    cursor = view.textCursor()
    cursor.setPosition(1)
    assert cursor.charFormat().foreground().color() == QColor(theme.DARK.text)
    theme.apply(qapp, "light")


def test_card_counts_and_tells(qtbot: QtBot) -> None:
    card = SequenceCard()
    qtbot.addWidget(card)
    many = row(token("a", trained=True), token("b"), n_tokens=9000, truncated=False)
    many["n_tokens_full"] = 9000
    card.show_row({"rows": [many], "max_length": 10_000})
    assert card._tokens.text() == "9,000 tokens, 1 learned from"
    assert "Only the first 2 tokens are shown." in card._foot.text()
    card.show_row({"rows": [row(token("a"), truncated=True, n_tokens_full=5)], "max_length": 1})
    assert card._tokens.text() == "1 of 5 tokens kept, 0 learned from"
    assert "4 tokens are lost" in card._foot.text()
    card.show_row({"rows": [], "max_length": 1})
    assert "left out by a fix" in card._foot.text()


def test_of_the_longest_row_only_what_is_seen_is_painted(
    view: TokenView, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [token("abcdefg", trained=bool(place % 2)) for place in range(4000)]
    view.show_row(row(*tokens), 5000)
    painted: list[Any] = []
    paint_line = TokenView._paint_line

    def count(self: TokenView, *given: Any) -> None:
        painted.append(given)
        paint_line(self, *given)

    monkeypatch.setattr(TokenView, "_paint_line", count)
    view.grab()
    view.verticalScrollBar().setValue(view.verticalScrollBar().maximum())
    view.grab()
    lines = sum(block_lines(view))
    assert lines > 200
    assert 0 < len(painted) < lines / 5


def block_lines(view: TokenView) -> Iterator[int]:
    """How many lines each paragraph of a view has."""
    block = view.document().firstBlock()
    while block.isValid():
        yield block.layout().lineCount()
        block = block.next()
