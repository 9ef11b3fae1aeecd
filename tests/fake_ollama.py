"""Stands for Ollama's command: says what it says, and keeps what it was given.

The environment tells it how to behave: FAKE_OLLAMA is a folder for what it keeps, with a file
`behaviour` that holds `silent`, `refuses`, `hangs`, or nothing.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, pathlib, sys, time
folder = pathlib.Path(os.environ["FAKE_OLLAMA"])
behaviour = (folder / "behaviour").read_text()
if behaviour == "silent":
    sys.exit("Error: could not connect to ollama app, is it running?")
models = json.loads((folder / "models").read_text())
if sys.argv[1] == "show":
    sys.exit(0 if sys.argv[2] in models else "Error: model '%s' not found" % sys.argv[2])
assert sys.argv[1] == "create" and sys.argv[3] == "-f", sys.argv
modelfile = pathlib.Path(sys.argv[4])
for text in ("gathering model components \\u280b", "copying file sha256:0a1b 3%",
             "copying file sha256:0a1b 100%", "parsing GGUF"):
    sys.stderr.buffer.write(("\\x1b[?25l\\x1b[1G" + text + " \\x1b[K").encode())
    sys.stderr.flush()
    time.sleep(0.05)
if behaviour == "hangs":
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)
if behaviour == "refuses":
    sys.exit("\\nError: unsupported architecture \\"llama9\\"")
(folder / "given").write_text(modelfile.read_text(encoding="utf-8"), encoding="utf-8")
(folder / "models").write_text(json.dumps([*models, sys.argv[2]]))
print("\\nsuccess")
"""


class FakeOllama:
    """The command, found on the PATH of the test and of its child processes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if os.name == "nt":
            pytest.skip("a script with a first line is no program on Windows")
        self.folder = folder
        folder.mkdir()
        self.behave("")
        (folder / "models").write_text('["taken"]')
        self.program = folder / "ollama"
        script = folder / "ollama.py"
        script.write_text(SCRIPT, encoding="utf-8")
        # By way of sh: the first line of a script cannot name a program in a folder with a space.
        words = " ".join(shlex.quote(str(word)) for word in (sys.executable, script))
        self.program.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("FAKE_OLLAMA", str(folder))
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def behave(self, how: str) -> None:
        (self.folder / "behaviour").write_text(how)

    def given(self) -> str:
        """The Modelfile that it made a model of; "" if none."""
        path = self.folder / "given"
        return path.read_text("utf-8") if path.exists() else ""
