"""What the check of an export came to: a verdict in plain words, and what was compared."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtGui import QFont
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QVBoxLayout, QWidget

from app import theme
from app.widgets.card import number_label, plain_label, secondary_label
from app.widgets.runs import export_words
from training_backend.protocol import ExportProved, ProofCheck


class ProofView(QWidget):
    """The verdict and its table; empty until told."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.verdict = number_label(size=18)
        self.verdict.setObjectName("exportVerdict")
        self._why = plain_label(wrap=True)
        self._why.setObjectName("exportVerdictReason")
        self._why.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._table = QWidget()
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(8)
        for part in (self.verdict, self._why, self._table):
            self._column.addWidget(part)

    def show_proof(self, proof: ExportProved | None) -> None:
        """Show it; None says that nothing was checked."""
        sign, words, role = export_words.verdict(proof.verdict if proof else None)
        self.verdict.setText(f"{sign}  {words}")
        self.verdict.setAccessibleName(words)
        self.verdict.setProperty("role", role)
        self.verdict.style().unpolish(self.verdict)
        self.verdict.style().polish(self.verdict)
        unchecked = self.tr("The files are sound. Whether it answers alike was not looked at.")
        self._why.setText(proof.message if proof else unchecked)
        old, self._table = self._table, QWidget()
        if proof is not None and proof.checks:
            self._fill(proof.checks)
        self._column.replaceWidget(old, self._table)
        old.setParent(None)
        old.deleteLater()

    def _fill(self, checks: tuple[ProofCheck, ...]) -> None:
        grid = QGridLayout(self._table)
        grid.setContentsMargins(0, 4, 0, 0)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(6)
        grid.setColumnStretch(2, 1)
        top = Qt.AlignmentFlag.AlignTop
        for row, check in enumerate(checks):
            sign, words, role = self._mark(check)
            mark = plain_label(sign)
            mark.setFont(theme.font(13, QFont.Weight.DemiBold))
            mark.setProperty("role", role)
            mark.setAccessibleName(words)
            name = plain_label(export_words.check(check.name))
            name.setFont(theme.font(13, QFont.Weight.Medium))
            found = secondary_label(check.message, wrap=True)
            found.setFont(theme.font(13, tabular=True))
            found.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
            found.setAccessibleName(f"{name.text()}, {words}: {found.text()}")
            for column, label in enumerate((mark, name, found)):
                grid.addWidget(label, row, column, top if column < 2 else Qt.AlignmentFlag(0))

    def _mark(self, check: ProofCheck) -> tuple[str, str, str]:
        if not check.passed:
            return "✕", self.tr("not passed"), "bad"
        if check.limit is None:
            return "–", self.tr("for information"), "secondary"
        return "✓", self.tr("passed"), "good"
