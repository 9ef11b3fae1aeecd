"""The card of the queue: what waits, in which order, and whether it starts by itself."""

from __future__ import annotations

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QHBoxLayout,
    QHeaderView,
    QSizePolicy,
    QWidget,
)

from app.desks.queue_controller import QueueController
from app.desktop.keep_awake import KeepAwake
from app.models.queue_model import DATA, METHOD, MODEL, NAME, PLACE, TIME, QueueModel
from app.widgets import figures
from app.widgets.card import (
    Card,
    ElidedLabel,
    ErrorLabel,
    QuietButton,
    SecondaryButton,
    plain_tool_tip,
)
from app.widgets.list_table import ROW_HEIGHT, ListTable
from training_backend import preferences

MOST_ROWS = 5  # beyond that the table scrolls, and where the page has no room for them
_WIDTHS = {PLACE: 36, MODEL: 180, DATA: 140, METHOD: 110, TIME: 100}


class _Table(ListTable):
    """As high as its rows where there is room, else lower; a list of runs stands below it."""

    def sizeHint(self) -> QSize:
        rows = min(self.model().rowCount(), MOST_ROWS) + 1
        return QSize(super().sizeHint().width(), rows * ROW_HEIGHT + 6)

    def minimumSizeHint(self) -> QSize:
        return QSize(super().minimumSizeHint().width(), 2 * ROW_HEIGHT + 6)


