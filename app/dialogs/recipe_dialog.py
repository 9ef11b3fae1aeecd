"""What a job file would change, part by part, before anything is changed."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication, Signal
from PySide6.QtGui import QFont
from PySide6.QtWidgets import (
    QCheckBox,
    QDialog,
    QGridLayout,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.widgets import figures, wording
from app.widgets.card import (
    ElidedLabel,
    PrimaryButton,
    page_title,
    plain_label,
    scroll_area,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_foot, dialog_layout
from app.widgets.settings import setting_words
from training_backend.starting_points.recipes import PARTS, Change, Part, Recipe

INDENT = 28
TITLE_WIDTH = 200
MOST_SIGNS = 500


class RecipeDialog(QDialog):
    """`chosen` carries the new values of the ticked parts, one step of undo."""

    chosen = Signal(object)  # a dict would come with its keys sorted

    def __init__(
        self, recipe: Recipe, changes: list[Change], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setObjectName("recipeDialog")
        self.setWindowTitle(self.tr("Open settings"))
        self.resize(820, 600)
        self._recipe = recipe
        self._changes = changes
        self._boxes: dict[Part, QCheckBox] = {}
        outer = dialog_layout(self)
        outer.addWidget(page_title(self.tr("What would change")))
        source = ElidedLabel(_cut(recipe.title))
        source.setProperty("role", "secondary")
        outer.addWidget(source)
        outer.addWidget(self._parts(), 1)
        outer.addLayout(self._foot())
        self._count()

    def _parts(self) -> QWidget:
        content = QWidget()
        content.setObjectName("scrolled")
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 12, 0)
        column.setSpacing(4)
        for part in PARTS:
            changes = [change for change in self._changes if change.part == part]
            if changes:
                column.addWidget(self._tick(part))
                for path in self._recipe.missing.get(part, ()):
                    column.addWidget(self._missing(path))
                column.addLayout(_table(changes, with_heads=len(self._boxes) == 1))
                column.addSpacing(12)
        for note in self._notes():
            column.addWidget(secondary_label(note, wrap=True))
        column.addStretch(1)
        return scroll_area(content)

    def _tick(self, part: Part) -> QCheckBox:
        """What lies on another computer is not taken over without being asked for."""
        titles = {
            "model": self.tr("Model"), "data": self.tr("Data"), "settings": self.tr("Settings"),
        }  # fmt: skip
        box = QCheckBox(titles[part])
        box.setObjectName(f"recipe_{part}")
        box.setFont(theme.font(14, QFont.Weight.DemiBold))
        box.setChecked(part not in self._recipe.missing)
        box.toggled.connect(self._count)
        self._boxes[part] = box
        return box

    def _missing(self, path: str) -> QWidget:
        label = ElidedLabel(
            self.tr("Not on this computer: {path}").format(path=wording.visible(path))
        )
        label.setObjectName("recipeMissing")
        label.setProperty("role", "careful")
        label.setContentsMargins(INDENT, 0, 0, 4)
        return label

    def _notes(self) -> list[str]:
        notes = []
        if not self._changes:
            notes.append(self.tr("All of it is set like this already."))
        if not self._recipe.names("model") and not self._recipe.names("data"):
            notes.append(self.tr("It names neither a model nor data: yours stay."))
        elif not self._recipe.names("model"):
            notes.append(self.tr("It names no model: yours stays."))
        elif not self._recipe.names("data"):
            notes.append(self.tr("It names no data: yours stay."))
        return notes

    def _foot(self) -> QHBoxLayout:
        self._apply = PrimaryButton("")
        self._apply.setObjectName("recipeApply")
        self._apply.clicked.connect(self._choose)
        note = secondary_label(self.tr("Ctrl+Z takes it back in one step."))
        return dialog_foot(self, self._apply, note)

    def _picked(self) -> list[Change]:
        return [change for change in self._changes if self._boxes[change.part].isChecked()]

    def _count(self) -> None:
        count = len(self._picked())
        self._apply.setEnabled(count > 0)
        self._apply.setText(
            self.tr("Apply {count}").format(count=figures.count(count))
            if count
            else self.tr("Nothing to change")
        )
        self._apply.setAccessibleName(self._apply.text())

    def _choose(self) -> None:
        self.chosen.emit({change.field: change.then for change in self._picked()})
        self.accept()


def _table(changes: list[Change], *, with_heads: bool) -> QGridLayout:
    grid = QGridLayout()
    grid.setContentsMargins(INDENT, 0, 0, 0)
    grid.setHorizontalSpacing(16)
    grid.setVerticalSpacing(4)
    grid.setColumnMinimumWidth(0, TITLE_WIDTH)
    grid.setColumnStretch(1, 1)
    grid.setColumnStretch(2, 1)
    for column, head in enumerate((_tr("Setting"), _tr("Now"), _tr("Then")) if with_heads else ()):
        grid.addWidget(secondary_label(head), 0, column)
    for row, change in enumerate(changes, start=1):
        title = setting_words.title(change.field)
        grid.addWidget(plain_label(title), row, 0)
        now = _cut(setting_words.value(change.now, change.field))
        then = _cut(setting_words.value(change.then, change.field))
        for column, text in ((1, now), (2, then)):
            label = ElidedLabel(text)
            label.setFont(theme.font(13, tabular=True))
            label.setAccessibleName(
                _tr("{setting}: {before} → {after}").format(setting=title, before=now, after=then)
            )
            if column == 1:
                label.setProperty("role", "secondary")
            grid.addWidget(label, row, column)
    return grid


def _cut(text: str) -> str:
    """As much as a line and its tool tip show; a file from anywhere may hold megabytes."""
    return wording.visible(text if len(text) <= MOST_SIGNS else f"{text[:MOST_SIGNS]}…")


def _tr(text: str) -> str:
    return QCoreApplication.translate("RecipeDialog", text)
