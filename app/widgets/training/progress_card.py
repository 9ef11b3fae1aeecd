"""How far a run is: phase, bar, time left, key numbers."""

from __future__ import annotations

import time

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QGridLayout, QProgressBar, QWidget

from app.models.shown_run import ShownRun
from app.widgets import figures, wording
from app.widgets.card import Card, QuietButton, plain_label, plain_tool_tip, secondary_label
from app.widgets.training.stat_tile import StatTile
from training_backend.lifecycle.pauses import STANDING
from training_backend.protocol import RunCompleted
from training_backend.summaries.losses import RECENT

PROGRESS_PARTS = 1_000
UNDER_WAY = ("training", "sampling", *STANDING)  # phases between the first step and the last


class ProgressCard(Card):
    """Keeps its height whatever it shows."""

    make_it_fit_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        self._run = ShownRun()
        self._ready = self._checking = self._stopping = False
        self._memory = self._memory_role = ""
        self.eta_label = secondary_label()
        self.eta_label.setObjectName("etaLabel")
        self.add_right(self.eta_label)
        self._fit = QuietButton(self.tr("Make it fit"))
        self._fit.setObjectName("trainMakeItFit")
        self._fit.clicked.connect(self.make_it_fit_requested)
        self._fit.setVisible(False)
        self.add_right(self._fit)
        self.progress_bar = QProgressBar()
        self.progress_bar.setObjectName("progressBar")
        self.progress_bar.setAccessibleName(self.tr("Progress of the training"))
        self.progress_bar.setTextVisible(False)
        self.body.addWidget(self.progress_bar)
        self._step = StatTile(self.tr("Step"))
        self._loss = StatTile(self.tr("Loss"))
        mean = self.tr("Mean of the last {count} reports").format(count=figures.count(RECENT))
        self._loss.setToolTip(plain_tool_tip(mean))
        self._held_out = StatTile(self.tr("Held-out"))
        self._held_out.setToolTip(
            self.tr(
                "The loss on rows that are not trained on. Perplexity says it as a number of "
                "choices: among how many words the model is unsure of the next one."
            )
        )
        self._speed = StatTile(self.tr("Tokens a second"))
        self._rate = StatTile(self.tr("Learning rate"))
        self._last_checkpoint = StatTile(self.tr("Last checkpoint"))
        tiles = QGridLayout()
        tiles.setHorizontalSpacing(12)
        row = (
            self._step, self._loss, self._held_out, self._speed, self._rate, self._last_checkpoint,
        )  # fmt: skip
        for column, tile in enumerate(row):
            tiles.addWidget(tile, 0, column)
            tiles.setColumnStretch(column, 1)
            tiles.setColumnMinimumWidth(column, 96)
        self.body.addLayout(tiles)
        self._share = secondary_label(" ")
        self.body.addWidget(self._share)
        self._notice = plain_label(wrap=True)
        self._notice.setObjectName("trainNotice")
        self._notice.setProperty("role", "careful")
        self._notice.setVisible(False)
        self.body.addWidget(self._notice)

    def set_memory(self, words: str, role: str = "") -> None:
        """Whether what Start would run fits, with the colour's role; shown until it is started."""
        self._memory, self._memory_role = words, role
        self._render_progress()

    def show_run(
        self, run: ShownRun, ready: bool, checking: bool, stopping: bool, hint: str = ""
    ) -> None:
        """Write it all; `ready` tells whether Start could be pressed, `hint` what to do before."""
        self._run, self._ready, self._checking, self._stopping = run, ready, checking, stopping
        self._hint = hint if ready and not checking else ""
        self._render_progress()
        self._render_tiles()

    def _render_progress(self) -> None:
        shown = self._run
        title, right = self._progress_words()
        self.set_title(title)
        self.eta_label.setText(right)
        about_memory = bool(right) and right == self._memory
        too_much = about_memory and self._memory_role == "error"
        self._fit.setVisible(too_much)
        role = self._memory_role if about_memory else "secondary"
        if self.eta_label.property("role") != role:
            self.eta_label.setProperty("role", role)
            self.eta_label.style().unpolish(self.eta_label)
            self.eta_label.style().polish(self.eta_label)
        fraction: float | None = 0.0
        if self._checking:
            fraction = None
        elif isinstance(shown.terminal, RunCompleted):
            fraction = 1.0
        elif shown.metrics is not None and (shown.phase is None or shown.phase.phase in UNDER_WAY):
            fraction = shown.metrics.step / max(1, shown.total_steps())
        elif self._run.is_running():
            fraction = shown.phase.fraction if shown.phase else None
        if fraction is None:
            self.progress_bar.setRange(0, 0)
        else:
            self.progress_bar.setRange(0, PROGRESS_PARTS)
            self.progress_bar.setValue(round(fraction * PROGRESS_PARTS))

    def _progress_words(self) -> tuple[str, str]:
        """The progress card's title, and what stands at its right."""
        shown = self._run
        if self._checking:
            return self.tr("Checking"), self.tr("the model, the data and the disk")
        if shown.run is None:
            ready = self._ready
            return (
                self.tr("Ready to start") if ready else self.tr("Not ready yet"),
                (self._memory or self.tr("Press Start to train.")) if ready else "",
            )
        if shown.terminal is not None:
            worked = shown.seconds - shown.pauses.seconds
            took = self.tr("took {time}").format(time=figures.duration(worked))
            if shown.pauses.seconds >= 1:
                paused = figures.duration(shown.pauses.seconds)
                took = self.tr("{took}, waited or paused for {time}").format(took=took, time=paused)
            ended = (
                isinstance(shown.terminal, RunCompleted)
                or shown.phase is None
                or shown.phase.phase in ("training", "saving")
            )
            title = self.tr("Training") if ended else wording.phase_title(shown.phase.phase)  # type: ignore[union-attr]
            return title, took
        if not shown.live:
            return self.tr("Running"), self.tr("in another window")
        if self._stopping:
            return self.tr("Stopping"), self.tr("finishing this step, then saving")
        if shown.phase is None:
            return self.tr("Starting"), self.tr("waking up the trainer, a few seconds")
        title = wording.phase_title(shown.phase.phase)
        if shown.is_paused() and "pause" in shown.asked:
            return title, self.tr("a checkpoint is saved; the model stays in memory")
        if shown.phase.phase == "training":
            return title, self._asked_words() or self._time_left()
        right = shown.phase.detail
        if shown.phase.fraction is not None:
            percent = self.tr("{number} %").format(number=round(shown.phase.fraction * 100))
            right = f"{right}, {percent}" if right else percent
        if shown.phase.seconds_left is not None:
            left = figures.duration(shown.phase.seconds_left)
            right += ", " + self.tr("about {time} left").format(time=left)
        return title, right

    def _asked_words(self) -> str:
        """What the run does when its step is over, of what it was asked."""
        asked = self._run.asked
        if "pause" in asked:
            return self.tr("saving and pausing after this step")
        if "checkpoint" in asked:
            return self.tr("saving a checkpoint after this step")
        if "question" in asked:
            return self.tr("answering after this step")
        return ""

    def _time_left(self) -> str:
        metrics = self._run.metrics
        if self._run.stands_still:
            return ""
        if metrics is None or metrics.seconds_left is None:
            return self.tr("working on the first step")
        since = metrics.time
        if self._run.phase is not None:  # a pause lay between
            since = max(since, self._run.phase.time)
        done_at = since + metrics.seconds_left
        return self.tr("about {time} left, done at {clock}").format(
            time=figures.duration(done_at - time.time()), clock=figures.clock(done_at)
        )

    def _render_tiles(self) -> None:
        shown = self._run
        metrics, counts = shown.metrics, shown.counts
        step = loss = speed = rate = ""
        if metrics is not None:
            step = self.tr("{step} of {total}").format(
                step=figures.count(metrics.step), total=figures.count(shown.total_steps())
            )
            loss = figures.loss(shown.loss.value or 0.0)
            if metrics.tokens_per_second is not None:
                speed = figures.count(round(metrics.tokens_per_second))
            if metrics.learning_rate is not None:
                rate = figures.scientific(metrics.learning_rate)
        elif counts is not None and counts.total_steps is not None:
            step = self.tr("0 of {total}").format(total=figures.count(counts.total_steps))
        self._step.show_value(step)
        self._loss.show_value(loss)
        self._held_out.show_value(*self._held_out_words())
        self._speed.show_value(speed)
        self._rate.show_value(rate)
        kept, rule = wording.kept_checkpoints(shown.job) if shown.job else ("", "")
        saved = self._checkpoint_words()
        self._last_checkpoint.show_value(saved, kept if saved else "")
        self._last_checkpoint.setToolTip(plain_tool_tip(rule))
        self._share.setText(self._share_words())
        now = (shown.marks.now(), shown.parting) if shown.is_running() else ()
        said = (shown.halved, *now)
        notice = " ".join(part for part in said if part)
        self._notice.setText(notice)
        self._notice.setVisible(bool(notice))

    def _held_out_words(self) -> tuple[str, str]:
        tested = self._run.held_out
        if tested is None:
            return "", ""
        beside = ""
        if tested.perplexity is not None:
            beside = self.tr("perplexity {number}").format(number=figures.short(tested.perplexity))
        return figures.loss(tested.loss), beside

    def _checkpoint_words(self) -> str:
        saved = self._run.checkpoint
        if saved is None:
            return ""
        age = time.time() - saved.time
        if not self._run.is_running() or saved.time == 0:
            return self.tr("step {step}").format(step=figures.count(saved.step))
        if age < 20:
            return self.tr("just now")
        return self.tr("{time} ago").format(time=figures.duration(age))

    def _share_words(self) -> str:
        if self._run.run is None:
            return self._hint
        counts = self._run.counts
        if counts is None or not counts.trainable_parameters or not counts.total_parameters:
            return ""
        words = self.tr("{trained} of {total} parameters are trained ({share})").format(
            trained=figures.millions(counts.trainable_parameters),
            total=figures.millions(counts.total_parameters),
            share=figures.share(counts.trainable_parameters / counts.total_parameters),
        )
        if counts.rows is not None and counts.trained_token_share is not None:
            words += ", " + self.tr(
                "on {rows} rows; {share} of their tokens are learned from"
            ).format(
                rows=figures.count(counts.rows), share=figures.share(counts.trained_token_share)
            )
        return words
