"""Try several values: what is varied, which runs that makes, what they take, before any starts."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QDialog, QHeaderView, QVBoxLayout, QWidget

from app import theme
from app.background import Latest
from app.forms import in_plain_words, specs
from app.i18n import explain
from app.widgets import figures
from app.widgets.card import (
    ErrorLabel,
    PrimaryButton,
    QuietButton,
    page_title,
    plain_label,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_foot, dialog_layout
from app.widgets.list_table import ListTable
from app.widgets.settings import memory_words
from app.widgets.settings.values_edit import AxisEdit
from training_backend import vram
from training_backend.computer.devices import Device, this_device
from training_backend.errors import JobError, UserError
from training_backend.job import TrainingJob
from training_backend.queueing import sweeps
from training_backend.queueing.sweeps import Axis
from training_backend.summaries import run_times
from training_backend.vram import Estimate, TraceNeeded

MOST_AXES = 3
PLAN_PAUSE_MS = 150
RUN, MEMORY, TIME = range(3)


@dataclass(frozen=True)
class Cost:
    """What a run needs; None where that is not known."""

    memory: Estimate | None
    seconds: float | None


class SweepDialog(QDialog):
    """`chosen` carries the axes of a sweep of `job` that can be started.

    Args:
        device: whose memory the runs will have; None looks at what is free now.
        rows: how many rows the data has, where that is known.
        waits: whether the runs will wait for others, rather than start at once.
    """

    chosen = Signal(list)

    def __init__(
        self,
        job: TrainingJob,
        device: Device | None = None,
        rows: int | None = None,
        *,
        waits: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("sweepDialog")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(self.tr("Try several values"))
        self.resize(760, 600)
        self._job, self._device, self._rows, self._waits = job, device, rows, waits
        self._jobs: list[TrainingJob] = []
        self._costs = Latest(self)
        self._axes: list[AxisEdit] = []
        self._pause = QTimer(self, singleShot=True, interval=PLAN_PAUSE_MS)
        self._pause.timeout.connect(self._plan)
        self._build()
        self._add_axis()
        self._plan()

    def axes(self) -> list[Axis]:
        return [edit.axis() for edit in self._axes]

    # ---------------------------------------------------------------------- what is planned

    def _add_axis(self) -> None:
        """One more setting: the first that is not varied yet and has values to suggest."""
        taken = {edit.field() for edit in self._axes}
        field = next(
            name
            for name in sweeps.FIELDS
            if name not in taken and len(sweeps.suggest_values(self._job, name)) > 1
        )
        edit = AxisEdit(self._job, field, self._rows)
        edit.changed.connect(self._plan_soon)
        edit.removed.connect(lambda: self._remove_axis(edit))
        self._axes.append(edit)
        self._axis_column.addWidget(edit)
        self._on_axes_changed()

    def _remove_axis(self, edit: AxisEdit) -> None:
        self._axes.remove(edit)
        self._axis_column.removeWidget(edit)
        edit.hide()
        edit.deleteLater()
        self._on_axes_changed()

    def _on_axes_changed(self) -> None:
        self._more.setVisible(len(self._axes) < MOST_AXES)
        for edit in self._axes:
            edit.remove.setVisible(len(self._axes) > 1)
        self._plan_soon()

    def _plan_soon(self) -> None:
        self._start.setEnabled(False)
        self._pause.start()

    def _plan(self) -> None:
        """Make the jobs, or say beside each setting what is wrong."""
        self._pause.stop()
        self._costs.forget()
        axes = self.axes()
        problems: dict[str, list[str]] = {}
        trouble = ""
        self._jobs = []
        try:
            self._jobs = sweeps.expand(self._job, axes)
        except JobError as error:
            known = {axis.field for axis in axes}
            for problem in error.problems:
                at = problem.field if problem.field in known else axes[0].field
                problems.setdefault(at, []).append(_in_plain_words(at, problem.message))
        except UserError as error:
            trouble = explain(error)
        for edit in self._axes:
            edit.show_error("\n".join(problems.pop(edit.field(), [])))
        self._errors.show_error(trouble)
        notes = sweeps.notes(self._job, axes) if self._jobs else []
        self._notes.setText("\n".join(notes))
        self._notes.setVisible(bool(notes))
        self._show_jobs(axes)
        self._show_costs([])
        self._ask_costs()

    def _ask_costs(self) -> None:
        jobs, device = self._jobs, self._device
        if jobs:
            self._costs.ask(lambda: costs_of(jobs, device), self._show_costs, lambda _: None)

    # ------------------------------------------------------------------------ what is shown

    def _show_jobs(self, axes: list[Axis]) -> None:
        self._rows_shown.setRowCount(0)
        for job in self._jobs:
            values = {axis.field: sweeps.value_of(job, axis.field) for axis in axes}
            words = ", ".join(sweeps.label(field, value) for field, value in values.items())
            items = [QStandardItem(words), QStandardItem("…"), QStandardItem("…")]
            for item in items[MEMORY:]:
                item.setFont(theme.font(13, tabular=True))
            self._rows_shown.appendRow(items)
        count = len(self._jobs)
        start = self.tr("Start {count} runs")
        text = self.tr("Add {count} runs to the queue") if self._waits else start
        text = text.format(count=figures.count(count)) if count else self.tr("Start")
        self._start.setText(text)
        self._start.setAccessibleName(self._start.text())
        self._start.setEnabled(count > 0)

    def _show_costs(self, costs: list[Cost]) -> None:
        """What each run needs, and all of them; an empty list while that is being found out."""
        for row, cost in enumerate(costs):
            memory = self._rows_shown.item(row, MEMORY)
            memory.setText(self.tr("not known"))
            if cost.memory is not None:
                text, role = memory_words.verdict(cost.memory)
                memory.setText(text)
                memory.setForeground(theme.current().color(role))
            seconds = cost.seconds
            self._rows_shown.item(row, TIME).setText(
                self.tr("not known") if seconds is None else figures.duration(seconds)
            )
        known = [cost.seconds for cost in costs if cost.seconds is not None]
        total = ""
        if known and len(known) == len(costs):
            total = self.tr("About {time} in all, by runs of the same work on this computer.")
            total = total.format(time=figures.duration(sum(known)))
        elif costs:
            total = self.tr("How long they take is known after the first run of this kind.")
        self._total.setText(total)

    def _accept(self) -> None:
        if self._jobs:
            self.chosen.emit(self.axes())
            self.accept()

    # -------------------------------------------------------------------------- the widgets

    def _build(self) -> None:
        outer = dialog_layout(self)
        outer.addWidget(page_title(self.windowTitle()))
        outer.addWidget(
            secondary_label(
                self.tr("Each value becomes a run of its own. They follow one another unattended; "
                "Compare this sweep on the Runs page then shows them side by side."),
                wrap=True,
            )
        )  # fmt: skip
        self._axis_column = QVBoxLayout()
        self._axis_column.setSpacing(8)
        outer.addLayout(self._axis_column)
        self._more = QuietButton(self.tr("Vary another setting too"))
        self._more.setObjectName("addAxisButton")
        self._more.clicked.connect(self._add_axis)
        outer.addWidget(self._more, 0, Qt.AlignmentFlag.AlignLeft)
        self._errors = ErrorLabel("sweepProblem")
        outer.addWidget(self._errors)
        self._rows_shown = QStandardItemModel(0, 3, self)
        titles = (self.tr("Run"), self.tr("Memory"), self.tr("Takes about"))
        self._rows_shown.setHorizontalHeaderLabels(list(titles))
        table = ListTable()
        table.setObjectName("sweepPlan")
        table.setAccessibleName(self.tr("The runs that this makes"))
        table.setModel(self._rows_shown)
        header = table.horizontalHeader()
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(RUN, QHeaderView.ResizeMode.Stretch)
        table.setColumnWidth(MEMORY, 300)
        table.setColumnWidth(TIME, 110)
        outer.addWidget(table, 1)
        self._notes = secondary_label(wrap=True)
        outer.addWidget(self._notes)
        self._total = plain_label(wrap=True)
        self._start = PrimaryButton(self.tr("Start"))
        self._start.setObjectName("startSweepButton")
        self._start.clicked.connect(self._accept)
        outer.addLayout(dialog_foot(self, self._start, self._total))


def costs_of(jobs: list[TrainingJob], device: Device | None) -> list[Cost]:
    """What each job needs. For a thread."""
    where = device or this_device()
    times = run_times.expected_seconds(jobs)
    estimates = [_estimate(job, where) for job in jobs]
    return [Cost(memory, seconds) for memory, seconds in zip(estimates, times, strict=True)]


def _estimate(job: TrainingJob, device: Device) -> Estimate | None:
    try:
        return vram.estimate_job(job, device)
    except (TraceNeeded, UserError):  # what is wrong with it is said at the start
        return None


def _in_plain_words(field: str, message: str) -> str:
    """As beside the field on the Settings page, led by the value that cannot be."""
    spec = next((spec for spec in specs() if spec.field == field), None)
    if spec is None:  # the number of rows stands on the Data page
        return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?")) else ".")
    value, _, _ = message.partition(":")
    words = in_plain_words(spec, message)
    return words if "input should be" not in message else f"{value}: {words}"
