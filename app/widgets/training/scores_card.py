"""How the answers to held-out rows compare with the data's own: measures, and a few answers."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel, QSizePolicy, QWidget

from app import theme
from app.widgets import figures, wording
from app.widgets.card import Card, number_label, plain_label, plain_tool_tip, secondary_label
from training_backend.protocol import AnswersScored, Score, ScoredAnswer, ScoreName

COLUMNS = 3


class ScoresCard(Card):
    """There once a run has told its scores."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self.setObjectName("scoresCard")
        self.set_title(self.tr("Answers compared with the data's own"))
        self._about = secondary_label(wrap=True)
        self.body.addWidget(self._about)
        self._content: QWidget | None = None
        self.clear()

    def clear(self) -> None:
        """Another run is shown, which has told none yet."""
        self._drop()
        self.setVisible(False)

    def show_scores(self, event: AnswersScored) -> None:
        """Show these scores in place of what was there."""
        self._drop()
        compared = any(score.before is not None for score in event.scores)
        about = (
            self.tr(
                "{rows} held-out rows, which the training has not seen, answered by the base model "
                "and by the trained one. All answers are in scores.jsonl in the run's folder."
            )
            if compared
            else self.tr(
                "{rows} held-out rows, which the training has not seen, answered by the trained "
                "model. All answers are in scores.jsonl in the run's folder."
            )
        )
        self._about.setText(about.format(rows=figures.count(event.rows)))
        self._content = QWidget()
        grid = QGridLayout(self._content)
        grid.setContentsMargins(0, 4, 0, 0)
        grid.setHorizontalSpacing(24)
        grid.setVerticalSpacing(4)
        for column in range(COLUMNS):
            grid.setColumnStretch(column, 1)
        for column, score in enumerate(event.scores):
            self._add_score(grid, column, score)
        for example in event.examples:
            self._add_example(grid, example)
        self.body.addWidget(self._content)
        self.setVisible(True)

    def _drop(self) -> None:
        if self._content is not None:
            self._content.setParent(None)
            self._content.deleteLater()
            self._content = None

    def _add_score(self, grid: QGridLayout, column: int, score: Score) -> None:
        name, meaning = self._words(score.name)
        title = secondary_label(name)
        title.setToolTip(plain_tool_tip(meaning))
        value = number_label(figures.percent(score.after))
        if score.before is not None:
            value.setText(f"{figures.percent(score.before)} → {figures.percent(score.after)}")
        text, role = self._verdict(score)
        verdict = secondary_label(text)
        verdict.setProperty("role", role)
        value.setAccessibleName(f"{name}: {value.text()}. {text}".strip())
        value.setToolTip(plain_tool_tip(meaning))
        for row, label in enumerate((title, value, verdict) if text else (title, value)):
            grid.addWidget(label, row, column)

    def _add_example(self, grid: QGridLayout, example: ScoredAnswer) -> None:
        row = grid.rowCount()
        line = QFrame()
        line.setFixedHeight(1)
        line.setStyleSheet("background: palette(mid);")
        grid.setRowMinimumHeight(row, 17)
        grid.addWidget(line, row, 0, 1, COLUMNS)
        question = plain_label(wording.visible(example.question), wrap=True)
        question.setFont(theme.font(13, QFont.Weight.DemiBold))
        grid.addWidget(question, row + 1, 0, 1, COLUMNS)
        shown = [(self.tr("The data's answer"), example.reference)]
        if example.before is not None:
            shown.append((self.tr("The base model"), example.before))
        shown.append((self.tr("The trained model"), example.after))
        for column, (head, text) in enumerate(shown):
            grid.addWidget(secondary_label(head), row + 2, column)
            label = self._answer(text)
            label.setAccessibleName(f"{head}: {label.text()}")
            grid.addWidget(label, row + 3, column, Qt.AlignmentFlag.AlignTop)

    def _answer(self, text: str) -> QLabel:
        label = plain_label(wording.visible(text) or self.tr("(an empty answer)"), wrap=True)
        label.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
            | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        return label

    def _words(self, name: ScoreName) -> tuple[str, str]:
        """The measure's name, and what it tells."""
        match name:
            case "exact_match":
                return self.tr("Exact match"), self.tr(
                    "Share of the answers that are the data's own, but for case and punctuation"
                )
            case "f1":
                return self.tr("F1, words in common"), self.tr(
                    "How many words an answer and the data's own have in common, in any order"
                )
            case "rouge_l":
                return self.tr("ROUGE-L, words in order"), self.tr(
                    "How many words an answer and the data's own have in common, in the same order"
                )

    def _verdict(self, score: Score) -> tuple[str, str]:
        """What the difference means, with its colour's role."""
        if score.before is None:
            return "", "secondary"
        gain = score.after - score.before
        if not round(gain, 3):
            return self.tr("no difference"), "secondary"
        points = self.tr("{sign}{points} points").format(
            sign="−" if gain < 0 else "+", points=figures.decimal(abs(gain) * 100, 0)
        )
        if score.margin is None or abs(gain) <= score.margin:
            return self.tr("{points}, may be chance").format(points=points), "secondary"
        if gain > 0:
            return self.tr("{points}, better").format(points=points), "good"
        return self.tr("{points}, worse").format(points=points), "careful"
