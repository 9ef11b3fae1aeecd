"""Suggested settings for what a person wants to reach: each with its reason, each optional."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QFont
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.background import Latest
from app.i18n import explain
from app.widgets import figures
from app.widgets.card import (
    ErrorLabel,
    PrimaryButton,
    SecondaryButton,
    page_title,
    plain_label,
    scroll_area,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from app.widgets.settings import setting_words
from training_backend import catalog
from training_backend.computer.devices import Device
from training_backend.job import TrainingJob
from training_backend.memory.make_fit import Lengths
from training_backend.starting_points import advisor
from training_backend.starting_points.advisor import Advice, Goal
from training_backend.vram import TraceNeeded


@dataclass(frozen=True)
class Situation:
    """What the advice depends on beside the goal."""

    job: TrainingJob
    device: Device
    lengths: Lengths | None

    def advise(self, goal: Goal) -> tuple[list[Advice], list[str]]:
        """Reads what is known of the model from the disk; not on the GUI thread."""
        rows = sum(count for _, count in self.lengths) if self.lengths else None
        return advisor.advise(
            self.job,
            goal,
            self.device,
            parameters=catalog.describe_model(self.job.model.id).parameters,
            rows=rows,
            lengths=self.lengths,
        )


class AdvisorDialog(QDialog):
    """`chosen` carries the ticked changes, one step of undo.

    Args:
        value_of: what a field holds now.
    """

    chosen = Signal(dict)

    def __init__(
        self,
        situation: Situation,
        value_of: Callable[[str], Any],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("advisorDialog")
        self.setWindowTitle(self.tr("Suggest settings"))
        self.resize(860, 640)
        self._situation = situation
        self._value_of = value_of
        self._boxes: dict[QCheckBox, Advice] = {}
        self._advice = Latest(self)
        outer = dialog_layout(self)
        outer.addWidget(page_title(self.windowTitle()))
        outer.addWidget(secondary_label(self.tr("What should the model learn from your data?")))
        outer.addLayout(self._goal_choice())
        self._problem = ErrorLabel("advisorProblem")
        outer.addWidget(self._problem)
        self._content = QWidget()
        self._content.setObjectName("scrolled")
        self._rows = QVBoxLayout(self._content)
        self._rows.setContentsMargins(0, 0, 12, 0)
        area = scroll_area(self._content)
        outer.addWidget(area, 1)
        foot = QHBoxLayout()
        foot.setSpacing(12)
        foot.addWidget(secondary_label(self.tr("All of it stays yours to change.")))
        foot.addStretch(1)
        close = SecondaryButton(self.tr("Close"))
        close.clicked.connect(self.reject)
        self._apply = PrimaryButton(self.tr("Apply"))
        self._apply.setObjectName("advisorApply")
        self._apply.setDefault(True)
        self._apply.clicked.connect(self._choose)
        foot.addWidget(close)
        foot.addWidget(self._apply)
        outer.addLayout(foot)
        self._ask("style")

    def _goal_choice(self) -> QGridLayout:
        texts: dict[Goal, tuple[str, str]] = {
            "style": (self.tr("A style"), self.tr("how our support team writes")),
            "facts": (self.tr("New facts"), self.tr("our products and their numbers")),
            "format": (self.tr("A format"), self.tr("always answer as JSON")),
            "reasoning": (self.tr("Reasoning"), self.tr("solve problems step by step")),
        }
        grid = QGridLayout()
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(0)
        self._goals = QButtonGroup(self)
        for column, (goal, (title, example)) in enumerate(texts.items()):
            radio = QRadioButton(title)
            radio.setObjectName(f"goal_{goal}")
            radio.setAccessibleDescription(example)
            radio.setFont(theme.font(13, QFont.Weight.DemiBold))
            radio.setChecked(goal == "style")
            radio.toggled.connect(lambda on, goal=goal: self._ask(goal) if on else None)
            self._goals.addButton(radio)
            grid.addWidget(radio, 0, column)
            note = secondary_label(example)
            note.setContentsMargins(28, 0, 0, 0)
            grid.addWidget(note, 1, column)
            grid.setColumnStretch(column, 1)
        return grid

    def _ask(self, goal: Goal) -> None:
        self._apply.setEnabled(False)
        self._advice.ask(
            lambda: self._situation.advise(goal), lambda found: self._show(*found), self._on_error
        )

    def _on_error(self, error: Exception) -> None:
        known = not isinstance(error, TraceNeeded)
        self._problem.show_error(
            explain(error) if known else self.tr("The model is still being looked at; try again.")
        )

    def _show(self, found: list[Advice], remarks: list[str]) -> None:
        self._problem.show_error("")
        while (item := self._rows.takeAt(0)) is not None:
            if (widget := item.widget()) is not None:
                widget.setParent(None)
                widget.deleteLater()
        self._boxes = {}
        for remark in remarks:
            label = plain_label(remark, wrap=True)
            label.setProperty("role", "careful")
            self._rows.addWidget(label)
        self._rows.addWidget(self._table(found))
        self._rows.addStretch(1)
        self._count()

    def _table(self, found: list[Advice]) -> QWidget:
        holder = QWidget()
        grid = QGridLayout(holder)
        grid.setContentsMargins(0, 4, 0, 0)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(6)
        grid.setColumnStretch(3, 1)
        heads = (self.tr("Setting"), self.tr("Now"), self.tr("Suggested"), self.tr("Why"))
        for column, head in enumerate(heads):
            grid.addWidget(secondary_label(head), 0, column)
        top = Qt.AlignmentFlag.AlignTop
        for row, advice in enumerate(found, start=1):
            now = self._value_of(advice.field)
            differs = now != advice.value
            if differs:
                box = QCheckBox(setting_words.title(advice.field))
                box.setChecked(True)
                box.toggled.connect(lambda _: self._count())
                box.setAccessibleDescription(advice.reason)
                self._boxes[box] = advice
                grid.addWidget(box, row, 0, top)
            else:
                name = secondary_label(setting_words.title(advice.field))
                name.setContentsMargins(28, 6, 0, 0)
                grid.addWidget(name, row, 0, top)
            for column, text in (
                (1, setting_words.value(now, advice.field)),
                (2, setting_words.value(advice.value, advice.field)),
            ):
                label = plain_label(text) if differs else secondary_label(text)
                label.setFont(theme.font(13, tabular=True))
                label.setContentsMargins(0, 6, 0, 0)
                grid.addWidget(label, row, column, top)
            why = self.tr("Is so already. {reason}").format(reason=advice.reason)
            why = advice.reason if differs else why
            reason = secondary_label(why, wrap=True)
            reason.setContentsMargins(0, 6, 0, 0)
            grid.addWidget(reason, row, 3, top)
        return holder

    def _count(self) -> None:
        count = sum(box.isChecked() for box in self._boxes)
        self._apply.setEnabled(count > 0)
        self._apply.setText(
            self.tr("Apply {count}").format(count=figures.count(count))
            if count
            else self.tr("Nothing to change")
        )
        self._apply.setAccessibleName(self._apply.text())

    def _choose(self) -> None:
        picked = [advice for box, advice in self._boxes.items() if box.isChecked()]
        self.chosen.emit({advice.field: advice.value for advice in picked})
        self.accept()
