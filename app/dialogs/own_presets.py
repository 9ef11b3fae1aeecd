"""The lines of a menu that save, rename and delete presets of one's own."""

from __future__ import annotations

from PySide6.QtCore import QObject, Qt

from app import error_dialog
from app.background import run_in_background
from app.dialogs.preset_dialog import PresetDialog
from app.dialogs.question import Role, ask
from app.draft import JobDraft, problems_of
from app.i18n import integer
from app.widgets.card import plain_tool_tip
from app.widgets.menu_button import MenuButton
from app.widgets.settings.preset_choice import PresetChoice
from app.widgets.wording import one_line
from training_backend.starting_points import presets


class OwnPresets(QObject):
    """Adds its lines to `menu`; what is renamed or deleted is the preset that `choice` shows."""

    def __init__(self, draft: JobDraft, choice: PresetChoice, menu: MenuButton) -> None:
        super().__init__(menu)
        self._draft = draft
        self._choice = choice
        self._menu = menu
        self._save = menu.add("savePreset", self.tr("Save as preset…"), self._ask_to_save)
        self._rename = menu.add("renamePreset", "", self._ask_to_rename)
        self._delete = menu.add("deletePreset", "", self._ask_to_delete)
        menu.menu().aboutToShow.connect(self.update)
        self.update()

    def update(self) -> None:
        """Say what can be done now, and to which preset."""
        wrong = len(problems_of(self._draft))
        self._save.setEnabled(not wrong)
        why_not = self.tr("{count} settings need a look first.").format(count=integer(wrong))
        self._save.setToolTip(plain_tool_tip(why_not) if wrong else "")
        own = self._choice.own()
        for action, named, plain in (
            (self._rename, self.tr("Rename “{preset}”…"), self.tr("Rename preset…")),
            (self._delete, self.tr("Delete “{preset}”…"), self.tr("Delete preset…")),
        ):
            action.setEnabled(own is not None)
            title = one_line(own.title) if own else ""
            # An ampersand would underline what follows it.
            action.setText(named.format(preset=title.replace("&", "&&")) if own else plain)
            # Without a tip of its own it would show its text as one, and that as markup.
            why_not = self.tr("Choose a preset of your own first.")
            action.setToolTip(plain_tool_tip(title or why_not))

    def _ask_to_save(self) -> None:
        values = {field: self._draft.value(field) for field in presets.fields()}
        own = self._choice.own()
        dialog = PresetDialog(
            self.tr("Save as preset"),
            own.title if own else "",
            self._choice.own_titles(),
            lambda title: presets.save_own(title, values),
            self._menu.window(),
        )
        self._open(dialog)

    def _ask_to_rename(self) -> None:
        own = self._choice.own()
        if own is None:
            return
        old = own.title
        dialog = PresetDialog(
            self.tr("Rename the preset"),
            old,
            (),
            lambda title: presets.rename_own(old, title),
            self._menu.window(),
        )
        self._open(dialog)

    def _open(self, dialog: PresetDialog) -> None:
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.kept.connect(self._choice.reload)
        dialog.open()

    def _ask_to_delete(self) -> None:
        own = self._choice.own()
        if own is None:
            return
        ask(
            self._menu.window(),
            "deletePresetDialog",
            self.tr("Delete the preset “{preset}”?").format(preset=one_line(own.title)),
            self.tr("The settings stay as they are."),
            [(self.tr("Delete"), Role.DestructiveRole, lambda: self._remove(own.title))],
            self.tr("Cancel"),
        )

    def _remove(self, title: str) -> None:
        run_in_background(
            lambda: presets.delete_own(title),
            lambda _: self._choice.reload(),
            lambda error: error_dialog.show_error(
                self._menu.window(), self.tr("The preset cannot be deleted"), error
            ),
            self,
        )
