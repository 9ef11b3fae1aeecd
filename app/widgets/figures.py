"""Numbers, sizes and times as people read them, with the separators of their locale."""

from __future__ import annotations

import math

from PySide6.QtCore import QCoreApplication, QDateTime, QLocale

from app.i18n import app_locale

# Cards and computers are sold in these: a card "of 24 GB" has 24 x 2^30 bytes.
GIGABYTE = 2**30


def _tr(text: str) -> str:
    return QCoreApplication.translate("figures", text)


def count(value: int) -> str:
    return app_locale().toString(int(value))


def decimal(value: float, digits: int) -> str:
    return app_locale().toString(float(value), "f", digits)


def loss(value: float) -> str:
    """Three decimals, as many as mean something; more for a very small loss."""
    if not math.isfinite(value):
        return _tr("not a number")
    return decimal(value, 3) if value >= 0.01 or value == 0 else scientific(value)


def scientific(value: float) -> str:
    """As `2e-4` or `1.6e-4`: the way learning rates are written."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace(
        ".", app_locale().decimalPoint()
    )


def gigabytes(value: float) -> str:
    return _tr("{size} GB").format(size=decimal(value / GIGABYTE, 1))


def size(value: int) -> str:
    """A file's size in the unit that fits."""
    if value >= GIGABYTE / 10:
        return gigabytes(value)
    return _tr("{size} MB").format(size=decimal(value / 2**20, 0 if value >= 2**20 else 1))


def share(value: float) -> str:
    """A share of one as per cent, with two figures that mean something."""
    percent = value * 100
    return _tr("{number} %").format(number=decimal(percent, 0 if percent >= 10 else 2))


def percent(value: float) -> str:
    """A mean over some dozens of rows as whole per cents: no decimals of it mean something."""
    return _tr("{number} %").format(number=decimal(value * 100, 0))


def millions(value: int) -> str:
    """A model's size: `4.9 million`, `8.0 billion`."""
    if value >= 10**9:
        return _tr("{number} billion").format(number=decimal(value / 10**9, 1))
    if value >= 10**6:
        return _tr("{number} million").format(number=decimal(value / 10**6, 1))
    return count(value)


def duration(seconds: float) -> str:
    """Rounded so that a guess does not look exact: `40 s`, `9 min`, `2 h 10 min`."""
    seconds = max(0.0, seconds)
    if seconds < 55:
        return _tr("{count} s").format(count=max(1, round(seconds / 5) * 5 or 1))
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return _tr("{count} min").format(count=minutes)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return _tr("{count} days").format(count=round(hours / 24))
    return _tr("{hours} h {minutes} min").format(hours=hours, minutes=minutes)


def clock(unix_seconds: float) -> str:
    """The time of day; with the day when it is not today."""
    moment = QDateTime.fromSecsSinceEpoch(int(unix_seconds))
    time = app_locale().toString(moment.time(), "HH:mm")
    if moment.date() == QDateTime.currentDateTime().date():
        return time
    return f"{app_locale().toString(moment.date(), QLocale.FormatType.ShortFormat)} {time}"


def short(value: float) -> str:
    """Three figures that mean something: `0.0123`, `97.1`, `12,300`, `1.6e-5`."""
    if not math.isfinite(value):
        return _tr("not a number")
    size = abs(value)
    if 0 < size < 0.001:
        return scientific(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return decimal(value, digits)
