"""Will it fit: the memory of the job against the device, live as settings change."""

from __future__ import annotations

from functools import partial

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QHideEvent, QIcon, QPainter, QPixmap, QShowEvent
from PySide6.QtWidgets import QWidget

from app import theme
from app.background import Latest
from app.desks.memory_estimator import Estimated, MemoryEstimator
from app.desks.probe_controller import ProbeController
from app.draft import JobDraft
from app.i18n import explain
from app.widgets import figures
from app.widgets.card import (
    Card,
    ElidedLabel,
    QuietButton,
    SecondaryButton,
    plain_label,
    secondary_label,
)
from app.widgets.flow import FlowLayout
from app.widgets.settings import memory_words
from app.widgets.settings.fit_dialog import FitDialog
from app.widgets.settings.memory_bar import MemoryBar, Segment, fill, segments
from app.widgets.settings.memory_dialog import MemoryDialog
from app.widgets.settings.probe_panel import ProbePanel
from training_backend.memory import make_fit

SQUARE = 10


class MemoryCard(Card):
    """Bar, verdict and what can be done about it; keeps its height whatever it says."""

    def __init__(
        self,
        draft: JobDraft,
        estimator: MemoryEstimator,
        probe: ProbeController,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__("", parent)
        self.setObjectName("memoryCard")
        self.set_title(self.tr("Memory"))
        self._draft = draft
        self._estimator = estimator
        self._dialog: MemoryDialog | None = None
        self._offered = Latest(self)
        self._verdict = plain_label()
        self._verdict.setObjectName("memoryVerdict")
        self._verdict.setFont(theme.font(13, tabular=True))
        self.add_legend(self._verdict)
        self._device = ElidedLabel()
        self._device.setObjectName("memoryDevice")
        self._device.setProperty("role", "secondary")
        self.add_legend(self._device)
        self._details = QuietButton(self.tr("Details"))
        self._details.setAccessibleName(self.tr("How the memory is counted"))
        self._details.setToolTip(self.tr("How the memory is counted"))
        self._details.setObjectName("memoryDetails")
        self._details.clicked.connect(lambda: self._show_details(""))
        self.add_right(self._details)
        self._fit = SecondaryButton(self.tr("Make it fit"))
        self._fit.setObjectName("makeItFitButton")
        self._fit.clicked.connect(self.make_it_fit)
        self.add_right(self._fit)
        self._bar = MemoryBar()
        self.body.addWidget(self._bar)
        self._stretches = QWidget()
        self._entries = FlowLayout(self._stretches, gap=4, line_gap=0)
        self._buttons: list[_LegendButton] = []
        self.body.addWidget(self._stretches)
        self._why = secondary_label(wrap=True)  # in the legend's place
        self._why.setObjectName("memoryUnknown")
        self._why.setMinimumHeight(24)
        self._why.setVisible(False)
        self.body.addWidget(self._why)
        self._probe = ProbePanel(draft, probe)
        self._probe.make_it_fit_requested.connect(self.make_it_fit)
        self.body.addWidget(self._probe)
        estimator.estimated.connect(self._on_estimated)
        estimator.tracing.connect(self._on_tracing)
        estimator.unknown.connect(self._on_unknown)
        probe.measured.connect(lambda _: estimator.refresh())
        if estimator.current is not None:
            self._on_estimated(estimator.current)
        else:
            self._say(self.tr("Looking at the model and this computer"), "secondary")

    def measure(self) -> None:
        """Try one real step of the draft's job."""
        self._probe.start()

    def make_it_fit(self) -> None:
        """Offer what to change; or, where there is room, what to spend it on."""
        shown = self._estimator.current
        if shown is None:
            return
        job, device = shown.job, shown.estimate.device
        lengths = self._estimator.lengths
        spare = shown.estimate.fit == "comfortable"
        self._fit.setEnabled(False)

        def work() -> tuple[make_fit.Plan, list[make_fit.Suggestion]]:
            if spare:
                return make_fit.Plan((), {}, 0, True), make_fit.faster(job, device)
            offers = make_fit.suggestions(job, device, lengths)
            return make_fit.plan(job, device, lengths), offers

        self._offered.ask(work, lambda found: self._offer(shown, *found), self._on_offer_error)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._estimator.watch(True)

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._estimator.watch(False)

    # ---------------------------------------------------------------------------- what is shown

    def _on_estimated(self, shown: Estimated) -> None:
        estimate = shown.estimate
        self._bar.show_estimate(estimate)
        self._say_why("")
        self._show_legend(segments(estimate))
        self._device.setText(memory_words.device_name(estimate.device))
        self._say(*memory_words.verdict(estimate))
        self._fit.setEnabled(True)
        self._fit.setText(
            self.tr("Use the free memory")
            if estimate.fit == "comfortable"
            else self.tr("Make more room")
            if estimate.fit == "tight"
            else self.tr("Make it fit")
        )
        self._fit.setAccessibleName(self._fit.text())
        self._details.setEnabled(True)
        if self._dialog is not None:
            self._dialog.show_estimate(estimate)

    def _on_tracing(self) -> None:
        self._old(self.tr("Looking at this model, a few seconds"))

    def _on_unknown(self, why: str) -> None:
        self._old(self.tr("Not known for these settings"), why)

    def _old(self, words: str, why: str = "") -> None:
        """What is shown is of other settings; `why` stands where the numbers were."""
        self._bar.fade()
        self._say_why(why)
        self._say(words, "secondary")
        self._fit.setEnabled(False)
        self._details.setEnabled(False)
        for button in self._buttons:
            button.setEnabled(False)

    def _say(self, text: str, role: str) -> None:
        self._verdict.setText(text)
        if self._verdict.property("role") != role:
            self._verdict.setProperty("role", role)
            self._verdict.style().unpolish(self._verdict)
            self._verdict.style().polish(self._verdict)

    def _say_why(self, why: str) -> None:
        self._why.setText(why)
        self._why.setVisible(bool(why))
        self._stretches.setVisible(not why)

    def _show_legend(self, found: list[Segment]) -> None:
        if [button.segment.name for button in self._buttons] != [one.name for one in found]:
            for button in self._buttons:
                button.setParent(None)
                button.deleteLater()
            self._buttons = [_LegendButton() for _ in found]
            for button in self._buttons:
                button.clicked.connect(partial(self._show_part, button))
                self._entries.addWidget(button)
        for button, segment in zip(self._buttons, found, strict=True):
            button.show_segment(segment)
            button.setEnabled(True)

    # ------------------------------------------------------------------------------ what is asked

    def _show_part(self, button: _LegendButton) -> None:
        self._show_details(button.segment.parts[0] if button.segment.parts else "")

    def _show_details(self, part: str) -> None:
        shown = self._estimator.current
        if shown is None:
            return
        dialog = MemoryDialog(shown.estimate, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.finished.connect(self._on_details_closed)
        self._dialog = dialog
        dialog.open()
        dialog.select(part)

    def _on_details_closed(self) -> None:
        self._dialog = None

    def _offer(
        self, shown: Estimated, plan: make_fit.Plan, found: list[make_fit.Suggestion]
    ) -> None:
        self._fit.setEnabled(self._estimator.current is not None)
        if not self._estimator.is_of_now(shown):
            return  # it was worked out for settings that were changed meanwhile
        dialog = FitDialog(shown.estimate, plan, found, self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.chosen.connect(self._draft.set_values)
        dialog.open()

    def _on_offer_error(self, error: Exception) -> None:
        self._say(explain(error), "error")
        self._fit.setEnabled(True)


class _LegendButton(QuietButton):
    """A square in the stretch's colour, its name and size; opens how it is counted."""

    def __init__(self) -> None:
        super().__init__("")
        self.segment = Segment("", "track", 0)
        self.setFont(theme.font(13, tabular=True))
        self.setIconSize(QSize(SQUARE, SQUARE))
        theme.notifier.changed.connect(self._recolour)

    def show_segment(self, segment: Segment) -> None:
        self.segment = segment
        self.setText(f" {segment.name} {figures.gigabytes(segment.bytes)}")
        self.setAccessibleName(self.text())
        self._recolour()

    def _recolour(self) -> None:
        ratio = self.devicePixelRatioF()
        image = QPixmap(QSize(SQUARE, SQUARE) * ratio)
        image.setDevicePixelRatio(ratio)
        painter = QPainter(image)
        fill(painter, QRectF(0, 0, SQUARE, SQUARE), self.segment)
        painter.setPen(theme.current().color("control_line"))
        painter.drawRect(0, 0, SQUARE - 1, SQUARE - 1)
        painter.end()
        self.setIcon(QIcon(image))
