"""Settings for common cases to begin with, as one choice."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QWidget

from app.draft import JobDraft
from app.widgets.card import plain_tool_tip
from app.widgets.inputs import SteadyComboBox
from training_backend.presets import Preset, presets


class PresetChoice(SteadyComboBox):
    """Shows the preset that the settings are, or which one they were before a change."""

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("presetCombo")
        self.setAccessibleName(self.tr("Preset"))
        self.setFixedWidth(190)
        self._draft = draft
        self._last: Preset | None = None
        self.addItem("")  # what the settings are when they are no preset
        for preset in presets():
            self.addItem(_tr(preset.title), preset)
            tip = plain_tool_tip(_tr(preset.description))
            self.setItemData(self.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.activated.connect(self._on_activated)
        draft.changed.connect(lambda _: self._show())
        self._show()

    def _on_activated(self, index: int) -> None:
        preset = self.itemData(index)
        if isinstance(preset, Preset):
            self._last = preset
            self._draft.set_values(preset.values)
        self._show()

    def _show(self) -> None:
        values = {field: self._draft.value(field) for one in presets() for field in one.values}
        found = next((index for index, one in enumerate(presets(), 1) if one.matches(values)), 0)
        self._last = presets()[found - 1] if found else self._last
        changed = self.tr("{preset}, changed")
        own = (
            changed.format(preset=_tr(self._last.title)) if self._last else self.tr("Own settings")
        )
        self.setItemText(0, own)
        self.setCurrentIndex(found)
        described = _tr(presets()[found - 1].description) if found else self.tr("A preset to start")
        self.setToolTip(plain_tool_tip(described))


def _tr(text: str) -> str:
    return QCoreApplication.translate("presets", text)
