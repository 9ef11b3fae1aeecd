"""What is asked before a start: of a job that seems too large, of runs left in the queue."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from app.dialogs.question import Role, ask
from app.i18n import integer


def ask_about_memory(
    parent: QWidget, verdict: str, on_fit: Callable[[], None], on_start: Callable[[], None]
) -> None:
    """Ask, without blocking; cancelling calls neither."""
    ask(
        parent,
        "startDialog",
        _tr("The memory will probably not suffice"),
        _tr(
            "{verdict}. The run would end with an error when the memory is full, or the computer "
            "become very slow."
        ).format(verdict=verdict),
        [
            (_tr("Make it fit"), Role.AcceptRole, on_fit),
            (_tr("Start anyway"), Role.DestructiveRole, on_start),
        ],
        _tr("Cancel"),
    )


def ask_about_queue(parent: QWidget, waiting: int, on_start: Callable[[], None]) -> None:
    """Ask, without blocking, whether runs that an earlier window left are to be done now."""
    if waiting == 1:
        text = _tr("1 run waits in the queue")
        details = _tr("It can be started now, or wait on the Runs page.")
    else:
        text = _tr("{count} runs wait in the queue").format(count=integer(waiting))
        details = _tr("They can be started now, one after the other, or wait on the Runs page.")
    ask(
        parent,
        "queueDialog",
        text,
        details,
        [(_tr("Start queue"), Role.AcceptRole, on_start)],
        _tr("Not now"),
    )


def _tr(text: str) -> str:
    return QCoreApplication.translate("StartDialog", text)
