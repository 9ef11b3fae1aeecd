"""The card "What the model sees": one row as tokens, and the way from row to row."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget

from app import theme
from app.i18n import integer
from app.widgets.card import (
    Card,
    ElidedLabel,
    QuietButton,
    SecondaryButton,
    plain_label,
    plain_tool_tip,
    secondary_label,
)
from app.widgets.data.token_view import TokenView

PLAIN_CHARACTERS = 20_000


class SequenceCard(Card):
    """Shows what the helper's preview gives.

    `step_requested` asks for the row so many further on, `action_requested` for the next step
    that was offered, `cancel_requested` to leave it.
    """

    step_requested = Signal(int)
    action_requested = Signal(str)
    cancel_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.set_title(self.tr("What the model sees"))
        self.add_legend(_Legend("token_trained_line", self.tr("learned from")))
        self.add_legend(_Legend("token_read", self.tr("read only")))
        self._place = secondary_label()
        self._tokens = secondary_label()
        for label in (self._place, self._tokens):
            label.setFont(theme.font(13, tabular=True))
            self.add_right(label)
        steps = QWidget()
        row = QHBoxLayout(steps)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        before, after = "‹", "›"  # noqa: RUF001
        for text, name, step in (
            (before, self.tr("Row before"), -1),
            (after, self.tr("Next row"), 1),
        ):
            button = QuietButton(text)
            button.setAccessibleName(name)
            button.setToolTip(plain_tool_tip(name))
            button.clicked.connect(lambda _=False, step=step: self.step_requested.emit(step))
            row.addWidget(button)
        self.add_right(steps)

        self._step = ""
        self._is_preparing = False
        self._offer = QWidget()
        offer = QVBoxLayout(self._offer)
        offer.setContentsMargins(0, 0, 0, 0)
        offer.setSpacing(8)
        line = QHBoxLayout()
        line.setSpacing(16)
        self._why = plain_label(wrap=True)
        self._why.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._action = SecondaryButton(self.tr("Prepare the demo model"))
        self._action.setObjectName("tokensNextStep")
        self._action.clicked.connect(self._on_action)
        line.addWidget(self._why, 1)
        line.addWidget(self._action)
        offer.addLayout(line)
        self._bar = QProgressBar()
        self._bar.setAccessibleName(self.tr("Progress"))
        offer.addWidget(self._bar)
        self.body.addWidget(self._offer)

        self.view = TokenView()
        self.view.setAccessibleName(self.tr("The selected row as the model sees it"))
        self.view.pointed.connect(self._on_pointed)
        self.body.addWidget(self.view, 1)
        self._foot = ElidedLabel("")
        self._foot.setProperty("role", "secondary")
        self._notice = ""
        self.body.addWidget(self._foot)
        self.clear()

    # ---------------------------------------------------------------------------- what to show

    def clear(self) -> None:
        """Nothing is chosen."""
        self._offer.hide()
        self.view.show_plain("")
        self._place.setText("")
        self._tokens.setText("")
        self._say(self.tr("A row stands here as the tokens that the model sees."))

    def set_place(self, number: int, total: int, counting: bool) -> None:
        """Which row it is, counted from 0, of how many."""
        text = (
            self.tr("row {row} of more than {all}") if counting else self.tr("row {row} of {all}")
        )
        self._place.setText(text.format(row=integer(number + 1), all=integer(total)))

    def show_row(self, preview: dict[str, Any]) -> None:
        """The first row of the helper's preview."""
        self._offer.hide()
        if not preview["rows"]:
            self.view.show_plain("")
            self._tokens.setText("")
            self._say(self.tr("This row and those behind it are left out by a fix."))
            return
        row = preview["rows"][0]
        if row.get("problem"):
            self._tokens.setText(self.tr("nothing to learn from"))
            self._tokens.setProperty("role", "careful")
            self._tokens.style().polish(self._tokens)
            self.view.show_plain(row["problem"])
            self._say("")
            return
        max_length = preview["max_length"]
        self._tokens.setProperty("role", "careful" if row["truncated"] else "secondary")
        self._tokens.style().polish(self._tokens)
        if row["truncated"]:
            text = self.tr("{count} of {all} tokens kept, {learned} learned from")
        else:
            text = self.tr("{count} tokens, {learned} learned from")
        self._tokens.setText(
            text.format(
                count=integer(row["n_tokens"]),
                all=integer(row["n_tokens_full"]),
                learned=integer(row["n_trained"]),
            )
        )
        self.view.show_row(row, max_length)
        self._say(self._about(preview, row))

    def show_plain(self, text: str) -> None:
        """A row as it is read, while it cannot be shown as tokens."""
        self.view.show_plain(text[:PLAIN_CHARACTERS])

    def show_failure(self, why: str, next_step: str) -> None:
        """Why there are no tokens, and the next step where there is one."""
        titles = {
            "prepare_demo": self.tr("Prepare the demo model"),
            "fetch_tokenizer": self.tr("Download the tokenizer"),
        }
        wheres = {
            "prepare_demo": self.tr(
                "The demo model is not on this computer yet (a download of 93 MB). Once it is "
                "prepared, the rows stand here as the tokens that the model sees."
            ),
        }
        self._step = next_step
        self._why.setText(wheres.get(next_step, why))
        self._action.setText(titles.get(next_step, ""))
        self._action.setAccessibleName(titles.get(next_step, ""))
        self._action.setVisible(bool(next_step))
        self._is_preparing = False
        self._bar.hide()
        self._offer.show()
        self._tokens.setText("")
        self._say("")

    def show_preparing(self, progress: dict[str, Any]) -> None:
        """The next step is being taken."""
        self._is_preparing = True
        self._action.setText(self.tr("Cancel"))
        self._action.setAccessibleName(self.tr("Cancel"))
        share = progress.get("share")
        self._bar.setRange(0, 0 if share is None else 1000)
        self._bar.setValue(round(1000 * (share or 0)))
        self._bar.show()

    # ---------------------------------------------------------------------------- the foot line

    def _about(self, preview: dict[str, Any], row: dict[str, Any]) -> str:
        said = []
        shown = self.view.tokens_shown()
        if shown < row["n_tokens"]:
            text = self.tr("Only the first {count} tokens are shown.")
            said.append(text.format(count=integer(shown)))
        if row["truncated"]:
            text = self.tr(
                "Cut at the longest row allowed, {length} tokens: {lost} tokens are lost."
            )
            lost = row["n_tokens_full"] - row["n_tokens"]
            said.append(text.format(length=integer(preview["max_length"]), lost=integer(lost)))
        else:
            text = self.tr("{count} of {length} tokens allowed.")
            said.append(
                text.format(count=integer(row["n_tokens"]), length=integer(preview["max_length"]))
            )
        if row.get("pieces", 1) > 1:
            text = self.tr("The first of {count} pieces.")
            said.append(text.format(count=integer(row["pieces"])))
        if not said[1:] and shown == row["n_tokens"]:
            said.append(self.tr("Point at a token to see its number."))
        return " ".join(said)

    def _on_action(self) -> None:
        if self._is_preparing:
            self.cancel_requested.emit()
        else:
            self.action_requested.emit(self._step)

    def _say(self, notice: str) -> None:
        self._notice = notice
        self._foot.setText(notice)

    def _on_pointed(self, words: str) -> None:
        self._foot.setText(words or self._notice)


class _Legend(QWidget):
    """A short line in a colour, and what it stands for."""

    def __init__(self, role: str, text: str) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        row.addWidget(_Dash(role))
        label: QLabel = secondary_label(text)
        row.addWidget(label)


class _Dash(QWidget):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role
        self.setFixedSize(12, 16)
        theme.notifier.changed.connect(self.update)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.fillRect(0, 7, 12, 2, theme.current().color(self._role))
