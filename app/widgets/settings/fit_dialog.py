"""What to change so that a job fits, or what to spend free memory on: one press each."""

from __future__ import annotations

from functools import partial
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont
from PySide6.QtWidgets import (
    QDialog,
    QFrame,
    QHBoxLayout,
    QScrollArea,
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
    secondary_label,
)
from app.widgets.settings import memory_words
from training_backend.memory.make_fit import Plan, Suggestion
from training_backend.vram import Estimate


class FitDialog(QDialog):
    """`chosen` carries the changes; each press is one step of undo."""

    chosen = Signal(dict)

    def __init__(
        self,
        estimate: Estimate,
        plan: Plan,
        suggestions: list[Suggestion],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("fitDialog")
        self._estimate = estimate
        spending = estimate.fit == "comfortable"
        titles = {
            "comfortable": self.tr("Use the free memory"),
            "tight": self.tr("Make more room"),
            "does_not_fit": self.tr("Make it fit"),
        }
        self.setWindowTitle(titles[estimate.fit])
        self.resize(760, 560)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(24, 20, 24, 20)
        outer.setSpacing(12)
        outer.addWidget(page_title(self.windowTitle()))
        words = plain_label(memory_words.verdict(estimate)[0], wrap=True)
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
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(content)
        outer.addWidget(area, 1)
        foot = QHBoxLayout()
        foot.addWidget(secondary_label(self.tr("Undo takes any of these back.")))
        foot.addStretch(1)
        close = SecondaryButton(self.tr("Close"))
        close.clicked.connect(self.reject)
        foot.addWidget(close)
        outer.addLayout(foot)

    def _plan_box(self, plan: Plan) -> QWidget:
        box = QFrame()
        box.setProperty("boxed", True)
        layout = QHBoxLayout(box)
        layout.setContentsMargins(12, 10, 12, 10)
        layout.setSpacing(16)
        texts = QVBoxLayout()
        texts.setSpacing(2)
        needed = figures.gigabytes(plan.total_bytes)
        head = plain_label(
            self.tr("These together make it fit, with {needed} of {free}:").format(
                needed=figures.decimal(plan.total_bytes / figures.GIGABYTE, 1),
                free=figures.gigabytes(self._estimate.device.available_bytes),
            )
            if plan.fits
            else self.tr("All of these together still need {needed}, which is too much:").format(
                needed=needed
            ),
            wrap=True,
        )
        head.setFont(theme.font(13, QFont.Weight.DemiBold))
        texts.addWidget(head)
        for step in plan.steps:
            texts.addWidget(plain_label(f"•  {step.title}", wrap=True))
        layout.addLayout(texts, 1)
        apply = PrimaryButton(self.tr("Do all of this"))
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
        numbers = plain_label(self._numbers(suggestion))
        numbers.setFont(theme.font(13, tabular=True))
        numbers.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        layout.addWidget(numbers)
        apply = SecondaryButton(self.tr("Apply"))
        apply.setObjectName(f"fit_{suggestion.code}")
        apply.setAccessibleName(self.tr("Apply: {title}").format(title=suggestion.title))
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
