"""One setting of a sweep and the values to try."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from PySide6.QtCore import QCoreApplication, Qt, Signal
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from app.widgets.card import ErrorLabel, QuietButton
from app.widgets.inputs import SteadyComboBox
from training_backend.job import TrainingJob
from training_backend.queueing import sweeps
from training_backend.queueing.sweeps import Axis

SETTING_WIDTH = 200


class AxisEdit(QWidget):
    """A choice of the setting, and its values: numbers as typed, anything else to be ticked."""

    changed = Signal()
    removed = Signal()

    def __init__(
        self, job: TrainingJob, field: str, rows: int | None, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._job = job
        self._rows = rows
        self._boxes: list[tuple[QCheckBox, Any]] = []
        self.setting = SteadyComboBox()
        self.setting.setAccessibleName(self.tr("Setting to vary"))
        self.setting.setFixedWidth(SETTING_WIDTH)
        for name in sweeps.FIELDS:
            self.setting.addItem(QCoreApplication.translate("job", sweeps.title(name)), name)
        self.setting.setCurrentIndex(self.setting.findData(field))
        self.line = QLineEdit()
        self.line.textChanged.connect(lambda: self.changed.emit())
        self._ticks = QWidget()
        self._tick_row = QHBoxLayout(self._ticks)
        self._tick_row.setContentsMargins(0, 0, 0, 0)
        self._tick_row.setSpacing(16)
        self._tick_row.addStretch(1)
        self.remove = QuietButton(self.tr("Remove"))
        self.remove.clicked.connect(self.removed)
        row = QHBoxLayout()
        row.setSpacing(16)
        row.addWidget(self.setting)
        row.addWidget(self.line, 1)
        row.addWidget(self._ticks, 1)
        row.addWidget(self.remove)
        self._error = ErrorLabel()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self._error)
        self.setting.currentIndexChanged.connect(lambda _: self._show_values())
        self._show_values()

    def axis(self) -> Axis:
        """What is to be varied, right or wrong."""
        if self._boxes:
            values = tuple(value for box, value in self._boxes if box.isChecked())
        else:
            values = tuple(_value(word) for word in re.split(r"[,;\s]+", self.line.text()) if word)
        return Axis(field=self.field(), values=values)

    def field(self) -> str:
        return str(self.setting.currentData())

    def show_error(self, message: str) -> None:
        self._error.show_error(message)

    def _show_values(self) -> None:
        """Begin with values that make sense for this setting."""
        field = self.field()
        name = self.tr("Values of “{setting}”").format(setting=self.setting.currentText())
        suggested = sweeps.suggest_values(self._job, field, self._rows)
        typed = all(value is None or _is_number(value) for value in suggested)
        for box, _ in self._boxes:
            self._tick_row.removeWidget(box)
            box.deleteLater()
        self._boxes = [] if typed else [(self._box(field, value), value) for value in suggested]
        for at, (box, _) in enumerate(self._boxes):
            self._tick_row.insertWidget(at, box)
        self._ticks.setVisible(not typed)
        self.line.setVisible(typed)
        self.line.setAccessibleName(name)
        self.line.setText(", ".join(sweeps.value_text(value) for value in suggested))
        self.changed.emit()

    def _box(self, field: str, value: Any) -> QCheckBox:
        text = sweeps.label(field, value) if isinstance(value, bool) else sweeps.value_text(value)
        box = QCheckBox(text)
        box.setAccessibleName(text)
        box.setChecked(True)
        box.toggled.connect(lambda _: self.changed.emit())
        box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        return box


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(word: str) -> Any:
    """What was typed, as JSON would have it; a word that is no number is told by `sweeps`."""
    if word.lower() == "all":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return word
