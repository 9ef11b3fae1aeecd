"""Settings to begin with, as one choice: those of the program, and one's own."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QStyle, QStyleOptionComboBox, QStylePainter, QWidget

from app.background import Latest
from app.draft import JobDraft
from app.widgets.card import plain_tool_tip
from app.widgets.inputs import SteadyComboBox
from app.widgets.settings import setting_words
from app.widgets.wording import one_line
from training_backend.starting_points.presets import Preset, own_presets, presets

WIDTH = 220
LIST_WIDTH = 300


class PresetChoice(SteadyComboBox):
    """Shows the preset that the settings are, or which one they were before a change."""

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("presetCombo")
        self.setAccessibleName(self.tr("Preset"))
        self.setFixedWidth(WIDTH)
        self.view().setMinimumWidth(LIST_WIDTH)
        self.view().setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self._draft = draft
        self._own: tuple[Preset, ...] = ()
        self._last: Preset | None = None
        self._read = Latest(self)
        self._fill()
        self.activated.connect(self._on_activated)
        draft.changed.connect(lambda _: self._show())
        self.reload()

    def reload(self, chosen: str = "") -> None:
        """Read one's own presets again.

        Args:
            chosen: the title of the one that the settings are now.
        """

        def take(found: tuple[Preset, ...]) -> None:
            last = chosen or (self._last.title if self._last else "")
            self._own = found
            self._last = next((one for one in self._all() if one.title == last), None)
            self._fill()

        self._read.ask(own_presets, take, lambda _: None)

    def own_titles(self) -> list[str]:
        return [preset.title for preset in self._own]

    def own(self) -> Preset | None:
        """The preset of one's own that is shown, changed or not."""
        return self._last if self._last in self._own else None

    def paintEvent(self, event: QPaintEvent) -> None:
        """A long title is cut in the middle; the tool tip has the whole."""
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        control, part = QStyle.ComplexControl.CC_ComboBox, QStyle.SubControl.SC_ComboBoxEditField
        room = self.style().subControlRect(control, option, part, self).width()
        option.currentText = self.fontMetrics().elidedText(
            self.currentText(), Qt.TextElideMode.ElideMiddle, room
        )
        painter.drawComplexControl(control, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def showPopup(self) -> None:
        """Each preset says what it would change now."""
        for index in range(self.count()):
            preset = self.itemData(index)
            if isinstance(preset, Preset):
                tip = "\n".join([*_description(preset), *self.would_change(preset)])
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

    def _all(self) -> tuple[Preset, ...]:
        return (*presets(), *self._own)

    def _fill(self) -> None:
        self.clear()
        self.addItem("")  # what the settings are when they are no preset
        for preset in presets():
            self.addItem(_tr(preset.title), preset)
        for preset in self._own:
            self.addItem(one_line(preset.title), preset)
        self._show()

    def _on_activated(self, index: int) -> None:
        preset = self.itemData(index)
        if isinstance(preset, Preset):
            self._last = preset
            self._draft.set_values(preset.values)
        self._show()

    def _show(self) -> None:
        values = {field: self._draft.value(field) for one in self._all() for field in one.values}
        fitting = [one for one in self._all() if one.matches(values)]
        # Of several the one that was chosen, else the one that says most.
        found = (
            self._last
            if self._last in fitting
            else max(fitting, key=lambda one: len(one.values), default=None)
        )
        self._last = found or self._last
        changed = self.tr("{preset}, changed")
        own = (
            changed.format(preset=one_line(_tr(self._last.title)))
            if self._last
            else self.tr("Own settings")
        )
        self.setItemText(0, own)
        at = [index for index in range(self.count()) if self.itemData(index) == found]
        self.setCurrentIndex(at[0] if found is not None else 0)
        if found is not None:
            described = _description(found) or [found.title]
        elif self._last:
            described = [
                self.tr("Back to the preset would change:"),
                *self.would_change(self._last),
            ]
        else:
            described = [self.tr("Settings for common cases, to begin with.")]
        self.setToolTip(plain_tool_tip("\n".join(described)))


def _description(preset: Preset) -> list[str]:
    return [_tr(preset.description)] if preset.description else []


def _tr(text: str) -> str:
    return QCoreApplication.translate("presets", text)
