"""What to change so that a job fits, or what to spend free memory on: one press each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont
from PySide6.QtWidgets import (
    QDialog,
    QFrame,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.widgets import figures
from app.widgets.card import (
    PrimaryButton,
    SecondaryButton,
    page_title,
    plain_label,
    scroll_area,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from app.widgets.settings import memory_words
from training_backend.memory.make_fit import Plan, Suggestion
from training_backend.vram import Estimate


class FitDialog(QDialog):
    """`chosen` carries the changes.

    Args:
        estimate: None where memory cannot be told beforehand; then no sizes are shown.
        facts: of a run that ran out of memory, in the place of the estimate's verdict.
        resumes: of such a run, whether it can go on with changes; else they begin a new one.
            Without it the changes are the draft's, and each press is one step of undo.
    """

    chosen = Signal(dict)

    def __init__(
        self,
        estimate: Estimate | None,
        plan: Plan,
        suggestions: list[Suggestion],
        parent: QWidget | None = None,
        *,
        facts: str = "",
        resumes: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("fitDialog")
        self._estimate = estimate
        self._resumes = resumes
        fit = estimate.fit if estimate is not None else "does_not_fit"
        spending = fit == "comfortable"
        titles = {
            "comfortable": self.tr("Use the free memory"),
            "tight": self.tr("Make more room"),
            "does_not_fit": self.tr("Make it fit"),
        }
        self.setWindowTitle(titles[fit])
        self.resize(760, 560)
        outer = dialog_layout(self)
        outer.addWidget(page_title(self.windowTitle()))
        if estimate is not None and not facts:
            facts = memory_words.verdict(estimate)[0]
        words = plain_label(facts, wrap=True)
        words.setFont(theme.font(13, tabular=True))
        outer.addWidget(words)
        if plan.steps:
            outer.addWidget(self._plan_box(plan))
        content = QWidget()
        content.setObjectName("scrolled")
        rows = QVBoxLayout(content)
        rows.setContentsMargins(0, 0, 12, 0)
        rows.setSpacing(8)
        if suggestions:
            rows.addWidget(
                secondary_label(
                    self.tr("Each of these alone; the first ones do the least harm.")
                    if not spending
                    else self.tr("Each step still learns from as many rows.")
                )
            )
        else:
            rows.addWidget(
                secondary_label(
                    self.tr("There is nothing to change that would fit comfortably too.")
                    if spending
                    else self.tr("No setting is left that would need less memory."),
                    wrap=True,
                )
            )
        for suggestion in suggestions:
            rows.addWidget(self._row(suggestion))
        rows.addStretch(1)
        area = scroll_area(content)
        outer.addWidget(area, 1)
        foot = QHBoxLayout()
        foot.addWidget(secondary_label(self._foot(), wrap=True), 1)
        close = SecondaryButton(self.tr("Close"))
        close.clicked.connect(self.reject)
        foot.addWidget(close)
        outer.addLayout(foot)

    def _foot(self) -> str:
        if self._resumes is None:
            return self.tr("Undo takes any of these back.")
        return self.tr(
            "Resume goes on with the same run from its newest checkpoint. A new run begins at its "
            "first step, since what was learned does not fit the change; the old one stays."
        )

    def _what_then(self, changes: dict[str, Any], plain: str) -> str:
        """The words on a button: also what becomes of the run."""
        if self._resumes is None:
            return plain
        return self.tr("Apply and resume") if self._resumes(changes) else self.tr("Start a new run")

    def _plan_box(self, plan: Plan) -> QWidget:
        box = QFrame()
        box.setProperty("boxed", True)
        layout = QHBoxLayout(box)
        layout.setContentsMargins(12, 10, 12, 10)
        layout.setSpacing(16)
        texts = QVBoxLayout()
        texts.setSpacing(2)
        needed = figures.gigabytes(plan.total_bytes)
        if self._resumes is not None:  # what was measured is not to be told by an estimate
            enough = (
                self.tr("These together are likely to be enough:")
                if len(plan.steps) > 1
                else self.tr("This is likely to be enough:")
            )
            too_little = self.tr("All that there is to change is likely not to be enough:")
            said = enough if plan.fits else too_little
        elif plan.fits and self._estimate is not None:
            said = self.tr("These together make it fit, with {needed} of {free}:").format(
                needed=figures.decimal(plan.total_bytes / figures.GIGABYTE, 1),
                free=figures.gigabytes(self._estimate.device.available_bytes),
            )
        else:
            said = self.tr("All of these together still need {needed}, which is too much:")
            said = said.format(needed=needed)
        head = plain_label(said, wrap=True)
        head.setFont(theme.font(13, QFont.Weight.DemiBold))
        texts.addWidget(head)
        for step in plan.steps:
            texts.addWidget(plain_label(f"•  {step.title}", wrap=True))
        layout.addLayout(texts, 1)
        apply = PrimaryButton(self._what_then(plan.changes, self.tr("Do all of this")))
        apply.setObjectName("fitPlanButton")
        apply.setProperty("primary", True)
        apply.setVisible(plan.fits)
        apply.clicked.connect(partial(self._choose, plan.changes))
        layout.addWidget(apply, 0, Qt.AlignmentFlag.AlignTop)
        return box

    def _row(self, suggestion: Suggestion) -> QWidget:
        row = QFrame()
        row.setProperty("boxed", True)
        layout = QHBoxLayout(row)
        layout.setContentsMargins(12, 10, 12, 10)
        layout.setSpacing(16)
        texts = QVBoxLayout()
        texts.setSpacing(2)
        title = plain_label(suggestion.title, wrap=True)
        title.setFont(theme.font(13, QFont.Weight.DemiBold))
        texts.addWidget(title)
        texts.addWidget(secondary_label(suggestion.cost, wrap=True))
        layout.addLayout(texts, 1)
        numbers = plain_label(self._numbers(suggestion) if self._estimate is not None else "")
        numbers.setFont(theme.font(13, tabular=True))
        numbers.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        layout.addWidget(numbers)
        apply = SecondaryButton(self._what_then(suggestion.changes, self.tr("Apply")))
        apply.setObjectName(f"fit_{suggestion.code}")
        apply.setAccessibleName(f"{apply.text()}: {suggestion.title}")
        apply.clicked.connect(partial(self._choose, suggestion.changes))
        layout.addWidget(apply, 0, Qt.AlignmentFlag.AlignVCenter)
        return row

    def _numbers(self, suggestion: Suggestion) -> str:
        amount = figures.size(abs(suggestion.saved_bytes))
        text = (
            self.tr("saves {amount}") if suggestion.saved_bytes >= 0 else self.tr("takes {amount}")
        ).format(amount=amount)
        if suggestion.saved_bytes < 0:
            return text
        then = {
            "comfortable": self.tr("then it fits"),
            "tight": self.tr("then it just fits"),
            "does_not_fit": self.tr("not enough"),
        }
        return f"{text}\n{then[suggestion.fit]}"

    def _choose(self, changes: dict[str, Any]) -> None:
        self.chosen.emit(changes)
        self.accept()
