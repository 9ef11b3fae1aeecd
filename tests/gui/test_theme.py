"""Colours, fonts and the plain parts."""

from __future__ import annotations

import dataclasses
import sys

import pytest
from PySide6 import QtGui
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFontInfo, QFontMetrics
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from app import theme
from app.theme import DARK, LIGHT, Palette
from app.widgets.card import Card, ElidedLabel, ErrorLabel, SecondaryButton, plain_label


def contrast(one: str, other: str) -> float:
    def luminance(name: str) -> float:
        parts = QColor(name).getRgbF()[:3]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read(palette: Palette) -> None:
    for role in ("text", "secondary", "accent", "good", "careful", "bad"):
        assert contrast(getattr(palette, role), palette.panel) >= 4.5, role
    for text, ground in (
        (palette.on_accent, palette.accent),
        (palette.text, palette.accent_soft),
        (palette.accent, palette.accent_soft),
        (palette.text, palette.token_trained_bg),
        (palette.text, palette.background),
        (palette.secondary, palette.background),
    ):
        assert contrast(text, ground) >= 4.5, (text, ground)


def test_every_role_is_a_colour() -> None:
    for palette in (LIGHT, DARK):
        for field in dataclasses.fields(palette):
            if field.name != "name":
                assert palette.color(field.name).isValid(), field.name


def test_changing_the_theme_tells_who_paints(qtbot: QtBot, qapp: QApplication) -> None:
    with qtbot.waitSignal(theme.notifier.changed):
        theme.apply(qapp, "dark")
    assert theme.current() is DARK
    theme.apply(qapp, "light")
    assert theme.current() is LIGHT


def test_fonts_are_ours_and_figures_keep_their_width(qapp: QApplication) -> None:
    assert QFontInfo(theme.font()).family() == "Inter"
    metrics = QFontMetrics(theme.font(18, tabular=True))
    assert metrics.horizontalAdvance("1111") == metrics.horizontalAdvance("8888")
    assert QFontInfo(theme.mono_font()).fixedPitch()


def test_none_keeps_its_references(qtbot: QtBot) -> None:
    """PySide6 6.12.0 loses one reference to None a call on Python 3.11, then aborts."""
    label = QLabel()
    qtbot.addWidget(label)
    before = sys.getrefcount(None)
    for count in range(1000):
        label.setText(str(count))
    assert abs(sys.getrefcount(None) - before) < 100


def test_long_names_are_cut_in_the_middle(qtbot: QtBot) -> None:
    name = "/home/somebody/" + "a-very-long-folder-name/" * 8 + "model"
    label = ElidedLabel(name)
    qtbot.addWidget(label)
    label.resize(200, 20)
    label.show()
    shown = QLabel.text(label)
    assert "…" in shown
    assert shown.endswith("model")
    assert label.text() == name
    assert name in label.toolTip()


def test_text_from_outside_is_never_markup(qtbot: QtBot) -> None:
    hostile = '<img src="file:///etc/passwd"><b>bold</b>'
    card = Card(hostile)
    qtbot.addWidget(card)
    error = ErrorLabel("error_x")
    error.show_error(hostile)
    card.body.addWidget(error)
    card.body.addWidget(plain_label(hostile))
    elided = ElidedLabel(hostile)
    elided.resize(40, 20)
    card.body.addWidget(elided)
    for label in card.findChildren(QLabel):
        assert label.textFormat() == Qt.TextFormat.PlainText
        assert not QtGui.Qt.mightBeRichText(label.toolTip())


def test_buttons_have_names_and_take_the_focus(qtbot: QtBot) -> None:
    button = SecondaryButton("Choose file")
    qtbot.addWidget(button)
    assert button.accessibleName() == "Choose file"
    assert button.focusPolicy() & Qt.FocusPolicy.TabFocus
