"""Texts in the person's language; numbers as their locale writes them."""

from __future__ import annotations

import contextlib
import locale

from PySide6.QtCore import QCoreApplication, QLocale, QTranslator

from app.theme import RESOURCES
from training_backend.errors import UserError


def install(app: QCoreApplication) -> None:
    """Load the translation for the system's language, if there is one."""
    # Qt sets the C locale from the environment; a comma as decimal sign breaks parsers in C.
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_NUMERIC, "C")
    translator = QTranslator(app)
    if translator.load(QLocale(), "lorasmith", "_", str(RESOURCES / "translations")):
        app.installTranslator(translator)


def explain(error: Exception) -> str:
    """An error as one or two sentences. Translated by its code where a translation exists."""
    if not isinstance(error, UserError):
        return str(error) or type(error).__name__
    parts = []
    for part, english in (("message", error.message), ("remedy", error.remedy)):
        key = f"{error.code}.{part}"
        template = QCoreApplication.translate("backend", key)
        parts.append(english if template == key else template.format(**error.params))
    return " ".join(part for part in parts if part)


def app_locale() -> QLocale:
    """The person's locale; where none is set, that of the English texts."""
    default = QLocale()
    return default if default.language() != QLocale.Language.C else QLocale("en_US")


def integer(value: int) -> str:
    """12345 as 12,345 or as the locale has it."""
    return app_locale().toString(value)


def number(value: float, decimals: int = 1) -> str:
    return app_locale().toString(value, "f", decimals)


def size(count: int) -> str:
    """Bytes in the units people know: 272.6 MB, 10.3 GB."""
    return app_locale().formattedDataSize(count, 1, QLocale.DataSizeFormat.DataSizeSIFormat)
