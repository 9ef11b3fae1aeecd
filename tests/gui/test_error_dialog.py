"""What nobody foresaw is shown, once, as plain text; errors read as sentences."""

from __future__ import annotations

import sys

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication, QMessageBox
from pytestqt.qtbot import QtBot

from app import error_dialog, i18n
from training_backend.errors import UserError


def boxes() -> list[QMessageBox]:
    return [w for w in QApplication.topLevelWidgets() if isinstance(w, QMessageBox)]


def test_defect_is_shown_once_with_details(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    error_dialog.install_excepthook()
    for _ in range(2):  # the second must not pile up
        try:
            raise RuntimeError("<b>bang</b>")
        except RuntimeError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    [box] = boxes()
    assert box.textFormat() == Qt.TextFormat.PlainText
    assert "RuntimeError: <b>bang</b>" in box.detailedText()
    box.done(0)
    qtbot.waitUntil(lambda: not boxes())
    error_dialog.show_error(None, "Title", UserError("x", "What.", "Do this."))
    shown = next(box for box in boxes() if box.isVisible())
    assert shown.informativeText() == "What. Do this."
    shown.done(0)


def test_errors_read_as_sentences() -> None:
    error = UserError("data_missing", "There is no file {path}.", "Choose another.", path="/x")
    assert i18n.explain(error) == "There is no file /x. Choose another."
    assert i18n.explain(ValueError("odd")) == "odd"
    assert i18n.explain(ValueError()) == "ValueError"


def test_figures_have_units_and_separators() -> None:
    assert i18n.integer(1204) == "1,204"
    assert i18n.number(10.26) == "10.3"
    assert i18n.size(272_588_000) == "272.6 MB"
