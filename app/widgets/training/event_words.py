"""What a run said, as lines for its log."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from app.widgets import figures
from training_backend.protocol import (
    AnswersScored,
    CheckpointSaved,
    EvaluationLogged,
    Event,
    LogLine,
    RunStarted,
    RunStopped,
    WarningRaised,
)


def log_line(event: Event) -> str:
    """The event as one line; "" for one that the log does not tell."""
    match event:
        case RunStarted(extended=True, resumed_from_step=int(step)):
            return _tr("Goes on for longer, from step {step}").format(step=figures.count(step))
        case RunStarted(resumed_from_step=None):
            return _tr("Started")
        case RunStarted(resumed_from_step=int(step)):
            return _tr("Resumed from step {step}").format(step=figures.count(step))
        case EvaluationLogged():
            line = _tr("Held-out loss after step {step}: {loss}")
            if event.perplexity is not None:
                line = _tr("Held-out loss after step {step}: {loss} (perplexity {perplexity})")
            return line.format(
                step=figures.count(event.step),
                loss=figures.loss(event.loss),
                perplexity=figures.short(event.perplexity or 0.0),
            )
        case CheckpointSaved():
            return _tr("Checkpoint at step {step} saved ({size})").format(
                step=figures.count(event.step), size=figures.size(event.bytes)
            )
        case AnswersScored():
            told = [score.after for score in event.scores if score.name == "f1"]
            line = _tr("Compared with the data's answers of {rows} held-out rows")
            if told:
                line = _tr("Compared with the data's answers of {rows} held-out rows: F1 {f1}")
            return line.format(
                rows=figures.count(event.rows), f1=figures.percent(told[0]) if told else ""
            )
        case WarningRaised():
            return _tr("Note: {message}").format(message=event.message)
        case RunStopped(reason="sleep"):
            return _tr("Saved and stopped, since the computer went to sleep")
        case RunStopped(reason="system"):
            return _tr("Saved and stopped, since the session or the computer ended")
        case LogLine():
            return event.message
    return ""


def _tr(text: str) -> str:
    return QCoreApplication.translate("event_words", text)
