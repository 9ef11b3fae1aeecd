"""What is asked before a start: of a job that seems too large, of what an earlier window left."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication
from PySide6.QtWidgets import QWidget

from app.dialogs.question import Role, ask
from app.i18n import integer
from app.widgets.wording import one_line
from training_backend.protocol import StopReason


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


def ask_about_queue(
    parent: QWidget, waiting: int, on_start: Callable[[], None], *, under_way: bool
) -> None:
    """Ask, without blocking, whether runs that an earlier window left are to be done now.

    Args:
        under_way: whether a run is, which they would have to wait for.
    """
    if waiting == 1:
        text = _tr("1 run waits in the queue")
        details = _tr("It can be started now, or wait on the Runs page.")
        following = _tr("It can follow the run that is under way, or wait on the Runs page.")
    else:
        text = _tr("{count} runs wait in the queue").format(count=integer(waiting))
        details = _tr("They can be started now, one after the other, or wait on the Runs page.")
        following = _tr("They can follow the run that is under way, or wait on the Runs page.")
    ask(
        parent,
        "queueDialog",
        text,
        following if under_way else details,
        [(_tr("Go on with the queue") if under_way else _tr("Start queue"), Role.AcceptRole,
          on_start)],
        _tr("Not now"),
    )  # fmt: skip


def ask_about_cut_off(
    parent: QWidget,
    name: str,
    reason: StopReason | None,
    step: int | None,
    waiting: int,
    on_go_on: Callable[[], None],
) -> None:
    """Ask, without blocking, whether a run is to go on that was not ended by the person.

    Args:
        reason: what had it stop; None where it was cut off in the midst of its work.
        step: up to which all is saved; None when nothing is.
        waiting: how many runs of the queue would follow it.
    """
    if reason == "sleep":
        text = _tr("“{name}” was stopped when the computer went to sleep")
    elif reason == "system":
        text = _tr("“{name}” was stopped when the session or the computer ended")
    else:
        text = _tr("“{name}” was interrupted")
    if step is None:
        details = _tr("Nothing was saved yet, so it would begin anew.")
    else:
        details = _tr("Everything up to step {step} is saved; it can go on from there.").format(
            step=integer(step)
        )
    if waiting == 1:
        details += " " + _tr("The run that waits in the queue follows it.")
    elif waiting:
        more = _tr("The {count} runs that wait in the queue follow it.")
        details += " " + more.format(count=integer(waiting))
    ask(
        parent,
        "cutOffDialog",
        text.format(name=one_line(name)),
        details,
        [(_tr("Go on") if step is not None else _tr("Begin anew"), Role.AcceptRole, on_go_on)],
        _tr("Not now"),
    )


def _tr(text: str) -> str:
    return QCoreApplication.translate("StartDialog", text)
