"""How the runs of the queue ended while nobody looked, each with what can be done next."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QCoreApplication, Qt, Signal
from PySide6.QtWidgets import QGridLayout, QWidget

from app.models.sweep_shown import sweep_of
from app.widgets import figures, wording
from app.widgets.card import (
    Card,
    ElidedLabel,
    QuietButton,
    SecondaryButton,
    plain_label,
    secondary_label,
)
from training_backend.queueing import queue_summary
from training_backend.summaries.run_facts import RunFacts

MOST_ROWS = 3  # the rest is in the list of runs


class SummaryCard(Card):
    """Hidden until `show_ended`, and again after Dismiss."""

    open_requested = Signal(object)  # Run
    resume_requested = Signal(object)  # Run
    compare_requested = Signal(str)  # a sweep's id
    dismissed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(self.tr("While you were away"), parent)
        self.setObjectName("summaryCard")
        self._sentence = secondary_label()
        self.add_legend(self._sentence)
        dismiss = QuietButton(self.tr("Dismiss"))
        dismiss.setObjectName("dismissSummaryButton")
        dismiss.clicked.connect(self._dismiss)
        self.add_right(dismiss)
        self._rows = QWidget()
        self.body.addWidget(self._rows)
        self.hide()

    def show_ended(self, ended: list[RunFacts], waiting: int) -> None:
        """What ended, the newest first; those that did not come to their end before all others.

        Args:
            waiting: how many runs are still in the queue.
        """
        self._sentence.setText(queue_summary.sentence(ended, waiting))
        self.body.removeWidget(self._rows)
        self._rows.deleteLater()
        self._rows = QWidget()
        grid = QGridLayout(self._rows)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(6)
        grid.setColumnStretch(2, 1)
        ordered = sorted(ended, key=lambda one: (one.state == "completed", -(one.ended or 0.0)))
        for row, one in enumerate(ordered[:MOST_ROWS]):
            self._add(grid, row, one)
        more = len(ordered) - MOST_ROWS
        if more > 0:
            text = self.tr("{count} more in the list below.").format(count=figures.count(more))
            grid.addWidget(secondary_label(text), MOST_ROWS, 0, 1, 4)
        self.body.addWidget(self._rows)
        self.show()

    def _add(self, grid: QGridLayout, row: int, one: RunFacts) -> None:
        name = ElidedLabel(one.name)
        name.setFixedWidth(240)
        state = plain_label(wording.state_word(one.state))
        role = wording.state_role(one.state)
        state.setProperty("role", "error" if role == "bad" else role)
        what = ElidedLabel(one.cause or _result(one))
        what.setProperty("role", "secondary")
        text, act = self._action(one)
        button = SecondaryButton(text)
        button.setAccessibleName(f"{text}: {one.name}")
        button.clicked.connect(act)
        for column, widget in enumerate((name, state, what, button)):
            grid.addWidget(widget, row, column, Qt.AlignmentFlag.AlignVCenter)

    def _action(self, one: RunFacts) -> tuple[str, Callable[[], None]]:
        """What is to be done next, in a word."""
        saved = any(one.run.checkpoints.glob("checkpoint-*"))
        if one.state != "completed" and saved:
            return self.tr("Resume"), lambda: self.resume_requested.emit(one.run)
        sweep = sweep_of(one.run) if one.state == "completed" else ""
        if sweep:
            return self.tr("Compare this sweep"), lambda: self.compare_requested.emit(sweep)
        return self.tr("Open"), lambda: self.open_requested.emit(one.run)

    def _dismiss(self) -> None:
        self.hide()
        self.dismissed.emit()


def _result(one: RunFacts) -> str:
    """Loss and time: `held-out loss 1.420, 25 min`."""
    parts = []
    if one.held_out_loss is not None:
        parts.append(_tr("held-out loss {loss}").format(loss=figures.loss(one.held_out_loss)))
    elif one.train_loss is not None:
        parts.append(_tr("loss {loss}").format(loss=figures.loss(one.train_loss)))
    parts.append(figures.duration(one.seconds))
    return ", ".join(parts)


def _tr(text: str) -> str:
    return QCoreApplication.translate("SummaryCard", text)
