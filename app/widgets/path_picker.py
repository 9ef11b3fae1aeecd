"""A path that is typed, picked in a dialog, or dropped."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import QCompleter, QFileDialog, QHBoxLayout, QLineEdit, QWidget

from app.widgets.card import SecondaryButton


class PathPicker(QWidget):
    """A line for a file's path with a button beside it.

    `picked` comes when the person is done: return pressed, focus left, chosen or dropped.
    """

    picked = Signal(str)

    def __init__(
        self,
        object_name: str,
        accessible_name: str,
        filters: str,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._filters = filters
        self._last = ""
        self.edit = QLineEdit()
        self.edit.setObjectName(object_name)
        self.edit.setAccessibleName(accessible_name)
        self.edit.setAcceptDrops(False)  # the whole page takes a dropped file
        self.edit.editingFinished.connect(self._on_finished)
        self.button = SecondaryButton(self.tr("Choose file"))
        self.button.clicked.connect(self.browse)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addWidget(self.edit, 1)
        layout.addWidget(self.button)

    def suggest(self, paths: list[str]) -> None:
        """Paths to complete what is typed from."""
        completer = QCompleter(paths, self)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        self.edit.setCompleter(completer)

    def set_path(self, path: str) -> None:
        """Show a path without reporting it."""
        self._last = path
        if self.edit.text() != path:
            self.edit.setText(path)

    def pick(self, path: str) -> None:
        """Take a path as if the person had typed it."""
        self.edit.setText(path)
        self._on_finished()

    def browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, self.edit.accessibleName(), self._last, self._filters
        )
        if path:
            self.pick(path)

    def _on_finished(self) -> None:
        path = self.edit.text().strip()
        if path != self._last:
            self._last = path
            self.picked.emit(path)


def dropped_path(event: QDragEnterEvent | QDropEvent) -> str:
    """The local file or folder that is being dropped, or an empty string."""
    urls = event.mimeData().urls()
    return urls[0].toLocalFile() if len(urls) == 1 else ""
