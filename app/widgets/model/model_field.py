"""The field where a base model is looked for, or named: a title, owner/name, a folder."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, QSignalBlocker, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QWidget

from app.widgets.inputs import SteadyComboBox
from training_backend.hub import hub_cache
from training_backend.job import DEMO_MODEL_IDS

TYPING_PAUSE_MS = 400


class ModelField(SteadyComboBox):
    """Says after each pause in typing whether one model was named, or words to look for."""

    picked = Signal(str)  # the id of one in the list
    named = Signal(str)  # owner/name, an address or a folder
    searched = Signal(str)
    left_empty = Signal()
    entered = Signal()  # return or down: go on in the list
    cleared = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._searching = False
        self._pause = QTimer(self, singleShot=True, interval=TYPING_PAUSE_MS)
        self._pause.timeout.connect(self._take_text)
        self.setObjectName("modelCombo")
        self.setAccessibleName(self.tr("Base model"))
        self.setEditable(True)
        self.setInsertPolicy(SteadyComboBox.InsertPolicy.NoInsert)
        # What is typed are words to look for, not to be completed.
        self.setCompleter(None)  # type: ignore[arg-type]
        self.setMinimumContentsLength(20)
        self.setMaxVisibleItems(12)
        self.setSizeAdjustPolicy(
            SteadyComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        line = self.lineEdit()
        assert line is not None
        self._line = line
        line.setPlaceholderText(self.tr("Search, or type owner/name, an address or a folder"))
        line.installEventFilter(self)
        line.editingFinished.connect(self._take_text)
        line.returnPressed.connect(self._enter)
        self.activated.connect(lambda _: self._take_text())
        self.editTextChanged.connect(lambda _: self._pause.start())

    def set_models(self, models: list[tuple[str, str]]) -> None:
        """Titles and ids to choose from; what stands in the field stays."""
        with QSignalBlocker(self), QSignalBlocker(self._line):
            typed = self.currentText()
            self.clear()
            for title, id in models:
                self.addItem(title, id)
            self.setCurrentIndex(-1)
            self.setEditText(typed)

    def show_chosen(self, id: str) -> None:
        """Show the model that is chosen, without reporting it."""
        with QSignalBlocker(self), QSignalBlocker(self._line):
            index = self.findData(id)
            if index >= 0:
                self.setCurrentIndex(index)
            self.setEditText(self.itemText(index) if index >= 0 else id)
            self._line.setCursorPosition(0)

    def set_searching(self, searching: bool) -> None:
        """Whether words to look for stand in it, which are kept when it gets the focus."""
        self._searching = searching

    def begin_search(self, letters: str) -> None:
        """Take letters that were typed elsewhere."""
        self.setFocus()
        self.setEditText(letters)
        self._line.end(False)

    def is_typing(self) -> bool:
        return self._pause.isActive()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.FocusIn and not self._searching:
            QTimer.singleShot(0, self._line, self._line.selectAll)  # typing begins a search
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if event.key() == Qt.Key.Key_Down and not event.modifiers():
                self._enter()
                return True
            if event.key() == Qt.Key.Key_Escape:
                self.cleared.emit()
                return True
        return super().eventFilter(watched, event)

    def _enter(self) -> None:
        self._take_text()
        self.entered.emit()

    def _take_text(self) -> None:
        """Take what stands in the field: a title, a place of a model, or words to look for."""
        self._pause.stop()
        text = self.currentText().strip()
        index = self.currentIndex()
        if index < 0 or self.itemText(index) != text:  # two folders may have one name
            index = self.findText(text, Qt.MatchFlag.MatchFixedString)
        if index >= 0:
            self.picked.emit(str(self.itemData(index)))
        elif _is_place(text):
            self.named.emit(text)
        else:
            self.searched.emit(text)
            if not text and not self._line.hasFocus():
                self.left_empty.emit()


def _is_place(text: str) -> bool:
    """Whether it names one model: a folder, owner/name, or a page's address."""
    known = text in DEMO_MODEL_IDS or hub_cache.parse_id(text) is not None
    return known or "\\" in text or text.startswith(("/", "~", ".", "http://", "https://"))