class QueueCard(Card):
    """Follows `queue`; there while something waits, the next is to start, or one can be undone."""

    def __init__(
        self, queue: QueueController, awake: KeepAwake, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent=parent)
        self.set_title(self.tr("Queue"))
        self.setObjectName("queueCard")
        self._queue = queue
        self._selected = ""
        self._status = ElidedLabel()
        self._status.setProperty("role", "secondary")
        self._errors = ErrorLabel("queueProblem")
        self.table = self._table()
        self.go_button = SecondaryButton("")
        self.go_button.setObjectName("queueGoButton")
        self.go_button.clicked.connect(self._go_or_pause)
        self.undo_button = QuietButton("")
        self.undo_button.setObjectName("queueUndoButton")
        self.undo_button.clicked.connect(queue.undo)
        self.dismiss_button = QuietButton(self.tr("Dismiss"))
        self.dismiss_button.clicked.connect(queue.dismiss_notice)
        for widget in (self.undo_button, self.dismiss_button, self.go_button):
            self.add_right(widget)
        self.add_legend(self._status)
        self.body.addWidget(self._errors)
        self.body.addWidget(self.table)
        self.body.addLayout(self._foot(awake))
        self._awake_note = ElidedLabel()
        self._awake_note.setProperty("role", "secondary")
        self._awake_note.hide()
        self.body.addWidget(self._awake_note)
        awake.told.connect(self._on_awake_told)
        queue.changed.connect(self._show)
        queue.problem.connect(self._errors.show_error)
        self._show()

    # ----------------------------------------------------------------------- what is shown

    def _show(self) -> None:
        state, going = self._queue.state, self._queue.is_going()
        waiting = len(state.entries)
        self.setVisible(bool(waiting or going or self._queue.undo_word() or state.notice))
        self._status.setText(self._status_text())
        self.go_button.setText(self.tr("Pause after this run") if going else self.tr("Start queue"))
        self.go_button.setAccessibleName(self.go_button.text())
        self.go_button.setVisible(bool(waiting) and not state.elsewhere)
        self.undo_button.setText(self._queue.undo_word() or self.tr("Undo"))
        self.undo_button.setAccessibleName(self.undo_button.text())
        self.undo_button.setVisible(bool(self._queue.undo_word()))
        self.dismiss_button.setVisible(bool(state.notice))
        scrolled = self.table.verticalScrollBar().value()
        self.rows.show_entries(state.entries, state.seconds)
        self.table.setVisible(bool(waiting))
        for button in (self.up_button, self.down_button, self.remove_button):
            button.setVisible(bool(waiting))
        self.table.updateGeometry()
        self.table.verticalScrollBar().setValue(scrolled)
        self._select_again()

    def _on_awake_told(self, why: str) -> None:
        self._awake_note.setText(why)
        self._awake_note.setVisible(bool(why))

    def _status_text(self) -> str:
        state = self._queue.state
        if state.notice:
            return state.notice
        count = len(state.entries)
        if count == 0:
            last = self.tr("Nothing waits: the last run is under way.")
            return last if self._queue.is_going() else self.tr("Nothing waits.")
        waiting = (
            self.tr("1 run waits.")
            if count == 1
            else self.tr("{count} runs wait.").format(count=figures.count(count))
        )
        if state.elsewhere:
            more = self.tr("Another program works through the queue.")
        elif self._queue.is_going():
            more = self.tr("Each starts by itself when the one before it has ended or failed.")
        elif self._queue.was_stopped_by_hand():
            more = self.tr("The queue is paused, because a run was stopped.")
        elif state.paused:
            more = self.tr("The queue is paused.")
        else:
            more = self.tr("Nothing starts until you say so.")
        return f"{waiting} {more}"

    def _select_again(self) -> None:
        """The run that was selected, wherever it is now; else the one in its place."""
        count = self.rows.rowCount()
        row = self.rows.row_of(self._selected)
        if row < 0:
            row = min(max(0, self._row), count - 1)
        if count:
            self.table.selectRow(row)
        self._update_buttons()

    def _update_buttons(self) -> None:
        row, count = self._current(), self.rows.rowCount()
        self.up_button.setEnabled(row > 0)
        self.down_button.setEnabled(0 <= row < count - 1)
        self.remove_button.setEnabled(row >= 0)

    # ----------------------------------------------------------------------- what is asked

    def _current(self) -> int:
        """The selected row; -1 when there is none."""
        rows = self.table.selectionModel().selectedRows()
        return rows[0].row() if rows else -1

    def _on_selected(self) -> None:
        row = self._current()
        if row >= 0:
            self._row, self._selected = row, self.rows.id_at(row)
        self._update_buttons()

    def _go_or_pause(self) -> None:
        if self._queue.is_going():
            self._queue.pause()
        else:
            self._queue.start()

    def _move(self, by: int) -> None:
        row = self._current()
        if row >= 0 and 0 <= row + by < self.rows.rowCount():
            self._queue.move(self.rows.id_at(row), row + by)

    def _remove(self) -> None:
        row = self._current()
        if row >= 0:
            self._queue.remove(self.rows.id_at(row))

    # ----------------------------------------------------------------------- the widgets

    def _table(self) -> ListTable:
        self._row = 0
        self.rows = QueueModel()
        self.rows.moved.connect(self._queue.move)
        table = _Table()
        table.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Maximum)
        table.setObjectName("queueTable")
        table.setAccessibleName(self.tr("Runs that wait"))
        table.setModel(self.rows)
        table.setDragDropMode(QAbstractItemView.DragDropMode.InternalMove)
        table.setDragDropOverwriteMode(False)
        table.setDropIndicatorShown(True)
        for column, width in _WIDTHS.items():
            table.setColumnWidth(column, width)
        table.horizontalHeader().setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        table.selectionModel().selectionChanged.connect(lambda: self._on_selected())
        for keys, act in (
            (QKeySequence("Alt+Up"), lambda: self._move(-1)),
            (QKeySequence("Alt+Down"), lambda: self._move(1)),
            (QKeySequence(QKeySequence.StandardKey.Delete), self._remove),
        ):
            shortcut = QShortcut(keys, table)
            shortcut.setContext(Qt.ShortcutContext.WidgetShortcut)
            shortcut.activated.connect(act)
        return table

    def _foot(self, awake: KeepAwake) -> QHBoxLayout:
        self.up_button = self._button("queueUpButton", self.tr("Move up"), "Alt+Up")
        self.up_button.clicked.connect(lambda: self._move(-1))
        self.down_button = self._button("queueDownButton", self.tr("Move down"), "Alt+Down")
        self.down_button.clicked.connect(lambda: self._move(1))
        self.remove_button = self._button("queueRemoveButton", self.tr("Remove"), "Del")
        self.remove_button.clicked.connect(self._remove)
        self.awake = QCheckBox(self.tr("Keep the computer awake while runs remain"))
        self.awake.setObjectName("keepAwake")
        self.awake.setAccessibleName(self.awake.text())
        self.awake.setChecked(preferences.load().keep_awake)
        self.awake.toggled.connect(awake.choose)
        foot = QHBoxLayout()
        foot.setSpacing(16)
        for button in (self.up_button, self.down_button, self.remove_button):
            foot.addWidget(button)
        foot.addStretch(1)
        foot.addWidget(self.awake)
        return foot

    def _button(self, name: str, text: str, keys: str) -> SecondaryButton:
        button = SecondaryButton(text)
        button.setObjectName(name)
        shown = QKeySequence(keys).toString(QKeySequence.SequenceFormat.NativeText)
        button.setToolTip(plain_tool_tip(shown))
        return button
