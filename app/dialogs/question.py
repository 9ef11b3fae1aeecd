"""A question with named answers, asked without blocking."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QMessageBox, QWidget

from app.widgets.wording import sentence

Role = QMessageBox.ButtonRole
Answer = tuple[str, Role, Callable[[], None]]


def ask(
    parent: QWidget, name: str, text: str, details: str, answers: list[Answer], cancel: str
) -> None:
    """Calls what belongs to the answer; cancelling, which is also Escape, calls nothing.

    Args:
        name: the dialog's object name.
        answers: label, role and what to call.
        cancel: label of the way out, which is also what Enter chooses.
    """
    box = QMessageBox(parent)
    box.setObjectName(name)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setWindowTitle("Lorasmith")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(sentence(text))
    box.setInformativeText(sentence(details))
    buttons = [(box.addButton(label, role), act) for label, role, act in answers]
    leave = box.addButton(cancel, Role.RejectRole)
    box.setEscapeButton(leave)
    box.setDefaultButton(leave)

    def decided() -> None:
        for button, act in buttons:
            if box.clickedButton() is button:
                act()

    box.finished.connect(decided)
    box.open()
