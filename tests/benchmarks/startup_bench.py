"""How long the window takes from the start of its process to its first paint.

    python tests/benchmarks/startup_bench.py [--runs 7]

Starts `app.__main__` as a person would, in a fresh process and a fresh home each time, and
prints the median. Also says which heavy libraries the window's process holds once all its
pages are built: there must be none. Wants a screen, real or virtual.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TARGET_SECONDS = 1.0
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes")

# Runs the real main(), and looks at the window from within: a timer would come too late, so
# the first paint event of the main window is caught by a filter on the application.
CHILD = f"""
import os, sys, time
import psutil
began = psutil.Process().create_time()
def main():
    from PySide6.QtCore import QEvent, QObject, QTimer
    from PySide6.QtWidgets import QApplication, QMainWindow
    class Watch(QObject):
        painted = False
        def eventFilter(self, watched, event):
            if event.type() == QEvent.Type.Paint and isinstance(watched, QMainWindow):
                if not self.painted:
                    self.painted = True
                    QTimer.singleShot(0, self, self.first)
            return False
        def first(self):
            print("painted", time.time() - began, flush=True)
            print("heavy", [name for name in {HEAVY!r} if name in sys.modules], flush=True)
            QTimer.singleShot(2500, self, self.last)
        def last(self):
            print("pages", len(QApplication.topLevelWidgets()), flush=True)
            print("heavy", [name for name in {HEAVY!r} if name in sys.modules], flush=True)
            for widget in QApplication.topLevelWidgets():
                widget.close()
            QApplication.exit()
    class Application(QApplication):
        def __init__(self, arguments):
            super().__init__(arguments)
            self.watch = Watch()
            self.installEventFilter(self.watch)
    import PySide6.QtWidgets
    PySide6.QtWidgets.QApplication = Application
    from app.__main__ import main as window_main
    sys.exit(window_main())
if __name__ == "__main__":
    main()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=7)
    count = parser.parse_args().runs
    seconds: list[float] = []
    heavy: set[str] = set()
    for number in range(count + 1):
        paint, found = _start_once()
        heavy |= found
        if number:  # the first one warms the file cache
            seconds.append(paint)
    print("first paint after", ", ".join(f"{value:.2f}" for value in sorted(seconds)), "s")
    print(f"median {statistics.median(seconds):.2f} s, target {TARGET_SECONDS:.1f} s")
    print("heavy libraries in the window's process:", ", ".join(sorted(heavy)) or "none")
    return 0 if statistics.median(seconds) < TARGET_SECONDS and not heavy else 1


def _start_once() -> tuple[float, set[str]]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "start.py"
        script.write_text(CHILD, encoding="utf-8")
        environment = {
            **os.environ,
            "LORASMITH_HOME": str(Path(folder) / "home"),
            "LORASMITH_NO_WARM_UP": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        answer = subprocess.run(
            [sys.executable, str(script)],
            env=environment,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
    lines = [line.split(maxsplit=1) for line in answer.stdout.splitlines()]
    paint = next(float(rest) for word, rest in lines if word == "painted")
    found = {name for word, rest in lines if word == "heavy" for name in HEAVY if name in rest}
    return paint, found


if __name__ == "__main__":
    sys.exit(main())
