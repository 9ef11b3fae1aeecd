"""The Ollama on this computer: whether it is there, and giving it a model.

Ollama is asked through its own command, which knows how to reach its server, wherever that is.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from training_backend.errors import UserError
from training_backend.export import ollama_modelfile

ANSWER_SECONDS = 60.0  # it starts its server first, where that does not run
POLL_SECONDS = 0.1
END_SECONDS = 5.0
MOST_SAID = 20_000  # characters kept of what it says

# How far it is, from 0 to 1 where it says so, and its own words.
Tell = Callable[[float | None, str], None]

_NAME = re.compile(
    r"(?:\w[\w.-]*/)?[A-Za-z0-9_][\w.-]{0,79}(?::[A-Za-z0-9_][\w.-]{0,79})?", re.ASCII
)
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\u2800-\u28ff]")  # of its lines that turn
_SHARE = re.compile(r"(\d{1,3})%")
_SILENT = re.compile(r"connect|not respond|is it running|could not find ollama app", re.IGNORECASE)


def find() -> Path | None:
    """Ollama's command on this computer, or None."""
    found = shutil.which("ollama")
    # Windows looks into the current folder first, where no program was installed.
    if found and Path(found).absolute().parent != Path.cwd():
        return Path(found)
    places = [
        Path("/usr/local/bin/ollama"),
        Path("/opt/homebrew/bin/ollama"),
        Path("/Applications/Ollama.app/Contents/Resources/ollama"),
    ]
    if os.name == "nt":
        local = os.environ.get("LOCALAPPDATA")
        places = [Path(local, "Programs", "Ollama", "ollama.exe")] if local else []
    return next((path for path in places if path.is_file()), None)


def create(folder: Path, name: str, tell: Tell, check_stop: Callable[[], None]) -> None:
    """Give Ollama the model in a folder with a Modelfile.

    Args:
        name: a new one; a model that Ollama has is never replaced.
        check_stop: raises what ends it.

    Raises `UserError` (about `name`, or why Ollama refuses it), and what `check_stop` raises.
    """
    program = find()
    if program is None:
        raise UserError(
            "ollama_missing",
            "Ollama was not found on this computer.",
            "Install it from ollama.com, then try again.",
        )
    check_name(name)
    if _has(program, name):
        raise UserError(
            "ollama_name_taken",
            "Ollama has a model called {name} already.",
            "Choose another name, or remove that model first: ollama rm {name}",
            field="name",
            name=name,
        )
    modelfile = folder / ollama_modelfile.NAME
    code, said = _run(
        [str(program), "create", name, "-f", str(modelfile)], folder, tell, check_stop
    )
    if code != 0:
        raise _refused(said)


def check_name(name: str) -> None:
    """Raises `UserError` for what Ollama does not take as the name of a model."""
    if not _NAME.fullmatch(name):
        raise UserError(
            "ollama_name_bad",
            "“{name}” cannot be the name of a model in Ollama.",
            "Use letters without accents, digits, dots, dashes and underscores.",
            field="name",
            name=name[:80],
        )


def _has(program: Path, name: str) -> bool:
    try:
        asked = subprocess.run(
            [str(program), "show", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=ANSWER_SECONDS,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired:
        raise _silent() from None
    except OSError as error:
        raise _not_started(error) from None
    if asked.returncode and _SILENT.search(asked.stderr):
        raise _silent()
    return asked.returncode == 0


def _run(
    words: list[str], folder: Path, tell: Tell, check_stop: Callable[[], None]
) -> tuple[int, str]:
    """Exit code and what was said. Ends the program when `check_stop` raises."""
    try:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise _not_started(error) from None
    pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process, pieces), daemon=True)
    reader.start()
    said = ""
    try:
        while True:
            check_stop()
            try:
                piece = pieces.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if not piece:
                break
            said = (said + piece.decode("utf-8", errors="replace"))[-MOST_SAID:]
            _tell_last(said, tell)
        return process.wait(), said
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


def _read(process: subprocess.Popen[bytes], pieces: queue.SimpleQueue[bytes]) -> None:
    assert process.stdout is not None
    while piece := os.read(process.stdout.fileno(), 4_096):
        pieces.put(piece)
    pieces.put(b"")


def _tell_last(said: str, tell: Tell) -> None:
    lines = _lines(said)
    if lines:
        share = _SHARE.search(lines[-1])
        words = _SHARE.split(lines[-1])[0].strip()
        tell(min(1.0, int(share[1]) / 100) if share else None, words)


def _lines(said: str) -> list[str]:
    """What it says, without what moves the cursor: each such move ends a line."""
    return [line.strip() for line in _STEERING.sub("\n", said).splitlines() if line.strip()]


def _refused(said: str) -> UserError:
    lines = _lines(said)
    told = [line.removeprefix("Error:").strip() for line in lines if line.startswith("Error:")]
    reason = (told or lines or ["it did not say why"])[-1]
    if _SILENT.search(reason):
        return _silent()
    return UserError(
        "ollama_refused",
        "Ollama did not take the model: {reason}.",
        "Update Ollama and try again, or use the file with llama.cpp or LM Studio.",
        reason=reason[:300].rstrip("."),
    )


def _silent() -> UserError:
    return UserError(
        "ollama_silent",
        "Ollama is installed but does not answer.",
        "Start Ollama, or run “ollama serve” in a terminal, then try again.",
    )


def _not_started(error: OSError) -> UserError:
    return UserError(
        "ollama_not_started",
        "Ollama could not be started: {reason}.",
        "Install it anew from ollama.com.",
        reason=error.strerror or error,
    )
