"""Small things that buttons do, and which of them stands out."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices
from PySide6.QtWidgets import QAbstractButton


def open_folder(folder: Path) -> None:
    """Show a folder in the system's file manager; a file, which it might start, is let be."""
    if folder.is_dir():
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))


def set_primary(button: QAbstractButton, primary: bool) -> None:
    """Let a button stand out, or no longer: what comes next changes with a run's state."""
    if button.property("primary") != primary:
        button.setProperty("primary", primary)
        button.style().unpolish(button)
        button.style().polish(button)
