"""What to do with a run that is under way when the window is closed."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QMessageBox, QWidget


def ask_about_training(
    parent: QWidget, on_stop: Callable[[], None], on_keep: Callable[[], None]
) -> None:
    """Ask, without blocking; cancelling calls neither."""

    def tr(text: str) -> str:
        return QCoreApplication.translate("CloseDialog", text)

    box = QMessageBox(parent)
    box.setObjectName("closeDialog")
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setWindowTitle("Lorasmith")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(tr("Training is under way"))
    box.setInformativeText(
        tr(
            "It can be stopped now and go on later from where it was, or carry on without the "
            "window. The next start of Lorasmith finds it again."
        )
    )
    stop = box.addButton(tr("Stop and save"), QMessageBox.ButtonRole.AcceptRole)
    keep = box.addButton(
        tr("Keep training in the background"), QMessageBox.ButtonRole.DestructiveRole
    )
    cancel = box.addButton(tr("Cancel"), QMessageBox.ButtonRole.RejectRole)
    box.setEscapeButton(cancel)
    box.setDefaultButton(cancel)

    def decided() -> None:
        clicked = box.clickedButton()
        if clicked is stop:
            on_stop()
        elif clicked is keep:
            on_keep()

    box.finished.connect(decided)
    box.open()
