"""What every dialog is made of: its column, and its last row."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from app.widgets.card import SecondaryButton


def dialog_layout(dialog: QDialog, spacing: int = 12) -> QVBoxLayout:
    """The layout of a whole dialog, with a dialog's margins."""
    column = QVBoxLayout(dialog)
    column.setContentsMargins(24, 20, 24, 20)
    column.setSpacing(spacing)
    return column


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
