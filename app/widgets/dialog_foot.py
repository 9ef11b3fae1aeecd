"""The last row of a dialog: Cancel, and the button that does what the dialog is for."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton

from app.widgets.card import SecondaryButton


def dialog_foot(dialog: QDialog, act: QPushButton, note: QLabel | None = None) -> QHBoxLayout:
    """Enter presses `act`, Escape and Cancel reject the dialog; a note stands before them."""
    cancel = SecondaryButton(QCoreApplication.translate("DialogFoot", "Cancel"))
    cancel.clicked.connect(dialog.reject)
    act.setDefault(True)
    row = QHBoxLayout()
    row.setSpacing(12)
    if note is not None:
        row.addWidget(note, 1)
    else:
        row.addStretch(1)
    row.addWidget(cancel)
    row.addWidget(act)
    return row
