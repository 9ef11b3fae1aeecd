"""Inputs that keep what was typed and do not change on a passing scroll wheel."""

from __future__ import annotations

import math

from PySide6.QtCore import QEvent, QLocale, Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QWheelEvent
from PySide6.QtWidgets import QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit, QWidget

from app import theme


class SteadyComboBox(QComboBox):
    """A combo box that turns with the wheel only when it has the focus."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class JobLineEdit(QLineEdit):
    """A line whose undo is the job's: one Ctrl+Z for all settings, not one a field.

    A file that is dropped on it is for the page or the window.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAcceptDrops(False)

    def event(self, event: QEvent) -> bool:
        return False if _asks_for_undo(event) else super().event(event)


class JobTextEdit(QPlainTextEdit):
    """As `JobLineEdit`, for several lines."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAcceptDrops(False)
        self.viewport().setAcceptDrops(False)

    def event(self, event: QEvent) -> bool:
        return False if _asks_for_undo(event) else super().event(event)


def _asks_for_undo(event: QEvent) -> bool:
    """Refuses to keep Ctrl+Z from the window, which has a shortcut for it."""
    if event.type() != QEvent.Type.ShortcutOverride or not isinstance(event, QKeyEvent):
        return False
    undo, redo = QKeySequence.StandardKey.Undo, QKeySequence.StandardKey.Redo
    if not (event.matches(undo) or event.matches(redo)):
        return False
    event.ignore()
    return True


class NumberEdit(QAbstractSpinBox):
    """A number with buttons to step it, within bounds when stepped, as typed when typed.

    Unlike a QSpinBox it never mends what was typed behind the person's back: a number out
    of bounds stays to be seen, with a message beside it. An empty field stands for the
    lowest value where `special` says what that means.
    """

    valueChanged = Signal(object)  # int or float; str for what is no number

    def __init__(
        self,
        *,
        whole: bool,
        minimum: float | None,
        maximum: float | None,
        special: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._whole = whole
        self._minimum = minimum
        self._maximum = maximum
        self._special = special
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setFont(theme.font(13, tabular=True))
        self.setLineEdit(JobLineEdit())
        # The style sheet's padding and height do not reach into a spin box.
        self.lineEdit().setTextMargins(8, 0, 0, 0)
        self.setFixedHeight(32)
        self.lineEdit().setPlaceholderText(special)
        self.lineEdit().textChanged.connect(lambda _: self.valueChanged.emit(self.value()))

    def minimum(self) -> float | None:
        return self._minimum

    def maximum(self) -> float | None:
        return self._maximum

    def value(self) -> int | float | str:
        """The number, or the text when it is none."""
        text = self.lineEdit().text().strip()
        if not text and self._special and self._minimum is not None:
            return int(self._minimum) if self._whole else self._minimum
        number = _parsed(text)
        if number is None:
            return text
        return int(number) if self._whole and number.is_integer() else number

    def setValue(self, value: int | float | str) -> None:
        if value == self.value() and self.lineEdit().text():
            return  # 0.001 stays 0.001 when it is told that it is 1e-3
        if self._special and value == self._minimum:
            self.lineEdit().setText("")
        else:
            self.lineEdit().setText(value if isinstance(value, str) else f"{value:.10g}")

    def stepBy(self, steps: int) -> None:
        value = self.value()
        if isinstance(value, str):
            return
        stepped = value + steps if self._whole else _stepped(value, steps)
        if self._minimum is not None:
            stepped = max(self._minimum, stepped)
        if self._maximum is not None:
            stepped = min(self._maximum, stepped)
        self.setValue(int(stepped) if self._whole else stepped)

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:
        both = QAbstractSpinBox.StepEnabledFlag
        return both.StepUpEnabled | both.StepDownEnabled

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


def _parsed(text: str) -> float | None:
    """Read both 0.001 and what the person's locale makes of it, such as 0,001."""
    try:
        number = float(text)
    except ValueError:
        number, understood = QLocale().toDouble(text)
        if not understood:
            return None
    return number if math.isfinite(number) else None


def _stepped(value: float, steps: int) -> float:
    """One more or less in the first digit: 2e-4 to 3e-4, 1 to 2, and 1e-4 down to 9e-5."""
    for _ in range(abs(steps)):
        size = abs(value) or 0.01
        exponent = math.floor(math.log10(size) + 1e-9)
        if steps < 0 and math.isclose(size, 10.0**exponent):
            exponent -= 1
        value = round(value + math.copysign(10.0**exponent, steps), 12)
    return value
