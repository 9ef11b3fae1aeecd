"""Takes the pictures of every page in `docs/screenshots/`, through the real window.

    python docs/make_screenshots.py [--only PAGE] [--out FOLDER]

The newest finished run in `LORASMITH_HOME` is shown; without one the pages are empty, as
they are at a first start. Works without a screen.
"""

from __future__ import annotations

# ruff: noqa: E402 - the platform is chosen before Qt is imported
import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["LORASMITH_NO_WARM_UP"] = "1"

from PySide6.QtCore import QEventLoop, QTimer
from PySide6.QtWidgets import QApplication, QScrollArea, QTableView, QWidget

from app import background, i18n, theme
from app.main_window import MainWindow
from app.settings import Settings
from training_backend import runs
from training_backend.runs import Run

if TYPE_CHECKING:
    from app.pages.dataset import DatasetPage

PAGES = {
    "model": "navModel",
    "data": "navDataset",
    "settings": "navSettings",
    "train": "navTrain",
    "charts": "navTrain",
    "runs": "navRuns",
    "chat": "navChat",
    "export": "navExport",
}
SIZE = (1280, 800)
SETTLE_MS = 1500
HELPER_SECONDS = 60
SHOWN_ROW = 17


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PAGES, action="append")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screenshots")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    app = QApplication(sys.argv[:1])
    i18n.install(app)
    theme.apply(app, "light")
    # The settings of a first start: the pictures do not depend on who takes them.
    settings_folder = tempfile.TemporaryDirectory()
    window = MainWindow(Settings(Path(settings_folder.name) / "window.ini"))
    window.resize(*SIZE)
    window.show()
    _wait(SETTLE_MS)
    run = _newest_finished()
    if run is not None:
        window.desk.open_run(run)
    for name in options.only or PAGES:
        window.go_to(PAGES[name])
        _wait(SETTLE_MS)
        if name == "data":
            _wait_for_tokens(window)
        _show_charts(window, name == "charts")
        for scheme in ("light", "dark"):
            theme.apply(app, "light" if scheme == "light" else "dark")
            _wait(SETTLE_MS // 3)
            file = options.out / f"{name}-{scheme}.png"
            window.grab().save(str(file))
            print(file)
    window.close()
    background.shutdown()
    settings_folder.cleanup()


def _wait_for_tokens(window: MainWindow) -> None:
    """Until the helper has said all that the Data page shows."""
    page = cast("DatasetPage", window.page("navDataset"))
    until = time.monotonic() + HELPER_SECONDS
    while time.monotonic() < until and not page.is_settled():
        _wait(100)
    page.findChild(QTableView, "datasetPreviewTable").selectRow(SHOWN_ROW)
    _wait(SETTLE_MS)


def _show_charts(window: MainWindow, shown: bool) -> None:
    """Scroll the Train page to its charts, or back."""
    for area in window.page("navTrain").findChildren(QScrollArea):
        chart = area.findChild(QWidget, "vramChart")
        if chart is not None:
            bottom = chart.mapTo(area.widget(), chart.rect().bottomLeft()).y() + 40
            area.verticalScrollBar().setValue(bottom - area.height() if shown else 0)


def _newest_finished() -> Run | None:
    return next((found.run for found in runs.list_runs() if found.state == "completed"), None)


def _wait(milliseconds: int) -> None:
    # Not QTest.qWait, which keeps the background threads from running.
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


if __name__ == "__main__":
    main()
