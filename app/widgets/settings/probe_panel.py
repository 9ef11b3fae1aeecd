"""The button that tries one real step, how far that is, and what it measured."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.desks.probe_controller import Measurement, ProbeController
from app.draft import JobDraft
from app.widgets import figures, wording
from app.widgets.card import ErrorLabel, SecondaryButton, secondary_label
from training_backend.errors import JobError
from training_backend.job import TrainingJob
from training_backend.protocol import MemoryMeasured, PhaseChanged


class ProbePanel(QWidget):
    """A line for the memory card: Measure, or Cancel while it goes on.

    What was measured stays, greyed and said to be of other settings once the draft differs.
    """

    make_it_fit_requested = Signal()

    def __init__(
        self, draft: JobDraft, controller: ProbeController, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._draft = draft
        self._controller = controller
        self.button = SecondaryButton(self.tr("Measure"))
        self.button.setObjectName("measureButton")
        self.button.clicked.connect(self._start_or_cancel)
        self.text = secondary_label(wrap=True)
        self.text.setObjectName("measureText")
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._fix = SecondaryButton(self.tr("Make it fit"))
        self._fix.setObjectName("measureMakeItFit")
        self._fix.clicked.connect(self.make_it_fit_requested)
        self._error = ErrorLabel("measureError")
        row = QHBoxLayout()
        row.setSpacing(16)
        row.addWidget(self.button, 0, Qt.AlignmentFlag.AlignTop)
        row.addWidget(self.text, 1, Qt.AlignmentFlag.AlignVCenter)
        row.addWidget(self._fix, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addLayout(row)
        column.addWidget(self._error)
        draft.changed.connect(lambda _: self._render())
        controller.began.connect(self._on_began)
        controller.progressed.connect(self._on_progress)
        controller.failed.connect(self._error.show_error)
        controller.ended.connect(self._on_ended)
        self._render()

    def start(self) -> None:
        """Measure what the draft asks for, if it is whole."""
        job = self._job()
        if job is not None:
            self._controller.start(job)

    def _start_or_cancel(self) -> None:
        if self._controller.is_busy():
            self.button.setEnabled(False)
            self.text.setText(self.tr("Cancelling"))
            self._controller.cancel()
        else:
            self.start()

    def _on_began(self) -> None:
        self._error.show_error("")
        self._fix.hide()
        self.button.setText(self.tr("Cancel"))
        self.text.setText(self.tr("Starting"))

    def _on_progress(self, phase: PhaseChanged) -> None:
        if not self.button.isEnabled():
            return  # being cancelled
        parts = [wording.phase_title(phase.phase), phase.detail]
        if phase.fraction is not None:
            parts.append(figures.share(phase.fraction))
        if phase.seconds_left:
            left = self.tr("about {time} left")
            parts.append(left.format(time=figures.duration(phase.seconds_left)))
        self.text.setText(", ".join(part for part in parts if part))

    def _on_ended(self) -> None:
        self._render()

    def _render(self) -> None:
        if self._controller.is_busy():
            return
        job, newest = self._job(), self._controller.newest
        current = newest is not None and job is not None and newest.is_of(job)
        self.button.setText(self.tr("Measure"))
        self.button.setEnabled(job is not None)
        self._fix.setVisible(current and newest is not None and not newest.result.fits)
        self.text.setEnabled(current or newest is None)
        if newest is None:
            self.text.setText(
                self.tr("Tries one real step with your longest rows; takes less than a minute.")
            )
        elif current:
            self.text.setText(self._words(newest))
        else:
            self.text.setText(
                self.tr("Measured with other settings: {size}.").format(
                    size=figures.gigabytes(newest.result.measured_bytes)
                )
            )

    def _job(self) -> TrainingJob | None:
        try:
            return self._draft.job()
        except JobError:
            return None

    def _words(self, newest: Measurement) -> str:
        found = newest.result
        if not found.fits:
            return self._does_not_fit(found)
        text = self.tr("Measured {size}").format(size=figures.gigabytes(found.measured_bytes))
        if found.estimate_bytes is not None:
            text += " " + self.tr("(estimate {size})").format(
                size=figures.decimal(found.estimate_bytes / figures.GIGABYTE, 1)
            )
        text += " " + self.tr("with rows of {count} tokens.").format(
            count=figures.count(found.longest_tokens)
        )
        if found.run_seconds is not None:
            text += " " + self.tr("The whole run takes about {time}.").format(
                time=figures.duration(found.run_seconds)
            )
        return text

    def _does_not_fit(self, found: MemoryMeasured) -> str:
        held = figures.gigabytes(found.measured_bytes)
        total = figures.gigabytes(found.device_total_bytes)
        places = {
            "while the model was loaded": self.tr("while the model was loaded"),
            "in the first step": self.tr("in the first step"),
            "in the second step": self.tr("in the second step"),
        }
        if found.ran_out:
            return self.tr("Does not fit: out of memory {place}, at {held} of {total}.").format(
                place=places.get(found.ran_out, ""), held=held, total=total
            )
        return self.tr("Does not fit: it takes {held} of {total}, and others use the rest.").format(
            held=held, total=total
        )
