"""What buttons hand to the system: folders, and nothing that it would start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QObject, QUrl, Slot
from PySide6.QtGui import QDesktopServices

from app.widgets.actions import open_folder


class _System(QObject):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    @Slot(QUrl)
    def open(self, url: QUrl) -> None:
        self.opened.append(url.toLocalFile())


@pytest.fixture
def system(qapp: object) -> Iterator[_System]:
    made = _System()
    QDesktopServices.setUrlHandler("file", made, "open")
    yield made
    QDesktopServices.unsetUrlHandler("file")


def test_a_folder_is_shown_and_a_file_that_stands_in_its_place_is_not_started(
    system: _System, tmp_path: Path
) -> None:
    script = tmp_path / "run.bat"
    script.write_text("echo")
    for path in (tmp_path, script, tmp_path / "gone"):
        open_folder(path)
    assert system.opened == [str(tmp_path)]
