"""What to do with a run or an export that is under way when the window is closed."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from app.dialogs.question import Role, ask

NAME = "closeDialog"
EXPORT_NAME = "closeExportDialog"


def ask_about_training(
    parent: QWidget,
    waiting: int,
    has_tray: bool,
    on_stop: Callable[[], None],
    on_keep: Callable[[], None],
) -> None:
    """Ask, without blocking; cancelling calls neither.

    Args:
        waiting: how many runs are in the queue.
        has_tray: whether the window can go to the tray; it is minimised otherwise.
    """

    def tr(text: str) -> str:
        return QCoreApplication.translate("CloseDialog", text)

    if has_tray:
        keep = tr("Keep training in the tray")
        kept = tr("In the tray, training goes on without the window. A click on the icon shows it.")
    else:
        keep = tr("Keep training, minimised")
        kept = tr("Minimised, training goes on; this desktop has no tray to hide the window in.")
    stopped = tr(
        "Stopped, the run can go on later from where it was; Lorasmith closes once it is saved."
    )
    if waiting:
        kept += " " + tr("The queue goes on, too.")
        stopped += " " + tr("The queue waits for your return.")
    ask(
        parent,
        NAME,
        tr("Training is under way"),
        f"{kept}\n\n{stopped}",
        [
            (keep, Role.AcceptRole, on_keep),
            (tr("Stop and save"), Role.DestructiveRole, on_stop),
        ],
        tr("Stay open"),
    )


def ask_about_export(
    parent: QWidget, on_close: Callable[[], None], on_cancel: Callable[[], None]
) -> None:
    """As `ask_about_training`. An export needs no window; the next one follows it again."""

    def tr(text: str) -> str:
        return QCoreApplication.translate("CloseDialog", text)

    ask(
        parent,
        EXPORT_NAME,
        tr("An export is under way"),
        tr(
            "It goes on without the window, and the Export page shows it at the next start. "
            "Cancelled, it leaves nothing behind; only what is being checked already is kept."
        ),
        [
            (tr("Close, the export goes on"), Role.AcceptRole, on_close),
            (tr("Cancel the export and close"), Role.DestructiveRole, on_cancel),
        ],
        tr("Stay open"),
    )
