"""What the window remembers from one start to the next, in `window.ini` below home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

from PySide6.QtCore import QByteArray, QSettings

from app.theme import ThemeName
from training_backend import paths

RECENT_KEPT = 8
RecentKind = Literal["models", "datasets"]


class Settings:
    """A small typed door to the settings file. Damaged values read as missing."""

    def __init__(self, file: Path | None = None) -> None:
        file = file or paths.home() / "window.ini"
        self._store = QSettings(str(file), QSettings.Format.IniFormat)

    def theme(self) -> ThemeName:
        value = self._store.value("theme")
        return value if value in get_args(ThemeName) else "system"

    def set_theme(self, name: ThemeName) -> None:
        self._store.setValue("theme", name)

    def geometry(self) -> QByteArray:
        value = self._store.value("geometry")
        return value if isinstance(value, QByteArray) else QByteArray()

    def set_geometry(self, geometry: QByteArray) -> None:
        self._store.setValue("geometry", geometry)

    def draft(self) -> dict[str, Any] | None:
        value = self._json("draft")
        return value if isinstance(value, dict) else None

    def set_draft(self, draft: dict[str, Any]) -> None:
        self._store.setValue("draft", json.dumps(draft))

    def smoothing(self) -> float | None:
        """Of the charts, from 0 to below 1; None when it was never changed."""
        value = self._json("smoothing")
        return value if isinstance(value, float) and 0 <= value < 1 else None

    def set_smoothing(self, weight: float) -> None:
        self._store.setValue("smoothing", json.dumps(weight))

    def notify(self) -> bool:
        """Whether the desktop is told when training has ended; yes unless turned off."""
        return self._json("notify") is not False

    def set_notify(self, wanted: bool) -> None:
        self._store.setValue("notify", json.dumps(wanted))

    def told_until(self) -> float | None:
        """Up to when (Unix seconds) the person knows what became of the queue."""
        value = self._json("told_until")
        return value if isinstance(value, float) else None

    def set_told_until(self, moment: float) -> None:
        self._store.setValue("told_until", json.dumps(moment))

    def recent(self, kind: RecentKind) -> list[str]:
        value = self._json(f"recent/{kind}")
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []

    def add_recent(self, kind: RecentKind, item: str) -> None:
        items = [item, *(known for known in self.recent(kind) if known != item)]
        self._store.setValue(f"recent/{kind}", json.dumps(items[:RECENT_KEPT]))

    def flush(self) -> None:
        self._store.sync()

    def _json(self, key: str) -> Any:
        try:
            return json.loads(str(self._store.value(key, "null")))
        except ValueError:
            return None
