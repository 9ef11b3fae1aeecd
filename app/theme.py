"""Colours, fonts and the style sheet, in a light and a dark version.

Fonts are set on widgets and colours by the style sheet, never the other way round: a font
in a style sheet would drop the tabular figures.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from string import Template
from typing import Literal

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication

import resources

RESOURCES = Path(resources.__file__).parent
ThemeName = Literal["light", "dark", "system"]


@dataclass(frozen=True)
class Palette:
    """Every colour by its role; contrast of text on the panel is at least 4.5 to 1."""

    name: Literal["light", "dark"]
    background: str
    panel: str
    line: str
    control_line: str
    hover: str
    track: str
    text: str
    secondary: str
    disabled: str
    accent: str
    accent_hover: str
    accent_soft: str
    on_accent: str
    good: str
    careful: str
    bad: str
    chart_smoothed: str
    chart_raw: str
    chart_held_out: str
    run_1: str
    run_2: str
    run_3: str
    run_4: str
    run_5: str
    run_6: str
    run_7: str
    run_8: str
    token_trained_bg: str
    token_trained_line: str
    token_read: str
    token_special_bg: str

    def color(self, role: str) -> QColor:
        return QColor(getattr(self, role))


LIGHT = Palette(
    name="light",
    background="#F6F7F9",
    panel="#FFFFFF",
    line="#E3E6EB",
    control_line="#D5DAE2",
    hover="#F1F3F6",
    track="#EDEFF2",
    text="#1B1F27",
    secondary="#667085",
    disabled="#A4ACB9",
    accent="#3B5BDB",
    accent_hover="#3350C4",
    accent_soft="#E7ECFB",
    on_accent="#FFFFFF",
    good="#17794B",
    careful="#8A5A0B",
    bad="#C0392B",
    chart_smoothed="#3B5BDB",
    chart_raw="#B9C6F3",
    chart_held_out="#D9730D",
    run_1="#3B5BDB",
    run_2="#D9730D",
    run_3="#17794B",
    run_4="#8E44AD",
    run_5="#C0392B",
    run_6="#0B7285",
    run_7="#7A5C3E",
    run_8="#5C6675",
    token_trained_bg="#DDF3E6",
    token_trained_line="#17794B",
    token_read="#667085",
    token_special_bg="#EDEFF2",
)

DARK = Palette(
    name="dark",
    background="#14171C",
    panel="#1C2027",
    line="#2C323C",
    control_line="#3A414D",
    hover="#252A33",
    track="#2A2F38",
    text="#E8EBF0",
    secondary="#98A2B3",
    disabled="#5D6675",
    accent="#7C9BFF",
    accent_hover="#95AEFF",
    accent_soft="#243056",
    on_accent="#14171C",
    good="#4CC38A",
    careful="#E2B04A",
    bad="#F2777A",
    chart_smoothed="#7C9BFF",
    chart_raw="#3A4A80",
    chart_held_out="#F0A35E",
    run_1="#7C9BFF",
    run_2="#F0A35E",
    run_3="#4CC38A",
    run_4="#C792EA",
    run_5="#F2777A",
    run_6="#4FC3D9",
    run_7="#C9A27E",
    run_8="#AEB6C4",
    token_trained_bg="#1D3A2C",
    token_trained_line="#4CC38A",
    token_read="#8A94A6",
    token_special_bg="#2A2F38",
)


class ThemeNotifier(QObject):
    """Says that the colours changed; what paints by itself listens and paints again."""

    changed = Signal()


notifier = ThemeNotifier()
_chosen: ThemeName = "system"
_current = LIGHT


def current() -> Palette:
    """The palette in use."""
    return _current


def apply(app: QApplication, name: ThemeName) -> None:
    """Show the whole application in this theme; "system" follows the desktop from now on."""
    global _chosen
    _chosen = name
    hints = app.styleHints()
    _watch_system(app)
    scheme = {"light": Qt.ColorScheme.Light, "dark": Qt.ColorScheme.Dark}.get(name)
    if scheme is None:
        hints.unsetColorScheme()
        scheme = hints.colorScheme()
    else:
        hints.setColorScheme(scheme)  # title bars and native dialogs go along
    _show(app, DARK if scheme == Qt.ColorScheme.Dark else LIGHT)


@cache
def _watch_system(app: QApplication) -> None:
    app.styleHints().colorSchemeChanged.connect(_follow_system)


def _follow_system(scheme: Qt.ColorScheme) -> None:
    app = QApplication.instance()
    if _chosen == "system" and isinstance(app, QApplication):
        _show(app, DARK if scheme == Qt.ColorScheme.Dark else LIGHT)


def _show(app: QApplication, palette: Palette) -> None:
    global _current
    _current = palette
    if not app.styleSheet():
        app.setStyle("Fusion")
    app.setFont(font())
    app.setPalette(_qt_palette(palette))
    app.setStyleSheet(_style_sheet(palette))
    notifier.changed.emit()


def _style_sheet(palette: Palette) -> str:
    template = (RESOURCES / "themes" / "app.qss").read_text(encoding="utf-8")
    icons = (RESOURCES / "icons").as_posix()
    return Template(template).substitute(asdict(palette), icons=icons)


def _qt_palette(colors: Palette) -> QPalette:
    roles = {
        QPalette.ColorRole.Window: colors.background,
        QPalette.ColorRole.WindowText: colors.text,
        QPalette.ColorRole.Base: colors.panel,
        QPalette.ColorRole.AlternateBase: colors.background,
        QPalette.ColorRole.Text: colors.text,
        QPalette.ColorRole.PlaceholderText: colors.secondary,
        QPalette.ColorRole.Button: colors.panel,
        QPalette.ColorRole.ButtonText: colors.text,
        QPalette.ColorRole.Highlight: colors.accent,
        QPalette.ColorRole.HighlightedText: colors.on_accent,
        QPalette.ColorRole.ToolTipBase: colors.panel,
        QPalette.ColorRole.ToolTipText: colors.text,
        QPalette.ColorRole.Link: colors.accent,
        QPalette.ColorRole.Mid: colors.line,
        QPalette.ColorRole.Accent: colors.accent,
    }
    palette = QPalette()
    for role, color in roles.items():
        palette.setColor(role, QColor(color))
    for role in (
        QPalette.ColorRole.WindowText,
        QPalette.ColorRole.Text,
        QPalette.ColorRole.ButtonText,
    ):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(colors.disabled))
    return palette


# ------------------------------------------------------------------------------------ fonts


@cache
def _load_inter() -> None:
    for name in ("Inter-Regular.otf", "Inter-Medium.otf", "Inter-SemiBold.otf"):
        QFontDatabase.addApplicationFont(str(RESOURCES / "fonts" / name))


def font(
    size: int = 13, weight: QFont.Weight = QFont.Weight.Normal, *, tabular: bool = False
) -> QFont:
    """Inter at `size` pixels. `tabular` is for figures that change: they keep their width."""
    _load_inter()
    made = QFont(["Inter", "Segoe UI", "Helvetica Neue", "Noto Sans", "sans-serif"])
    made.setPixelSize(size)
    made.setWeight(weight)
    if tabular:
        made.setFeature(QFont.Tag("tnum"), 1)
    return made


def mono_font(size: int = 13) -> QFont:
    """A monospace without ligatures, for tokens and logs."""
    made = QFont(["DejaVu Sans Mono", "Menlo", "Consolas", "Noto Sans Mono", "monospace"])
    made.setStyleHint(QFont.StyleHint.Monospace)
    made.setPixelSize(size)
    for tag in ("liga", "calt"):
        made.setFeature(QFont.Tag(tag), 0)
    return made
