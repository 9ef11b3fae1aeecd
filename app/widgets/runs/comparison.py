"""Several runs beside one another: loss and held-out loss overlaid, and a table of what differs."""

from __future__ import annotations

from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.background import Latest
from app.i18n import explain
from app.models.comparison import MOST_RUNS, ComparedRun, load
from app.widgets.card import CARD_GAP, Card, ErrorLabel, plain_label, secondary_label
from app.widgets.charts.compare_chart import CompareChart
from app.widgets.charts.metric_chart import SmoothingBox
from app.widgets.inputs import SteadyComboBox
from app.widgets.runs.comparison_table import ComparisonTable
from training_backend.runs import RunSummary


class Comparison(QWidget):
    """Reads 2 to 8 runs in the background and shows each as soon as it is read.

    `controls` belongs into the head of the page.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._asked: list[RunSummary] = []
        self._read: dict[str, ComparedRun] = {}
        self._reads: dict[str, Latest] = {}  # by run, as `_read`
        self._errors = ErrorLabel("comparisonProblem")
        self._verdict = plain_label(wrap=True)
        self._verdict.setObjectName("sweepVerdict")
        self._verdict.setVisible(False)
        self.smoothing = SmoothingBox()
        self.along = SteadyComboBox()
        self.along.setAccessibleName(self.tr("What runs along the bottom"))
        self.along.addItems([self.tr("by step"), self.tr("by time")])
        self.along.currentIndexChanged.connect(self._show)
        self._reading = secondary_label()
        self._charts: list[tuple[CompareChart, CompareChart]] = [
            (self._loss_chart(in_time), self._held_out_chart(in_time)) for in_time in (False, True)
        ]
        self.controls = QWidget()
        row = QHBoxLayout(self.controls)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(CARD_GAP)
        for widget in (self._reading, self.smoothing, self.along):
            row.addWidget(widget)
        charts = QHBoxLayout()
        charts.setSpacing(CARD_GAP)
        for pair in self._charts:
            for chart in pair:
                charts.addWidget(chart, 1)
        self.table = ComparisonTable()
        table_card = Card()
        table_card.setContentsMargins(-15, -4, -15, -8)  # the table reaches the card's edge
        table_card.body.addWidget(self.table)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(CARD_GAP)
        column.addWidget(self._errors)
        column.addWidget(self._verdict)
        column.addLayout(charts, 1)
        column.addWidget(table_card)

    def compare(self, summaries: list[RunSummary]) -> None:
        """Show these runs; styles are given in this order."""
        self.say("")
        self._asked = summaries[:MOST_RUNS]
        self._read = {}
        for read in self._reads.values():
            read.forget()
        self._reads = {one.run.id: Latest(self, same=True) for one in self._asked}
        self._errors.show_error("")
        self._show()
        self.reload(self._asked)

    def say(self, verdict: str) -> None:
        """Above the charts: which value of a sweep did best."""
        self._verdict.setText(verdict)
        self._verdict.setVisible(bool(verdict))

    def asked(self) -> list[RunSummary]:
        """The runs to compare, read or not."""
        return list(self._asked)

    def reload(self, summaries: list[RunSummary]) -> None:
        """Read the runs again: one that is under way goes on.

        Args:
            summaries: the same runs as they are now.
        """
        self._asked = list(summaries)
        for summary in self._asked:
            self._load(summary)

    def reload_changed(self, found: list[RunSummary]) -> None:
        """As `reload`, where one of those that are compared has gone on, or ended.

        Args:
            found: all runs, as they are now.
        """
        known = {one.run: one for one in found}
        now = [known.get(one.run, one) for one in self._asked]
        if now != self._asked:
            self.reload(now)

    def runs_shown(self) -> list[ComparedRun]:
        """Those that are read, in their order."""
        read = [self._read.get(summary.run.id) for summary in self._asked]
        return [run for run in read if run is not None]

    def _load(self, summary: RunSummary) -> None:
        def take(compared: ComparedRun) -> None:
            self._read[summary.run.id] = compared
            self._show()

        def fail(error: Exception) -> None:
            self._asked = [one for one in self._asked if one.run != summary.run]
            self._errors.show_error(f"{summary.name}: {explain(error)}")
            self._show()

        self._reads[summary.run.id].ask(lambda: load(summary), take, fail)

    def _show(self) -> None:
        shown = self.runs_shown()
        missing = len(self._asked) - len(shown)
        self._reading.setText(
            self.tr("reading {count} of {total} runs").format(count=missing, total=len(self._asked))
            if missing
            else ""
        )
        in_time = self.along.currentIndex() == 1
        tested = any(len(run.held_out) for run in shown)
        for index, (loss, held_out) in enumerate(self._charts):
            chosen = bool(index) == in_time
            loss.setVisible(chosen)
            held_out.setVisible(chosen and tested)
            if chosen:
                loss.show_runs(shown)
                held_out.show_runs(shown)
        self.table.show_runs(shown)

    def _loss_chart(self, in_time: bool) -> CompareChart:
        return CompareChart(
            self.tr("Loss, smoothed"),
            "loss, smoothed",
            self.tr("The runs' losses appear here."),
            lambda run, time: run.loss_in_time if time else run.loss,
            self.smoothing,
            in_time=in_time,
        )

    def _held_out_chart(self, in_time: bool) -> CompareChart:
        return CompareChart(
            self.tr("Held-out loss"),
            "held-out loss",
            self.tr("None of these runs was tested on held-out rows."),
            lambda run, time: run.held_out_in_time if time else run.held_out,
            None,
            in_time=in_time,
        )
