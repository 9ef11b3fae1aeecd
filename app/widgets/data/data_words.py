"""Forms of rows and roles of columns in plain words."""

from __future__ import annotations

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

from training_backend.job_data import ColumnRole, DataFormat

_FORMS: dict[DataFormat, str] = {
    "messages": str(QT_TRANSLATE_NOOP("data_words", "Conversations (messages)")),
    "sharegpt": str(QT_TRANSLATE_NOOP("data_words", "Conversations (ShareGPT)")),
    "alpaca": str(QT_TRANSLATE_NOOP("data_words", "Instruction and output (Alpaca)")),
    "prompt_completion": str(QT_TRANSLATE_NOOP("data_words", "Prompt and completion")),
    "question_answer": str(QT_TRANSLATE_NOOP("data_words", "Question and answer")),
    "text": str(QT_TRANSLATE_NOOP("data_words", "Plain text")),
    "preference": str(QT_TRANSLATE_NOOP("data_words", "Chosen and rejected answers")),
    "kto": str(QT_TRANSLATE_NOOP("data_words", "Answers labelled good or bad")),
    "custom": str(QT_TRANSLATE_NOOP("data_words", "A mapping of your own")),
}
_ROLES: dict[ColumnRole, str] = {
    "user": str(QT_TRANSLATE_NOOP("data_words", "Question")),
    "assistant": str(QT_TRANSLATE_NOOP("data_words", "Answer, learned from")),
    "system": str(QT_TRANSLATE_NOOP("data_words", "System text")),
    "text": str(QT_TRANSLATE_NOOP("data_words", "Plain text, learned whole")),
    "messages": str(QT_TRANSLATE_NOOP("data_words", "Whole conversation")),
    "reasoning": str(QT_TRANSLATE_NOOP("data_words", "Reasoning before the answer")),
    "tool": str(QT_TRANSLATE_NOOP("data_words", "What a tool gave back")),
    "tools": str(QT_TRANSLATE_NOOP("data_words", "List of tools")),
    "weight": str(QT_TRANSLATE_NOOP("data_words", "Weight of the answer")),
}
_TURNS = {
    "system": str(QT_TRANSLATE_NOOP("data_words", "System")),
    "user": str(QT_TRANSLATE_NOOP("data_words", "Question")),
    "assistant": str(QT_TRANSLATE_NOOP("data_words", "Answer")),
    "tool": str(QT_TRANSLATE_NOOP("data_words", "Tool")),
    "text": str(QT_TRANSLATE_NOOP("data_words", "Text")),
}


def form_titles() -> dict[DataFormat, str]:
    """Every form that rows can have but auto, by what it is called."""
    return {form: _tr(title) for form, title in _FORMS.items()}


def role_titles() -> dict[ColumnRole, str]:
    """Everything that a column can be, by what it is called."""
    return {role: _tr(title) for role, title in _ROLES.items()}


def turn_title(role: str) -> str:
    """Who says a turn."""
    return _tr(_TURNS.get(role, role))


def _tr(text: str) -> str:
    return QCoreApplication.translate("data_words", text)
