"""The switch “work offline”, which holds for the whole program and is remembered."""

from __future__ import annotations

from PySide6.QtCore import QSignalBlocker, Signal
from PySide6.QtWidgets import QCheckBox, QWidget

from app.background import Latest
from app.error_dialog import show_error
from training_backend import preferences


class OfflineSwitch(QCheckBox):
    """Says by `changed` that every process obeys the other state now."""

    changed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setText(self.tr("Work offline"))
        self.setObjectName("workOffline")
        self.setAccessibleName(self.tr("Work offline"))
        offline = preferences.is_offline()
        self.setChecked(offline)
        self._wanted = offline
        self._keeping = Latest(self)
        if offline and not preferences.load().work_offline:
            self.setEnabled(False)
            self.setToolTip(self.tr("HF_HUB_OFFLINE was set before the program started."))
        else:
            self.setToolTip(self.tr("Opens no connection: uses what is on this computer."))
        self.toggled.connect(self._keep)

    def _keep(self, on: bool) -> None:
        self._wanted = on

        def save() -> None:
            preferences.change(lambda: {"work_offline": self._wanted})

        self._keeping.ask(save, lambda _: self.changed.emit(on), self._on_error)

    def _on_error(self, error: Exception) -> None:
        with QSignalBlocker(self):
            self.setChecked(preferences.is_offline())
        show_error(self.window(), self.tr("This cannot be remembered"), error)
