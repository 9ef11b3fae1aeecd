"""What to do when Start was pressed for a job that does not seem to fit."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QMessageBox, QWidget


def ask_about_memory(
    parent: QWidget, verdict: str, on_fit: Callable[[], None], on_start: Callable[[], None]
) -> None:
    """Ask, without blocking; cancelling calls neither."""

    def tr(text: str) -> str:
        return QCoreApplication.translate("StartDialog", text)

    box = QMessageBox(parent)
    box.setObjectName("startDialog")
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setWindowTitle("Lorasmith")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(tr("The memory will probably not suffice"))
    box.setInformativeText(
        tr(
            "{verdict}. The run would end with an error when the memory is full, or the computer "
            "become very slow."
        ).format(verdict=verdict)
    )
    fit = box.addButton(tr("Make it fit"), QMessageBox.ButtonRole.AcceptRole)
    start = box.addButton(tr("Start anyway"), QMessageBox.ButtonRole.DestructiveRole)
    cancel = box.addButton(tr("Cancel"), QMessageBox.ButtonRole.RejectRole)
    box.setEscapeButton(cancel)
    box.setDefaultButton(fit)

    def decided() -> None:
        clicked = box.clickedButton()
        if clicked is fit:
            on_fit()
        elif clicked is start:
            on_start()

    box.finished.connect(decided)
    box.open()
