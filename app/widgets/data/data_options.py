"""Everything about the data beside its path: one line, and more that unfolds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from app.draft import JobDraft
from app.i18n import integer, number
from app.widgets import wording
from app.widgets.card import ElidedLabel, QuietButton
from app.widgets.data.source_list import SourceList
from app.widgets.data.source_options import SourceOptions
from app.widgets.data.split_options import FILE, LOSS, ROWS, SHARE, SplitOptions
from app.widgets.data.template_choice import FIELD as TEMPLATE
from training_backend.data.table import Details, Notice


class DataOptions(QWidget):
    """How the source is read; folded away: more sources, the split, the chat template.

    What is folded away and not as it is by default is said in a few words beside the button.
    """

    selected = Signal()  # which source of a mixture is meant

    def __init__(self, draft: JobDraft, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._draft = draft
        self.source = SourceOptions(draft)
        self.sources = SourceList(draft)
        self.split = SplitOptions(draft)
        self.split.row.add(self.source.skip_bad)  # seldom wanted, so not in the first line
        self.sources.selected.connect(self.source.set_source)
        self.sources.selected.connect(lambda _: self.selected.emit())
        self._more = QuietButton(self.tr("More options"))
        self._more.setObjectName("moreDataOptions")
        self._more.setCheckable(True)
        self._more.toggled.connect(self._fold)
        self._summary = ElidedLabel()
        self._summary.setProperty("role", "secondary")
        line = QHBoxLayout()
        line.setSpacing(16)
        line.addWidget(self.source)
        # What room the inputs leave is for the words, and nothing more.
        self._summary.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._summary.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._summary.setFixedHeight(32)
        line.addWidget(self._summary, 1, Qt.AlignmentFlag.AlignTop)
        head = QVBoxLayout()
        head.setContentsMargins(0, 4, 0, 0)
        head.addWidget(self._more, 0, Qt.AlignmentFlag.AlignTop)
        head.addStretch(1)
        line.addLayout(head)
        self._folded = QWidget()
        folded = QVBoxLayout(self._folded)
        folded.setContentsMargins(0, 4, 0, 0)
        folded.setSpacing(8)
        folded.addWidget(self.split)
        folded.addWidget(self.sources)
        layout = self._layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(line)
        layout.addWidget(self.source.errors)
        layout.addWidget(self._folded)
        draft.changed.connect(self._on_draft_changed)
        self._fold(False)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def event(self, event: QEvent) -> bool:
        done = super().event(event)
        if event.type() == QEvent.Type.LayoutRequest:
            self._fit()
        return done

    def _fit(self) -> None:
        """Keep room for every line of text: a scroll area knows only of the first ones."""
        self.setMinimumHeight(self._layout.totalHeightForWidth(self.width()))

    def current(self) -> int:
        """Which source of a mixture is meant."""
        return self.sources.current()

    def set_table(
        self,
        details: Details | None,
        columns: tuple[str, ...],
        rows: list[dict[str, Any]],
        notices: Iterable[Notice] = (),
    ) -> None:
        """What was found out about the current source; None where it cannot be read."""
        self.source.set_table(details, columns, rows, notices)
        self.split.set_table(details, columns, rows)

    def set_counts(self, counts: Sequence[int | None]) -> None:
        """How many rows each source has; None where that is not known yet."""
        self.sources.set_counts(counts)

    def set_model_template(self, has_own: bool | None) -> None:
        """Whether the chosen model comes with a chat template; None while that is not known."""
        self.split.template.set_model_template(has_own)

    def show_problem(self, field: str, message: str) -> bool:
        """Say beside the input what is wrong; False for a field that is none of these."""
        if self.source.show_problem(field, message):
            return True
        found = self.split.show_problem(field, message) or self.sources.show_problem(field, message)
        if found and message:
            self._more.setChecked(True)
        return found

    def _fold(self, unfolded: bool) -> None:
        self._folded.setVisible(unfolded)
        self._more.setText(self.tr("Fewer options") if unfolded else self.tr("More options"))
        self._more.setAccessibleName(self._more.text())
        self._show_summary()

    def _on_draft_changed(self, field: str) -> None:
        if field in (SHARE, FILE, ROWS, LOSS, TEMPLATE, "dataset.sources"):
            self._show_summary()

    def _show_summary(self) -> None:
        value = self._draft.value
        parts = []
        if (count := len(self._draft.sources())) > 1:
            parts.append(self.tr("{count} sources").format(count=integer(count)))
        share = value(SHARE)
        if value(FILE):
            parts.append(self.tr("tests on {name}").format(name=wording.data_name(value(FILE))))
        elif isinstance(share, (int, float)) and share > 0:
            percent = number(share * 100, 0 if (share * 100) % 1 == 0 else 1)
            parts.append(self.tr("tests on {share} % of the rows").format(share=percent))
        if isinstance(value(ROWS), int):
            parts.append(self.tr("at most {count} rows").format(count=integer(value(ROWS))))
        if value(LOSS) != "assistant":
            last = value(LOSS) == "last_answer"
            parts.append(self.tr("learns the last answer") if last else self.tr("learns all"))
        if value(TEMPLATE) is not None:
            parts.append(self.tr("template {name}").format(name=value(TEMPLATE)))
        text = "" if self._more.isChecked() else ", ".join(parts)
        self._summary.setText(text[:1].upper() + text[1:])
