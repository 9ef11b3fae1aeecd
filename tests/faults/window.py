"""The real window, started as a person starts it, that also does what it is told.

Each line on its standard input is a piece of Python in JSON, run on the GUI thread with `window` in
scope; one line of JSON answers what the piece left in `answer`.
"""

from __future__ import annotations

import json
import sys
import threading


def main() -> int:
    from PySide6.QtCore import QObject, Qt, Signal

    from app import __main__ as start
    from app import main_window

    class Orders(QObject):
        told = Signal(str)

        def __init__(self, window: main_window.MainWindow) -> None:
            super().__init__(window)
            self._window = window
            self.told.connect(self._obey, Qt.ConnectionType.QueuedConnection)
            threading.Thread(target=self._listen, daemon=True).start()

        def _listen(self) -> None:
            for line in sys.stdin:
                self.told.emit(json.loads(line))

        def _obey(self, source: str) -> None:
            scope: dict[str, object] = {"window": self._window, "answer": None}
            exec(source, scope)
            print(json.dumps(scope["answer"]), flush=True)

    class TellableWindow(main_window.MainWindow):
        def show(self) -> None:
            super().show()
            if not hasattr(self, "orders"):
                self.orders = Orders(self)

    main_window.MainWindow = TellableWindow  # type: ignore[misc]
    return start.main()


if __name__ == "__main__":
    sys.exit(main())
