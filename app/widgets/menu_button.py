"""What a page can do beside its main buttons, behind one button."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtGui import QAction
from PySide6.QtWidgets import QMenu, QWidget

from app.widgets.card import SecondaryButton


class MenuButton(SecondaryButton):
    """A button with a menu that grows by `add`."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self._menu = QMenu(self)
        self._menu.setToolTipsVisible(True)
        self.setMenu(self._menu)

    def add(self, name: str, text: str, act: Callable[[], object], keys: str = "") -> QAction:
        """One more line of the menu.

        Args:
            name: the action's object name.
            keys: a shortcut of the window that does the same, to be seen beside the text.
        """
        action = self._menu.addAction(f"{text}\t{keys}" if keys else text)
        action.setObjectName(name)
        action.triggered.connect(lambda: act())
        return action

    def add_separator(self) -> None:
        self._menu.addSeparator()
