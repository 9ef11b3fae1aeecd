"""How a run ended, in words: a short name for the title, and what went wrong."""

from __future__ import annotations

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

from app.i18n import explain
from training_backend.errors import UserError
from training_backend.protocol import RunFailed, RunInterrupted

# What stands in a title after "Failed" or "Interrupted"; ends that are not here have no short name.
_NAMES = {
    "card_error": str(QT_TRANSLATE_NOOP("end_words", "an error of the card")),
    "card_lost": str(QT_TRANSLATE_NOOP("end_words", "the card was lost")),
    "card_not_supported": str(QT_TRANSLATE_NOOP("end_words", "driver and PyTorch differ")),
    "computer_restarted": str(QT_TRANSLATE_NOOP("end_words", "the computer was switched off")),
    "crashed": str(QT_TRANSLATE_NOOP("end_words", "the worker crashed")),
    "disk_error": str(QT_TRANSLATE_NOOP("end_words", "an error of the disk")),
    "disk_full": str(QT_TRANSLATE_NOOP("end_words", "the disk is full")),
    "file_too_large": str(QT_TRANSLATE_NOOP("end_words", "a file is too large for the drive")),
    "disk_read_only": str(QT_TRANSLATE_NOOP("end_words", "the disk is read-only")),
    "ended_by_force": str(QT_TRANSLATE_NOOP("end_words", "ended without saving")),
    "ended_by_signal": str(QT_TRANSLATE_NOOP("end_words", "ended by the system")),
    "gradient_diverged": str(
        QT_TRANSLATE_NOOP("end_words", "the gradient grew beyond all numbers")
    ),
    "hung": str(QT_TRANSLATE_NOOP("end_words", "it stood still")),
    "inputs_changed": str(QT_TRANSLATE_NOOP("end_words", "model or data changed")),
    "killed": str(QT_TRANSLATE_NOOP("end_words", "the worker was killed")),
    "loss_diverged": str(QT_TRANSLATE_NOOP("end_words", "the loss grew beyond all numbers")),
    "loss_not_finite": str(QT_TRANSLATE_NOOP("end_words", "the loss is no longer a number")),
    "model_not_finite": str(QT_TRANSLATE_NOOP("end_words", "the model is damaged")),
    "not_repeatable": str(QT_TRANSLATE_NOOP("end_words", "the computer miscalculated")),
    "out_of_ram": str(QT_TRANSLATE_NOOP("end_words", "the computer ran out of memory")),
    "out_of_ram_likely": str(QT_TRANSLATE_NOOP("end_words", "most likely out of memory")),
    "out_of_vram": str(QT_TRANSLATE_NOOP("end_words", "the card ran out of memory")),
    "overflow_16_bits": str(QT_TRANSLATE_NOOP("end_words", "a number too large for 16 bits")),
    "row_not_finite": str(QT_TRANSLATE_NOOP("end_words", "a bad row in the data")),
    "run_folder_gone": str(QT_TRANSLATE_NOOP("end_words", "the run's folder is gone")),
}


def end_title(event: RunFailed | RunInterrupted) -> str:
    """`Failed: the disk is full`, or the word alone."""
    word = _tr("Failed") if isinstance(event, RunFailed) else _tr("Interrupted")
    name = _NAMES.get(event.code)
    return f"{word}: {_tr(name)}" if name else word


def what_else(event: RunFailed | RunInterrupted) -> str:
    """As `explained`, less what the title says already."""
    text = explained(event)
    if event.code not in _NAMES:
        return text
    name = _tr(_NAMES[event.code])
    return text.removeprefix(f"{name[:1].upper()}{name[1:]}. ")


def explained(event: RunFailed | RunInterrupted) -> str:
    """What went wrong and what to do, in the person's language."""
    error = UserError(event.code, "")
    error.params, error.remedy = event.params, event.remedy
    error.message = event.message if isinstance(event, RunFailed) else event.detail
    return explain(error)


def _tr(text: str) -> str:
    return QCoreApplication.translate("end_words", text)
