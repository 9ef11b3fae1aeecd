"""The steps at the left, each with what is chosen, and the memory at the foot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PySide6.QtCore import QCoreApplication, Qt, QTimer, Signal
from PySide6.QtGui import QFont, QHideEvent, QMouseEvent, QShowEvent
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QMenu,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.background import run_in_background
from app.i18n import number
from app.widgets.card import ElidedLabel, QuietButton, secondary_label
from app.widgets.figures import GIGABYTE
from training_backend.computer import ram
from training_backend.computer.devices import chosen_gpu
from training_backend.computer.nvidia import GpuReader, find_cards

WIDTH = 208
READ_EVERY_MS = 1000


class NavButton(QPushButton):
    """One step. Its number is part of the text, as a person would read it out."""

    def __init__(self, object_name: str, title: str, number: int | None = None) -> None:
        super().__init__(f"{number}   {title}" if number else title)
        self.setObjectName(object_name)
        self.setAccessibleName(title)
        self.setCheckable(True)
        self.toggled.connect(self._on_toggled)
        self._on_toggled(False)

    def _on_toggled(self, checked: bool) -> None:
        weight = QFont.Weight.DemiBold if checked else QFont.Weight.Medium
        self.setFont(theme.font(13, weight, tabular=True))


class Sidebar(QFrame):
    """Says by `chosen` which step is asked for; `select` and `set_detail` show the state."""

    chosen = Signal(str)
    theme_chosen = Signal(str)
    hardware_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("sidebar")
        self.setFixedWidth(WIDTH)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(12, 14, 12, 20)
        self._layout.setSpacing(1)
        name = ElidedLabel("Lorasmith")
        name.setFont(theme.font(14, QFont.Weight.DemiBold))
        name.setContentsMargins(12, 0, 0, 0)
        self._layout.addWidget(name)
        self._layout.addSpacing(12)
        self._buttons: dict[str, NavButton] = {}
        self._details: dict[str, ElidedLabel] = {}
        steps = {
            "navModel": self.tr("Model"),
            "navDataset": self.tr("Data"),
            "navSettings": self.tr("Settings"),
            "navTrain": self.tr("Train"),
            "navChat": self.tr("Try it"),
            "navExport": self.tr("Export"),
        }
        for count, (object_name, title) in enumerate(steps.items(), start=1):
            self._add(NavButton(object_name, title, count))
        self._layout.addSpacing(12)
        self._add(NavButton("navRuns", self.tr("Runs")))
        self._layout.addStretch(1)
        self._offline = secondary_label(self.tr("Working offline"))
        self._offline.setObjectName("offlineNote")
        self._offline.setContentsMargins(12, 0, 0, 4)
        self._offline.setVisible(False)
        self._layout.addWidget(self._offline)
        self._theme = QuietButton(self.tr("Colours"))
        self._theme.setObjectName("themeButton")
        self._theme.setMenu(self._theme_menu())
        hardware = QuietButton(self.tr("Hardware"))
        hardware.setObjectName("hardwareButton")
        hardware.clicked.connect(self.hardware_requested)
        row = QHBoxLayout()
        row.setSpacing(0)
        row.addWidget(self._theme)
        row.addWidget(hardware)
        row.addStretch(1)
        self._layout.addLayout(row)
        self._layout.addSpacing(12)
        self.memory = MemoryMeter()
        self.memory.clicked.connect(self.hardware_requested)
        self._layout.addWidget(self.memory)

    def select(self, object_name: str) -> None:
        for name, button in self._buttons.items():
            button.setChecked(name == object_name)

    def set_detail(self, object_name: str, text: str) -> None:
        """What is chosen in this step, below its name."""
        self._details[object_name].setText(text)
        self._details[object_name].setVisible(bool(text))

    def set_offline(self, offline: bool) -> None:
        """Say at the foot that no connection is opened."""
        self._offline.setVisible(offline)

    def _theme_menu(self) -> QMenu:
        menu = QMenu(self)
        titles = {
            "system": self.tr("As the system"),
            "light": self.tr("Light"),
            "dark": self.tr("Dark"),
        }
        for name, title in titles.items():
            menu.addAction(title).triggered.connect(partial(self.theme_chosen.emit, name))
        return menu

    def _add(self, button: NavButton) -> None:
        name = button.objectName()
        button.clicked.connect(lambda: self.chosen.emit(name))
        self._buttons[name] = button
        self._layout.addWidget(button)
        detail = ElidedLabel()
        detail.setProperty("role", "secondary")
        detail.setContentsMargins(30, 0, 0, 8)
        detail.setVisible(False)
        self._details[name] = detail
        self._layout.addWidget(detail)


@dataclass(frozen=True)
class _Reading:
    name: str
    used: int
    total: int
    temperature: float | None


class MemoryMeter(QWidget):
    """The card's memory, or the computer's where there is no card; read every second."""

    clicked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(12, 0, 12, 0)
        layout.setSpacing(6)
        self._name = ElidedLabel()
        self._name.setProperty("role", "secondary")
        self._bar = QProgressBar()
        self._bar.setRange(0, 1000)
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName(self.tr("Memory in use"))
        self._text = ElidedLabel()
        self._text.setProperty("role", "secondary")
        self._text.setFont(theme.font(13, tabular=True))
        for part in (self._name, self._bar, self._text):
            layout.addWidget(part)
        self._reader: GpuReader | None = None
        self._opened = False
        self._reading = False
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip(self.tr("What this computer has, and what works on it"))
        self._timer = QTimer(self, interval=READ_EVERY_MS)
        self._timer.timeout.connect(self._read)
        self._show(_ram())

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        # With the keyboard, the button above does the same.
        if event.button() == Qt.MouseButton.LeftButton and self.rect().contains(
            event.position().toPoint()
        ):
            self.clicked.emit()

    def reopen(self) -> None:
        """Another card may have been chosen: look which one it is now."""
        self._opened = False

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _read(self) -> None:
        if not self._reading:
            self._reading = True
            run_in_background(self._sample, self._show, self._on_error, self)

    def _sample(self) -> _Reading:
        # Opening NVML takes a while, so it is done here, in the thread, and once.
        if not self._opened:
            self._opened = True
            if self._reader is not None:
                self._reader.close()
            gpu = chosen_gpu(find_cards().gpus)
            self._reader = GpuReader(gpu.uuid) if gpu else None
        sample = self._reader.read() if self._reader else None
        if sample is None:
            return _ram()
        return _Reading(
            sample.name, sample.used_bytes, sample.total_bytes, sample.temperature_celsius
        )

    def _show(self, reading: _Reading) -> None:
        self._reading = False
        self._name.setText(reading.name)
        self._bar.setValue(round(1000 * reading.used / max(1, reading.total)))
        text = self.tr("{used} of {total} GB").format(
            used=number(reading.used / GIGABYTE), total=number(reading.total / GIGABYTE)
        )
        if reading.temperature is not None:
            text += f", {number(reading.temperature, 0)} °C"
        self._text.setText(text)

    def _on_error(self, error: Exception) -> None:
        self._show(_ram())


def _ram() -> _Reading:
    memory = ram.read()
    name = QCoreApplication.translate("MemoryMeter", "Memory, no GPU found")
    return _Reading(name, memory.used_bytes, memory.total_bytes, None)
