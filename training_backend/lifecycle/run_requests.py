"""What a person asks of a live run: small files in `requests/` in the run's folder.

    stop                save and end; if it is not the person who asks, it holds why
    checkpoint          save a checkpoint after this step
    pause               save, and wait for as long as this file is there
    end                 nobody obeys it: whoever ends the worker by force leaves it to say so, and
                        for how many seconds it had stood still, if that was why
    question-<number>   answer the job's questions now; or, if it holds `{"prompt": …}`, this one

The worker looks at the end of every step and removes what it has done. Files are what a
window that did not start the run, a terminal and a restarted window all share.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training_backend.errors import UserError
from training_backend.files import write_json_atomic, write_text_atomic
from training_backend.protocol import StopReason

Request = Literal["stop", "checkpoint", "pause", "end"]
Kind = Literal["stop", "checkpoint", "pause", "question"]

MOST_CHARACTERS = 4_000
_MOST_BYTES = 64_000  # of a file: four thousand characters, each written as an escape, and more
_QUESTION = "question-"


@dataclass(frozen=True)
class Requests:
    """The requests of one run. Nothing is cached."""

    folder: Path

    def ask(self, what: Request) -> None:
        """Asking twice is asking once."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / what).write_bytes(b"")

    def ask_to_stop(self, reason: StopReason) -> None:
        """As `ask("stop")`, by the computer; what the person asked for is not touched."""
        if self.is_asked("stop"):
            return
        self.folder.mkdir(exist_ok=True)
        try:
            write_text_atomic(self.folder / "stop", reason)
        except OSError:  # a full disk has room for an empty file
            self.ask("stop")

    def stop_reason(self) -> StopReason:
        """Who or what asked to stop."""
        with contextlib.suppress(OSError, ValueError):
            match (self.folder / "stop").read_text(encoding="utf-8"):
                case "sleep":
                    return "sleep"
                case "system":
                    return "system"
        return "asked"

    def ask_question(self, prompt: str | None = None) -> None:
        """Have the model answer the job's questions, or this one.

        Raises `UserError` about a prompt that is empty, too long or no text.
        """
        self.folder.mkdir(exist_ok=True)
        text = None if prompt is None else checked_prompt(prompt)
        write_json_atomic(self.folder / f"{_QUESTION}{time.time_ns()}", {"prompt": text})

    def note_end(self, still_seconds: float | None = None, *, halted: bool = False) -> None:
        """Say that the worker is being ended by force.

        Args:
            still_seconds: for how long it had stood still, if that is why.
            halted: whether somebody had halted its process.
        """
        self.folder.mkdir(exist_ok=True)
        write_json_atomic(self.folder / "end", {"still_seconds": still_seconds, "halted": halted})

    def stood_still(self) -> tuple[float | None, bool]:
        """What `note_end` was given."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            noted = json.loads((self.folder / "end").read_bytes())
            seconds = noted["still_seconds"]
            return None if seconds is None else float(seconds), noted.get("halted") is True
        return None, False

    def is_asked(self, what: Request) -> bool:
        return (self.folder / what).exists()

    def done(self, what: Request) -> None:
        """Take it back, or note that it is done."""
        remove(self.folder / what)

    def questions(self) -> list[Path]:
        """The files of the questions that wait, oldest first."""
        return sorted(self.folder.glob(f"{_QUESTION}*"))

    def pending(self) -> list[Kind]:
        """What has been asked and is not done."""
        plain: tuple[Literal["stop", "checkpoint", "pause"], ...] = ("stop", "checkpoint", "pause")
        found: list[Kind] = [what for what in plain if self.is_asked(what)]
        return [*found, "question"] if self.questions() else found

    def clear(self) -> None:
        """Forget all of it, also what somebody else left there."""
        for path in self.folder.glob("*"):
            remove(path)


def read_question(file: Path) -> str | None:
    """The prompt; None where the job's own questions are meant.

    Raises `UserError` for a file that holds no question.
    """
    try:
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:  # a pipe would hold us up
            raise ValueError("it is no small file")
        data: Any = json.loads(file.read_bytes() or b"{}")
        prompt = data.get("prompt")
        if prompt is not None and not isinstance(prompt, str):
            raise ValueError("its prompt is no text")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            "question_unreadable",
            "A question in the run's requests cannot be read: {reason}.",
            "Ask it again.",
            reason=str(error) or type(error).__name__,
        ) from None
    return None if prompt is None else checked_prompt(prompt)


def checked_prompt(prompt: str) -> str:
    """The question without white space around it. Raises `UserError`."""
    text = prompt.strip()
    if not text:
        raise UserError("question_empty", "The question is empty.", "Write one.")
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            "question_too_long",
            "The question has {count} characters; at most {most} can be asked.",
            "Shorten it.",
            count=f"{len(text):,}",
            most=f"{MOST_CHARACTERS:,}",
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(
            "question_no_text", "The question holds signs that are no text.", "Type it anew."
        ) from None
    return text


def remove(path: Path) -> None:
    """Whatever it is; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
