"""The shortest way: train the demo model on the demo data, now."""

from __future__ import annotations

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QWidget

from app.draft import JobDraft, problems_of
from app.i18n import integer
from app.widgets.card import Card, SecondaryButton, secondary_label
from training_backend.starting_points.demo import DEMO_JOB

CHECK_PAUSE_MS = 120


class FirstTryCard(Card):
    """There while the demo is chosen; praises the settings only when they are the demo's own."""

    try_requested = Signal()
    settings_requested = Signal()

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("firstTryCard")
        self._draft = draft
        self._own = JobDraft(dict(DEMO_JOB)).document()
        self._here = False
        self._wrong = False
        self._text = secondary_label(wrap=True)
        self._button = SecondaryButton(self.tr("Go to training"))
        self._button.clicked.connect(self._go)
        row = QHBoxLayout()
        row.addWidget(self._text, 1)
        row.addWidget(self._button)
        self.body.addLayout(row)
        self._pause = QTimer(self, singleShot=True, interval=CHECK_PAUSE_MS)
        self._pause.timeout.connect(self._render)
        draft.changed.connect(lambda _: self._pause.start())
        self._render()

    def set_ready(self, here: bool) -> None:
        """Whether the chosen model is on this computer: else its download comes first."""
        self._here = here
        self._render()

    def _render(self) -> None:
        chosen = (self._draft.value("model.id"), self._draft.value("dataset.path"))
        self.setVisible(chosen == ("demo", "demo") and self._here)
        wrong = problems_of(self._draft)
        self._wrong = bool(wrong)
        document = self._draft.document()
        sections = ("quantization", "lora", "training")
        if wrong:
            text = self.tr(
                "The demo model and demo data are chosen; {count} settings need a look first."
            ).format(count=integer(len(wrong)))
        elif all(document[key] == self._own[key] for key in sections):
            text = self.tr(
                "Ready for a first try: the demo model, demo data and quick settings are "
                "chosen. It runs on any computer."
            )
        else:
            text = self.tr("The demo model and demo data are chosen, with settings of your own.")
        self._text.setText(text)
        self._button.setText(self.tr("Go to settings") if wrong else self.tr("Go to training"))
        self._button.setAccessibleName(self._button.text())

    def _go(self) -> None:
        (self.settings_requested if self._wrong else self.try_requested).emit()
