"""Where the token for the Hugging Face Hub is entered, tested and removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLineEdit, QWidget

from app.background import Latest
from app.helper_client import HelperClient
from app.i18n import explain
from app.widgets.card import (
    ErrorLabel,
    PrimaryButton,
    SecondaryButton,
    plain_label,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from training_backend import preferences
from training_backend.hub import hub_token
from training_backend.hub.hub_token import Place


class TokenDialog(QDialog):
    """The token goes from its field to `hub_token.store`, in a thread, and nowhere else.

    Args:
        to_write: whether it is for sending models rather than for fetching them.
    """

    stored = Signal()

    def __init__(
        self, helper: HelperClient, parent: QWidget | None = None, *, to_write: bool = False
    ) -> None:
        super().__init__(parent)
        self.setObjectName("tokenDialog")
        self.setWindowTitle(self.tr("Access to the Hugging Face Hub"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(520)
        self._helper = helper
        self._told = ""
        self._found = Latest(self)
        column = dialog_layout(self)
        explanation = self.tr(
            "A token tells the Hub who you are, so that models open to you can be downloaded. "
            "Make one on huggingface.co, under Settings, Access tokens; the right to read is "
            "enough."
        )
        if to_write:
            explanation = self.tr(
                "A token tells the Hub who you are, so that it takes your models. Make one on "
                "huggingface.co, under Settings, Access tokens, with the right to write."
            )
        column.addWidget(plain_label(explanation, wrap=True))
        column.addLayout(self._entry_row())
        self._error = ErrorLabel("error_token")
        column.addWidget(self._error)
        self._place = secondary_label(self.tr("Looking for a token…"), wrap=True)
        self._place.setObjectName("tokenPlace")
        column.addWidget(self._place)
        column.addLayout(self._button_row())
        self._found.ask(hub_token.place, self._show_place, self._on_error)

    def _entry_row(self) -> QHBoxLayout:
        self._edit = QLineEdit()
        self._edit.setObjectName("tokenEdit")
        self._edit.setAccessibleName(self.tr("Token"))
        self._edit.setPlaceholderText("hf_…")
        self._edit.setEchoMode(QLineEdit.EchoMode.Password)
        self._edit.setInputMethodHints(Qt.InputMethodHint.ImhSensitiveData)
        self._edit.textChanged.connect(self._on_text)
        self._paste = SecondaryButton(self.tr("Paste"))
        self._paste.clicked.connect(lambda: self._edit.setText(QGuiApplication.clipboard().text()))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._edit, 1)
        row.addWidget(self._paste)
        return row

    def _button_row(self) -> QHBoxLayout:
        self._remove = SecondaryButton(self.tr("Remove token"))
        self._remove.setObjectName("tokenRemove")
        self._remove.setVisible(False)
        self._remove.clicked.connect(self._forget)
        self._test = SecondaryButton(self.tr("Test"))
        self._test.setObjectName("tokenTest")
        self._test.setVisible(False)
        self._test.clicked.connect(self._check)
        close = SecondaryButton(self.tr("Close"))
        close.clicked.connect(self.accept)
        self._save = PrimaryButton(self.tr("Keep and test"))
        self._save.setObjectName("tokenSave")
        self._save.setEnabled(False)
        self._save.setDefault(True)
        self._save.clicked.connect(self._store)
        row = QHBoxLayout()
        row.setSpacing(8)
        for button in (self._remove, self._test):
            button.setAutoDefault(False)
            row.addWidget(button)
        row.addStretch(1)
        close.setAutoDefault(False)
        row.addWidget(close)
        row.addWidget(self._save)
        return row

    # ---------------------------------------------------------------------------- what is done

    def _store(self) -> None:
        token = self._edit.text()
        self._edit.clear()
        self._begin(lambda: hub_token.store(token), self._on_stored)

    def _forget(self) -> None:
        def forget() -> Place:
            hub_token.forget()
            return hub_token.place()

        self._begin(forget, self._show_place)

    def _begin(self, act: Callable[[], Place], on_done: Callable[[Place], None]) -> None:
        self._error.show_error("")
        self._set_busy(True)
        self._found.ask(act, on_done, self._on_error)

    def _on_stored(self, place: Place) -> None:
        self._show_place(place)
        self.stored.emit()
        self._check()

    def _check(self) -> None:
        """Ask the Hub whose token it is."""
        self._error.show_error("")
        if preferences.is_offline():
            self._add(self.tr("It is not tested: “work offline” is switched on."))
            return
        self._set_busy(True)
        self._add(self.tr("Testing…"))
        self._helper.ask("check_token", {}, self._on_checked, self._on_error, self)

    def _on_checked(self, answer: dict[str, Any]) -> None:
        self._set_busy(False)
        self._add(self.tr("The Hub knows it as {name}.").format(name=answer["name"]))

    # --------------------------------------------------------------------------- what is shown

    def _on_text(self, text: str) -> None:
        self._error.show_error("")
        self._save.setEnabled(bool(text.strip()))

    def _show_place(self, place: Place) -> None:
        self._set_busy(False)
        self._told = {
            "keyring": self.tr("A token is kept in this system's keyring."),
            "file": self.tr(
                "A token is kept in a file that only you can read ({file}); there is no keyring "
                "here."
            ).format(file="hub-token"),
            "environment": self.tr("The token of the variable HF_TOKEN is used."),
            "hf": self.tr("The token that the command hf keeps is used."),
            "": self.tr("No token is kept. Yours goes to the system's keyring, or where there is "
                        "none to a file that only you can read."),
        }[place]  # fmt: skip
        self._place.setText(self._told)
        self._remove.setVisible(place in ("keyring", "file"))
        self._test.setVisible(bool(place))

    def _add(self, text: str) -> None:
        self._place.setText(f"{self._told} {text}")

    def _on_error(self, error: Exception) -> None:
        self._set_busy(False)
        self._place.setText(self._told)
        self._error.show_error(explain(error))

    def _set_busy(self, busy: bool) -> None:
        for part in (self._edit, self._paste, self._remove, self._test):
            part.setEnabled(not busy)
        self._save.setEnabled(not busy and bool(self._edit.text().strip()))
