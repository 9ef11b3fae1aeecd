"""Starts the window.

Nothing of Qt is imported at module level: a worker process imports this module again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.desktop.one_window import OneWindow

_DEBIAN_LIBRARIES = (
    "libgl1 libegl1 libglib2.0-0 libdbus-1-3 libfontconfig1 libxkbcommon0 libxcb-cursor0 "
    "libxkbcommon-x11-0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"
)


def main() -> int:
    """Show the window until it is closed; the exit code."""
    multiprocessing.freeze_support()
    parser = argparse.ArgumentParser(
        prog="lorasmith", description="Fine-tune language models on your own computer."
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="train on the demo, export, and show the same question before and after",
    )
    parser.add_argument(
        "--theme", choices=("light", "dark", "system"), help="remembered for the next start"
    )
    options = parser.parse_args()
    try:
        from PySide6.QtWidgets import QApplication
    except ImportError as error:
        print(f"The window cannot be shown: {error}", file=sys.stderr)
        if sys.platform == "linux":
            print(f"On Debian or Ubuntu: apt install {_DEBIAN_LIBRARIES}", file=sys.stderr)
        return 1
    return _run(QApplication, options)


def _run(application: type, options: argparse.Namespace) -> int:
    from PySide6.QtCore import Qt, QTimer
    from PySide6.QtWidgets import QMessageBox

    from app import background, i18n, theme
    from app.desktop.end_signals import EndSignals
    from app.desktop.icon import sign
    from app.desktop.one_window import OneWindow, bring_to_front
    from app.error_dialog import install_excepthook
    from app.main_window import MainWindow
    from app.settings import Settings
    from app.widgets.card import plain_tool_tip
    from training_backend import preferences
    from training_backend.errors import UserError
    from training_backend.paths import home

    app = application(sys.argv[:1])
    app.setApplicationName("lorasmith")
    app.setApplicationDisplayName("Lorasmith")
    i18n.install(app)
    install_excepthook()
    try:
        preferences.apply_to_environment()  # for the processes that this one starts
        settings = Settings()
        only = OneWindow(home())
    except UserError as error:  # no folder to keep anything in
        print(error, file=sys.stderr)
        QMessageBox.critical(None, "Lorasmith", plain_tool_tip(i18n.explain(error)))
        return 1
    if not only.claim():
        return _hand_over(only)
    if options.theme:
        settings.set_theme(options.theme)
    theme.apply(app, settings.theme())
    app.setWindowIcon(sign())
    window = MainWindow(settings)
    # Qt's own quitting after the last window is lost when the window closes while its pages
    # are still being built, and would end a window that is hidden in the tray.
    app.setQuitOnLastWindowClosed(False)
    window.closed.connect(app.quit, Qt.ConnectionType.QueuedConnection)
    app.commitDataRequest.connect(window.closing.end_of_session)
    signals = EndSignals()
    signals.asked.connect(window.closing.end)
    only.show_requested.connect(lambda: bring_to_front(window))
    window.show()
    if options.demo:
        from app.demo_tour import DemoTour

        tour = DemoTour(window)
        QTimer.singleShot(1500, tour, tour.start)
    code = int(app.exec())
    background.shutdown()
    only.release()
    # Leaving in the ordinary way would wait for a worker that trains on without the window.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as in a Windows program without a console
            stream.flush()
    os._exit(code)


def _hand_over(only: OneWindow) -> int:
    """There is a window already: it comes to the front, and this start ends."""
    from PySide6.QtCore import QCoreApplication
    from PySide6.QtWidgets import QMessageBox

    if only.show_other():
        print("Lorasmith is open already; its window comes to the front.")
        return 0
    QMessageBox.warning(
        None,
        "Lorasmith",
        QCoreApplication.translate(
            "OneWindow",
            "Lorasmith is open already, but does not answer. Wait a moment, or end it in the "
            "system's list of programs; a training under way goes on.",
        ),
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
