"""How the memory of a job is counted: each part with its formula and where that is from."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import (
    QApplication,
    QDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.widgets import figures
from app.widgets.card import (
    PrimaryButton,
    SecondaryButton,
    number_label,
    page_title,
    plain_label,
    scroll_area,
    secondary_label,
)
from app.widgets.dialog_parts import dialog_layout
from app.widgets.settings import memory_words
from training_backend.vram import Estimate, Part


class MemoryDialog(QDialog):
    """One row a part; follows the settings while it is open."""

    def __init__(self, estimate: Estimate, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("memoryDialog")
        self.setWindowTitle(self.tr("How the memory is counted"))
        self.resize(760, 600)
        outer = dialog_layout(self)
        outer.addWidget(page_title(self.windowTitle()))
        self._verdict = plain_label(wrap=True)
        self._verdict.setFont(theme.font(13, tabular=True))
        outer.addWidget(self._verdict)
        self._content = content = QWidget()
        content.setObjectName("scrolled")
        self._rows = QVBoxLayout(content)
        self._rows.setContentsMargins(0, 0, 12, 0)
        self._rows.setSpacing(12)
        self._area = scroll_area(content)
        outer.addWidget(self._area, 1)
        buttons = QHBoxLayout()
        copy = SecondaryButton(self.tr("Copy"))
        copy.clicked.connect(self._copy)
        close = PrimaryButton(self.tr("Close"))
        close.setDefault(True)
        close.clicked.connect(self.accept)
        buttons.addWidget(copy)
        buttons.addStretch(1)
        buttons.addWidget(close)
        outer.addLayout(buttons)
        self._parts: dict[str, QWidget] = {}
        self._chosen = ""
        self._estimate = estimate
        self._show_rows()

    def show_estimate(self, estimate: Estimate) -> None:
        """Show this one in place of the last; what stays the same is not touched."""
        old, self._estimate = self._estimate, estimate
        if (old.parts, old.needs) != (estimate.parts, estimate.needs):
            self._show_rows()
        self._verdict.setText(memory_words.verdict(estimate)[0])

    def _show_rows(self) -> None:
        estimate = self._estimate
        self._verdict.setText(memory_words.verdict(estimate)[0])
        while (item := self._rows.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.setParent(None)
                widget.deleteLater()
        self._parts = {}
        for part in estimate.parts:
            row = self._part_row(part)
            row.setProperty("chosen", part.name == self._chosen)
            self._parts[part.name] = row
            self._rows.addWidget(row)
        self._rows.addWidget(self._needs())
        self._rows.addStretch(1)

    def select(self, part: str) -> None:
        """Bring a part into view."""
        self._chosen = part
        self._show_rows()
        row = self._parts.get(part)
        if row is not None:
            self._content.adjustSize()
            self._area.ensureWidgetVisible(row)

    def _part_row(self, part: Part) -> QWidget:
        row = QFrame()
        row.setProperty("boxed", True)
        grid = QGridLayout(row)
        grid.setContentsMargins(12, 10, 12, 10)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        name = plain_label(memory_words.part_name(part.name))
        name.setFont(theme.font(13, QFont.Weight.DemiBold))
        name.setMinimumWidth(110)
        grid.addWidget(name, 0, 0, Qt.AlignmentFlag.AlignTop)
        formula = plain_label(part.formula, wrap=True)
        formula.setFont(theme.font(13, tabular=True))
        formula.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        grid.addWidget(formula, 0, 1)
        size = number_label(figures.size(part.bytes), 14)
        grid.addWidget(size, 0, 2, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignRight)
        source = self.tr("Source: {source}").format(source=part.source)
        grid.addWidget(secondary_label(source, wrap=True), 1, 1, 1, 2)
        moved = self.tr("Changed by: {what}").format(what=memory_words.part_moved_by(part.name))
        grid.addWidget(secondary_label(moved, wrap=True), 2, 1, 1, 2)
        return row

    def _needs(self) -> QWidget:
        holder = QWidget()
        grid = QGridLayout(holder)
        grid.setContentsMargins(12, 4, 12, 0)
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(4)
        title = plain_label(self.tr("What else it needs"))
        title.setFont(theme.font(13, QFont.Weight.DemiBold))
        grid.addWidget(title, 0, 0, 1, 2)
        for index, (name, amount) in enumerate(memory_words.needs(self._estimate), start=1):
            grid.addWidget(secondary_label(name), index, 0)
            value = plain_label(amount)
            value.setFont(theme.font(13, tabular=True))
            grid.addWidget(value, index, 1, Qt.AlignmentFlag.AlignRight)
        grid.setColumnStretch(2, 1)
        return holder

    def _copy(self) -> None:
        found = self._estimate
        lines = [memory_words.device_name(found.device), self._verdict.text(), ""]
        lines += [
            f"{memory_words.part_name(part.name)}: {figures.size(part.bytes)}. {part.formula}. "
            f"{part.source}"
            for part in found.parts
        ]
        lines += ["", *(f"{name}: {amount}" for name, amount in memory_words.needs(found))]
        QApplication.clipboard().setText("\n".join(lines))
