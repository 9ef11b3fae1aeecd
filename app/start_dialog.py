"""What to do when Start was pressed for a job that does not seem to fit."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from app.question import Role, ask


def ask_about_memory(
    parent: QWidget, verdict: str, on_fit: Callable[[], None], on_start: Callable[[], None]
) -> None:
    """Ask, without blocking; cancelling calls neither."""

    def tr(text: str) -> str:
        return QCoreApplication.translate("StartDialog", text)

    ask(
        parent,
        "startDialog",
        tr("The memory will probably not suffice"),
        tr(
            "{verdict}. The run would end with an error when the memory is full, or the computer "
            "become very slow."
        ).format(verdict=verdict),
        [
            (tr("Make it fit"), Role.AcceptRole, on_fit),
            (tr("Start anyway"), Role.DestructiveRole, on_start),
        ],
        tr("Cancel"),
    )
