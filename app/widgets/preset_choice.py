"""Settings for common cases to begin with, as one choice."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtWidgets import QWidget

from app.draft import JobDraft
from app.widgets import setting_words
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
        self.activated.connect(self._on_activated)
        draft.changed.connect(lambda _: self._show())
        self._show()

    def showPopup(self) -> None:
        """Each preset says what it would change now."""
        for index, preset in enumerate(presets(), 1):
            tip = "\n".join([_tr(preset.description), *self.would_change(preset)])
            self.setItemData(index, plain_tool_tip(tip), Qt.ItemDataRole.ToolTipRole)
        super().showPopup()

    def would_change(self, preset: Preset) -> list[str]:
        """The settings that differ from the preset's, a line each."""
        pairs = {
            field: (self._draft.value(field), value)
            for field, value in preset.values.items()
            if self._draft.value(field) != value
        }
        return setting_words.changes(pairs)

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
        if found:
            described = [_tr(presets()[found - 1].description)]
        elif self._last:
            described = [
                self.tr("Back to the preset would change:"),
                *self.would_change(self._last),
            ]
        else:
            described = [self.tr("Settings for common cases, to begin with.")]
        self.setToolTip(plain_tool_tip("\n".join(described)))


def _tr(text: str) -> str:
    return QCoreApplication.translate("presets", text)
