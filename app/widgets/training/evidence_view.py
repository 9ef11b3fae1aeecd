"""What is known of a run's end: the numbers before it, and the last lines of its log."""

from __future__ import annotations

from collections.abc import Iterator

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from app.widgets import figures, wording
from app.widgets.card import plain_label, secondary_label
from app.widgets.training.log_view import LogTail
from training_backend.lifecycle.evidence import Evidence
from training_backend.protocol import MemorySampled, MetricsLogged


class EvidenceView(QWidget):
    """Rows of a name and a value; below them the log's end, where there is one."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("evidence")
        self._shown: list[tuple[str, str]] = []
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 4)
        column.setSpacing(8)
        self._rows = QWidget()
        self._grid = QGridLayout(self._rows)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(16)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnStretch(1, 1)
        column.addWidget(self._rows)
        self.tail = LogTail()
        column.addWidget(self.tail)
        self.show_evidence(Evidence())

    def show_evidence(self, found: Evidence) -> None:
        while (item := self._grid.takeAt(0)) is not None:
            if (old := item.widget()) is not None:
                old.deleteLater()
        self._shown = rows = list(self._facts(found))
        for row, (name, value) in enumerate(rows):
            label = secondary_label(name)
            told = plain_label(value, wrap=True)
            told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._grid.addWidget(label, row, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(told, row, 1)
        self._rows.setVisible(bool(rows))
        self.tail.show_tail(found.log)
        self.setVisible(bool(rows))

    def text(self) -> str:
        """All of it, to be copied."""
        lines = [f"{name}: {value}" for name, value in self._shown]
        return "\n".join([*lines, self.tail.toPlainText()]).strip()

    def _facts(self, found: Evidence) -> Iterator[tuple[str, str]]:
        if found.terminal is None:
            return
        when = figures.clock(found.terminal.time)
        if found.phase is not None:
            when = f"{when}, {wording.phase_title(found.phase).lower()}"
        yield self.tr("Ended"), when
        if found.exit_code is not None:
            yield self.tr("Worker"), self._exit_words(found.exit_code)
        if found.metrics is not None:
            yield self.tr("Last step"), self._step_words(found.metrics)
        if found.memory is not None:
            yield self.tr("Memory"), self._memory_words(found.memory)
        yield self.tr("Saved"), self._saved_words(found.saved_step)

    def _exit_words(self, code: int) -> str:
        if code < 0:
            return self.tr("ended by signal {number}").format(number=-code)
        shown = f"0x{code:X}" if code > 255 else str(code)  # as Windows writes its own
        return self.tr("ended with exit code {code}").format(code=shown)

    def _step_words(self, metrics: MetricsLogged) -> str:
        step = self.tr("{step} of {total}, loss {loss}").format(
            step=figures.count(metrics.step),
            total=figures.count(metrics.total_steps),
            loss=figures.loss(metrics.loss),
        )
        more = [step]
        if metrics.grad_norm is not None:
            more.append(self.tr("gradient norm {x}").format(x=figures.short(metrics.grad_norm)))
        if metrics.learning_rate is not None:
            rate = figures.scientific(metrics.learning_rate)
            more.append(self.tr("learning rate {rate}").format(rate=rate))
        return ", ".join(more)

    def _memory_words(self, memory: MemorySampled) -> str:
        where = memory.device_name or (
            self.tr("the computer") if memory.device == "cpu" else memory.device
        )
        words = self.tr("{used} of {total} in use on {device}").format(
            used=figures.gigabytes(memory.device_used_bytes),
            total=figures.gigabytes(memory.device_total_bytes),
            device=where,
        )
        if memory.process_bytes is not None:
            own = figures.gigabytes(memory.process_bytes)
            words = self.tr("{words}, {own} of it by this run").format(words=words, own=own)
        return words

    def _saved_words(self, step: int | None) -> str:
        if step is None:
            return self.tr("nothing yet, so that it can only be started anew")
        text = self.tr("everything up to step {step}; Resume goes on from there")
        return text.format(step=figures.count(step))
