"""`--demo`: train on the demo, export, and show the same questions before and after."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject

from training_backend import paths
from training_backend.job import ExportJob
from training_backend.protocol import RunCompleted, Terminal
from training_backend.runs import Run
from training_backend.starting_points.demo import demo_job

if TYPE_CHECKING:
    from app.main_window import MainWindow


class DemoTour(QObject):
    """Presses the buttons that a person would press, one after the other."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        window.training.run_ended.connect(self._on_trained)
        window.exports.run_ended.connect(self._on_exported)

    def start(self) -> None:
        """Train with the choices of a first start; what the person chose since is untouched."""
        self._window.go_to("navTrain")
        self._window.training.start(demo_job())

    def _on_trained(self, run: Run | None, terminal: Terminal | None) -> None:
        if run is None or not isinstance(terminal, RunCompleted):
            return  # the Train page says why
        self._window.go_to("navExport")
        out = paths.exports_dir() / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
        self._window.export_desk.start(
            ExportJob(
                name="demo",
                run=str(run.folder),
                checkpoint=None,
                format="safetensors",
                out=str(out),
                verify=False,  # the tour goes on to ask it questions itself
            )
        )

    def _on_exported(self, run: Run | None, terminal: Terminal | None) -> None:
        if isinstance(terminal, RunCompleted):
            self._window.go_to("navChat")
