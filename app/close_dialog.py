"""What to do with a run that is under way when the window is closed."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from app.question import Role, ask


def ask_about_training(
    parent: QWidget, waiting: int, on_stop: Callable[[], None], on_keep: Callable[[], None]
) -> None:
    """Ask, without blocking; cancelling calls neither.

    Args:
        waiting: how many runs are in the queue.
    """

    def tr(text: str) -> str:
        return QCoreApplication.translate("CloseDialog", text)

    details = tr(
        "It can be stopped now and go on later from where it was, or carry on without the "
        "window. The next start of Lorasmith finds it again."
    )
    if waiting:
        details += " " + tr("Runs in the queue wait until then: without the window none starts.")
    ask(
        parent,
        "closeDialog",
        tr("Training is under way"),
        details,
        [
            (tr("Stop and save"), Role.AcceptRole, on_stop),
            (tr("Keep training in the background"), Role.DestructiveRole, on_keep),
        ],
        tr("Cancel"),
    )
