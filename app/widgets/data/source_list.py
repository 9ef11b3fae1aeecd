"""Several sources learned from at once, each with its share of the mixture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from PySide6.QtCore import QCoreApplication, QSignalBlocker, Qt, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QFont
from PySide6.QtWidgets import QButtonGroup, QGridLayout, QRadioButton, QVBoxLayout, QWidget

from app import theme
from app.draft import JobDraft
from app.i18n import integer, number
from app.widgets import wording
from app.widgets.card import (
    ElidedLabel,
    ErrorLabel,
    QuietButton,
    SecondaryButton,
    plain_tool_tip,
    secondary_label,
)
from app.widgets.inputs import NumberEdit
from app.widgets.path_picker import PathPicker

MAX_WEIGHT = 1_000_000


class SourceList(QWidget):
    """One line for each source, once there is more than one, and a way to add another.

    `selected` says which source the rest of the page is about: the others only read it.
    """

    selected = Signal(int)

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAcceptDrops(True)
        self._draft = draft
        self._current = 0
        self._counts: list[int | None] = []
        self._lines: list[_Line] = []
        self._group = QButtonGroup(self)
        self._group.idClicked.connect(self.select)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        self._table = QWidget()
        self._grid = QGridLayout(self._table)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(16)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(1, 1)
        titles = (self.tr("Shown"), self.tr("Data"), self.tr("Weight"), self.tr("Share"))
        for place, title in enumerate(titles):
            self._grid.addWidget(secondary_label(title), 0, place)
        self._error = ErrorLabel("error_dataset_sources")
        self._note = secondary_label(wrap=True)
        self._add = SecondaryButton(self.tr("Add more data"))
        self._add.setObjectName("addSourceButton")
        self._add.clicked.connect(self._ask)
        self._picker = PathPicker(
            "addSourceEdit",
            self.tr("Data to add"),
            self.tr("Data files (*.jsonl *.json *.csv *.tsv *.parquet *.xlsx *.txt *.md)")
            + self.tr(";;All files (*)"),
        )
        self._picker.edit.setPlaceholderText(
            self.tr("A file, a folder or a Hub dataset to learn from too")
        )
        self._picker.picked.connect(self._on_picked)
        self._picker.hide()
        layout.addWidget(self._table)
        layout.addWidget(self._error)
        layout.addWidget(self._note)
        layout.addWidget(self._picker)
        layout.addWidget(self._add, 0, Qt.AlignmentFlag.AlignLeft)
        draft.changed.connect(self._on_draft_changed)
        self._show()

    def current(self) -> int:
        """Which source the rest of the page is about."""
        return self._current

    def select(self, index: int) -> None:
        """Let the rest of the page be about this source."""
        if index != self._current:
            self._current = index
            self._show()
            self.selected.emit(index)

    def set_counts(self, counts: Sequence[int | None]) -> None:
        """How many rows each source has; None where that is not known yet."""
        self._counts = list(counts)
        self._show_shares()

    def show_problem(self, field: str, message: str) -> bool:
        """Say below the list what is wrong; False for another field."""
        if field == "dataset.sources":
            self._error.show_error(message)
        return field == "dataset.sources"

    # ---------------------------------------------------------------------------- what is asked

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if any(url.isLocalFile() for url in event.mimeData().urls()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        event.acceptProposedAction()
        for url in event.mimeData().urls():
            if url.isLocalFile():
                self._draft.add_source(url.toLocalFile())

    def _ask(self) -> None:
        self._picker.show()
        self._add.hide()
        self._picker.edit.setFocus()

    def _on_picked(self, path: str) -> None:
        self._picker.set_path("")
        self._picker.hide()
        self._add.show()
        self._add.setFocus()
        if path:
            self._draft.add_source(path)

    def _on_weight(self, index: int, value: Any) -> None:
        self._draft.set_source(index, {"weight": None if value in (0, "") else value}, merge=True)

    def _on_draft_changed(self, field: str) -> None:
        if field in ("dataset.sources", "dataset.path"):
            self._show()

    # ---------------------------------------------------------------------------- what is shown

    def _show(self) -> None:
        sources = self._draft.sources()
        paths = [str(source["path"]) for source in sources]
        if [line.path for line in self._lines] != paths:
            self._make_lines(paths)
        if self._current >= len(sources):
            self._current = len(sources) - 1
            self.selected.emit(self._current)
        for index, (line, source) in enumerate(zip(self._lines, sources, strict=True)):
            line.choice.setChecked(index == self._current)
            with QSignalBlocker(line.weight):
                weight = source["weight"]
                line.weight.setValue(0 if weight is None else weight)
        self._table.setVisible(len(sources) > 1)
        self._show_shares()

    def _make_lines(self, paths: list[str]) -> None:
        for line in self._lines:
            line.clear(self._group)
        self._lines = []
        for index, path in enumerate(paths):
            line = _Line(path, index)
            self._group.addButton(line.choice, index)
            line.weight.valueChanged.connect(
                lambda value, index=index: self._on_weight(index, value)
            )
            line.remove.clicked.connect(lambda _, index=index: self._draft.remove_source(index))
            for place, part in enumerate(line.parts()):
                self._grid.addWidget(part, index + 1, place)
            self._lines.append(line)
        order: list[QWidget] = []
        for line in self._lines:
            order += [line.choice, line.weight, line.remove]
        order += [self._picker.edit, self._picker.button, self._add]
        for before, after in itertools.pairwise(order):
            self.setTabOrder(before, after)

    def _show_shares(self) -> None:
        sources = self._draft.sources()
        weights = [source["weight"] for source in sources]
        wrong = next((i for i, weight in enumerate(weights) if not _is_weight(weight)), None)
        several = len(sources) > 1
        self._error.show_error(
            ""
            if wrong is None or not several
            else self.tr("The weight of {name} is a number above 0, or empty.").format(
                name=wording.data_name(self._lines[wrong].path)
            )
        )
        weighted = any(weight is not None for weight in weights)
        counts = self._counts if len(self._counts) == len(sources) else [None] * len(sources)
        sizes = [(1 if w is None else w) for w in weights] if weighted else counts
        known = wrong is None and all(size is not None for size in sizes)
        total = sum(size or 0 for size in sizes) if known else 0
        for line, part in zip(self._lines, sizes, strict=True):
            share = (part or 0) / total if total else None
            line.share.setText("" if share is None else _percent(share))
            line.weight.lineEdit().setPlaceholderText("1" if weighted else self.tr("by rows"))
        rows = [count for count in counts if count is not None]
        note = ""
        if several and not weighted:
            note = self.tr("Every row is learned from once an epoch. Weights change that.")
        elif several:
            note = self.tr("Weights are shares of an epoch; data too small for theirs repeat.")
        if note and len(rows) == len(sources):
            all_rows = self.tr("{count} rows in all.").format(count=integer(sum(rows)))
            note = f"{note} {all_rows}"
        self._note.setText(note)
        self._note.setVisible(bool(note))


class _Line:
    """The parts of one source's line."""

    def __init__(self, path: str, index: int) -> None:
        self.path = path
        name = wording.data_name(path)
        self.choice = QRadioButton()
        self.choice.setObjectName(f"source_{index}")
        self.choice.setAccessibleName(_tr("Show the rows of {name}").format(name=name))
        self.name = ElidedLabel(path if path != "demo" else name)
        self.name.setToolTip(plain_tool_tip(path))
        self.weight = _WeightEdit()
        self.weight.setObjectName(f"weight_{index}")
        self.weight.setAccessibleName(_tr("Weight of {name}").format(name=name))
        self.share = secondary_label()
        self.share.setFont(theme.font(13, QFont.Weight.Normal, tabular=True))
        self.share.setMinimumWidth(56)
        self.remove = QuietButton(_tr("Remove"))
        self.remove.setObjectName(f"removeSource_{index}")
        self.remove.setAccessibleName(_tr("Remove {name}").format(name=name))

    def parts(self) -> tuple[QWidget, ...]:
        return (self.choice, self.name, self.weight, self.share, self.remove)

    def clear(self, group: QButtonGroup) -> None:
        group.removeButton(self.choice)
        for part in self.parts():
            part.hide()
            part.deleteLater()


class _WeightEdit(NumberEdit):
    """A number above 0, or nothing; the first step up from nothing is 1."""

    def __init__(self) -> None:
        super().__init__(whole=False, minimum=0, maximum=MAX_WEIGHT, special=_tr("by rows"))
        self.setFixedWidth(112)

    def stepBy(self, steps: int) -> None:
        if self.value() == 0 and steps > 0:
            self.setValue(1)
        else:
            super().stepBy(steps)


def _is_weight(weight: Any) -> bool:
    if weight is None:
        return True
    return not isinstance(weight, (str, bool)) and 0 < weight <= MAX_WEIGHT


def _percent(share: float) -> str:
    return f"{number(share * 100, 0 if share in (0, 1) or share >= 0.1 else 1)} %"


def _tr(text: str) -> str:
    return QCoreApplication.translate("SourceList", text)
