"""The dialog for what went wrong outside any field, and the net below everything else."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QMessageBox, QWidget

from app.i18n import explain
from app.widgets.wording import sentence

logger = logging.getLogger(__name__)
_open: QMessageBox | None = None  # held here, since one without a parent has no other owner


def show_error(parent: QWidget | None, title: str, error: Exception) -> None:
    """Say what went wrong and what to do. Does not block; there is one at a time."""
    _show(parent, title, explain(error), "")


def install_excepthook() -> None:
    """Show a defect of ours instead of swallowing it or ending the program."""
    sys.excepthook = _on_defect


def _on_defect(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        QCoreApplication.quit()
        return
    details = "".join(traceback.format_exception(kind, error, trace))
    logger.error("unexpected error\n%s", details)
    _show(
        None,
        QCoreApplication.translate("ErrorDialog", "Something unexpected happened"),
        QCoreApplication.translate(
            "ErrorDialog",
            "This is a mistake in Lorasmith, not in what you did. Training that is under way "
            "carries on. The details below help to mend it.",
        ),
        details,
    )


def _show(parent: QWidget | None, title: str, message: str, details: str) -> None:
    global _open
    if _open is not None:
        return
    _open = box = QMessageBox(parent)
    box.setObjectName("errorDialog")
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setIcon(QMessageBox.Icon.Warning)
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setWindowTitle("Lorasmith")
    box.setText(sentence(title))
    box.setInformativeText(sentence(message))
    box.setDetailedText(details)
    box.destroyed.connect(_done)
    box.open()


def _done() -> None:
    global _open
    _open = None
