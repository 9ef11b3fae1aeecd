"""Files with their sizes, in a narrow column."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from app import i18n, theme
from app.widgets.card import ElidedLabel, secondary_label

MOST = 10  # lines; the largest files


class FileList(QWidget):
    """How many files and how much in all, then the files, then what is left out."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("fileList")
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(2)
        self._grid.setColumnStretch(0, 1)

    def show_files(self, files: list[dict[str, Any]], left_out: list[str]) -> None:
        """Args: `files` have a "name" and "bytes"."""
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        ordered = sorted(files, key=lambda file: -int(file["bytes"]))
        whole = sum(int(file["bytes"]) for file in files)
        self._line(self.tr("{count} files").format(count=i18n.integer(len(files))), whole)
        for file in ordered[:MOST]:
            self._line(str(file["name"]), int(file["bytes"]), secondary=True)
        rest = ordered[MOST:]
        if rest:
            more = self.tr("{count} more").format(count=i18n.integer(len(rest)))
            self._line(more, sum(int(file["bytes"]) for file in rest), secondary=True)
        if left_out:
            words = self.tr("Stays here: {names}").format(names=", ".join(left_out))
            label = ElidedLabel(words)
            label.setProperty("role", "secondary")
            self._grid.addWidget(label, self._grid.rowCount(), 0, 1, 2)

    def _line(self, name: str, count: int, *, secondary: bool = False) -> None:
        row = self._grid.rowCount()
        label = ElidedLabel(name)
        size = secondary_label(i18n.size(count))
        size.setFont(theme.font(13, tabular=True))
        if secondary:
            label.setProperty("role", "secondary")
        self._grid.addWidget(label, row, 0)
        self._grid.addWidget(size, row, 1, Qt.AlignmentFlag.AlignRight)
