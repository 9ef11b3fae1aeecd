"""By how much a run that has ended is to be trained longer, and what that means for it."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QDialog, QHBoxLayout, QWidget

from app.widgets import figures
from app.widgets.card import (
    PrimaryButton,
    page_title,
    plain_label,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_foot, dialog_layout
from app.widgets.inputs import NumberEdit
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.lifecycle.extend import CONSTANT, Reached, longer


class ExtendDialog(QDialog):
    """`chosen` carries the longer job."""

    chosen = Signal(object)  # TrainingJob

    def __init__(self, run: Reached, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("extendDialog")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Train longer"))
        self.setMinimumWidth(520)
        self._run = run
        # As the run itself counts: an epoch may be many times a run of so many steps.
        self._by_epochs = run.steps_per_epoch is not None and run.job.training.max_steps <= 0
        self._job: TrainingJob | None = None
        outer = dialog_layout(self)
        outer.addWidget(page_title(self.windowTitle()))
        outer.addWidget(plain_label(self._so_far(), wrap=True))
        outer.addLayout(self._amount_row())
        self._adds = plain_label(wrap=True)
        self._adds.setObjectName("extendAdds")
        outer.addWidget(self._adds)
        outer.addWidget(secondary_label(self._consequences(), wrap=True))
        outer.addSpacing(8)
        outer.addLayout(self._buttons())
        self._amount.valueChanged.connect(lambda _: self._show())
        self._show()
        self._amount.setFocus()

    def _so_far(self) -> str:
        text = self.tr("“{name}” has made {step} of {end} steps.").format(
            name=self._run.job.name,
            step=figures.count(self._run.step),
            end=figures.count(self._run.end),
        )
        if self._run.checkpoint < self._run.step:
            text += " " + self.tr(
                "Its newest checkpoint is that of step {step}: it goes on from there."
            ).format(step=figures.count(self._run.checkpoint))
        return text

    def _amount_row(self) -> QHBoxLayout:
        epochs = self._by_epochs
        label = self.tr("Epochs to add") if epochs else self.tr("Steps to add")
        self._amount = NumberEdit(whole=not epochs, minimum=0.1 if epochs else 1, maximum=1_000_000)
        self._amount.setObjectName("extendAmount")
        self._amount.setAccessibleName(label)
        self._amount.setFixedWidth(120)
        self._amount.setValue(1 if epochs else max(1, self._run.end // 3))
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(plain_label(label))
        row.addWidget(self._amount)
        row.addStretch(1)
        return row

    def _consequences(self) -> str:
        """What happens to the learning rate, and to what the run has so far."""
        training = self._run.job.training
        parts = []
        if training.lr_scheduler_type in CONSTANT:
            parts.append(self.tr("The learning rate stays as it is."))
        else:
            parts.append(
                self.tr(
                    "The learning rate rises at first: its schedule ({schedule}) spans all steps "
                    "then, as if they had been planned together, and falls again to the new end."
                ).format(schedule=training.lr_scheduler_type)
            )
        if self._run.stopped_early:
            parts.append(
                self.tr(
                    "The run had stopped early, and may again when as many tests more bring "
                    "nothing better."
                )
            )
        parts.append(
            self.tr(
                "Charts and answers go on in the same run. Its result is replaced when the longer "
                "training is done."
            )
        )
        return "\n\n".join(parts)

    def _buttons(self) -> QHBoxLayout:
        self._go = PrimaryButton(self.tr("Train longer"))
        self._go.setObjectName("extendStartButton")
        self._go.setProperty("primary", True)
        self._go.clicked.connect(self._choose)
        return dialog_foot(self, self._go)

    def _show(self) -> None:
        """What the number adds, or what is wrong with it."""
        amount = self._amount.value()
        self._job = None
        if isinstance(amount, str) or amount <= 0:
            words = self.tr("Write a number above 0.")
        elif not self._by_epochs and not isinstance(amount, int):
            words = self.tr("Write a whole number.")
        else:
            words = self._try(amount)
        self._adds.setText(words)
        self._adds.setProperty("role", "" if self._job is not None else "error")
        self._adds.style().unpolish(self._adds)
        self._adds.style().polish(self._adds)
        self._go.setEnabled(self._job is not None)

    def _try(self, amount: float) -> str:
        try:
            if not self._by_epochs:
                added = int(amount)
                self._job = longer(self._run, steps=added)
            else:
                added = self._run.steps_of(amount) or 1
                self._job = longer(self._run, epochs=amount)
        except UserError:
            return self.tr("That is more than a run can have.")
        # What lies between the newest checkpoint and the run's end is made as well.
        steps = added + self._run.end - self._run.checkpoint
        words = self.tr("That makes {added} more steps, {total} in all").format(
            added=figures.count(steps), total=figures.count(self._run.end + added)
        )
        if self._run.seconds_per_step is not None:
            words += self.tr("; they take about {time}").format(
                time=figures.duration(steps * self._run.seconds_per_step)
            )
        return words + "."

    def _choose(self) -> None:
        if self._job is not None:
            self.chosen.emit(self._job)
            self.accept()
