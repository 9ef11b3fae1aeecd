"""What becomes of a run when the window is closed, the session ends, or the system says: end.

Whatever happens to the window, its worker is a process of its own: it saves and stops when it is
asked to, and carries on when nobody asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QMessageBox

from app.desktop.one_window import bring_to_front
from app.desktop.sleeping import wait_for_end
from app.desktop.tray import Tray
from app.dialogs import close_dialog

if TYPE_CHECKING:
    from PySide6.QtGui import QSessionManager

    from app.main_window import MainWindow

# A desktop asks each program in turn and ends those that do not answer within about five seconds.
SESSION_SECONDS = 3.0


class Closing(QObject):
    """Asks, hides, and closes; the window asks it whether it may close."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window
        self._training = window.training
        self._tray = window.tray
        self._without_asking = False
        self._when_ended = False
        self._tray.show_requested.connect(lambda: bring_to_front(window))
        self._tray.stop_requested.connect(self.stop)
        self._tray.quit_requested.connect(self.quit)
        self._training.run_opened.connect(self._on_opened)
        self._training.run_ended.connect(self._on_ended)

    def may_close(self) -> bool:
        """Whether the window may close now; asks what is to become of what is under way."""
        if self._without_asking:
            return True
        if self._training.active() is None:
            return not self._asks_about_export()
        if self._window.findChild(QMessageBox, close_dialog.NAME) is None:
            bring_to_front(self._window)  # the question of a minimised window is seen by nobody
            waiting = len(self._window.queue.state.entries)
            close_dialog.ask_about_training(
                self._window, waiting, Tray.is_available(), self.quit, self.keep
            )
        return False

    def _asks_about_export(self) -> bool:
        exports = self._window.exports
        if exports.active() is None:
            return False
        if self._window.findChild(QMessageBox, close_dialog.EXPORT_NAME) is None:

            def cancel() -> None:
                exports.stop()  # its worker obeys without the window
                self.close_now()

            bring_to_front(self._window)
            close_dialog.ask_about_export(self._window, self.close_now, cancel)
        return True

    def is_quitting(self) -> bool:
        """Whether the window closes as soon as its run has ended."""
        return self._when_ended

    def keep(self) -> None:
        """Follow the run on, out of sight: in the tray or, where there is none, minimised."""
        if Tray.is_available():
            self._tray.stay()
            self._window.hide()
        else:
            self._window.showMinimized()

    def stop(self) -> None:
        """Have the run save and stop."""
        self._tray.set_stopping()
        self._window.desk.stop()

    def quit(self) -> None:
        """Close when the run has saved and stopped; at once when there is none."""
        if self._training.active() is None:  # it may have ended while the question stood
            self.close_now()
            return
        self._when_ended = True
        self.stop()

    def close_now(self) -> None:
        """Close without asking; a run under way carries on."""
        self._without_asking = True
        self._window.close()

    def end(self) -> None:
        """The system ends the program: ask the run to save and stop, and be gone."""
        self._training.stop_for("system")
        self.close_now()

    def end_of_session(self, _: QSessionManager | None = None) -> None:
        """The session is about to end: have the run save and stop, and give it a moment for it.

        No question: nobody may be there, and a system that waits for one ends us by force. If
        the person takes the logging out back, the window is still there, with the stopped run.
        """
        run = self._training.active()
        self.prepare_for_end()
        if run is not None:
            wait_for_end(run, SESSION_SECONDS)

    def prepare_for_end(self) -> None:
        """The computer or the session will end: nothing that comes then may ask or be lost."""
        self._training.stop_for("system")
        self._without_asking = True
        self._window.remember()

    def _on_opened(self, _: object) -> None:
        self._without_asking = False  # of the run before
        self._tray.set_training(True)

    def _on_ended(self, *_: object) -> None:
        self._tray.set_training(False)
        if self._when_ended:
            self.close_now()
