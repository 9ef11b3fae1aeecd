"""Takes what is private out of texts that somebody may hand on. Light.

Two belts. What a run wrote is let through by what it is: numbers, words of our own, the lines of a
traceback; everything else is left out unread (`event`, `job`, `log`). Over all that remains goes a
second one that knows this computer's names (`Scrubber`).
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from training_backend import paths
from training_backend.hub import hub_token
from training_backend.job import Job
from training_backend.lifecycle import failures
from training_backend.lifecycle.ends import module_of
from training_backend.protocol import Event, RunFailed, RunInterrupted, WarningRaised

# ------------------------------------------------------------------------------- what a run said

# Texts of events that are words of our own, or of a driver.
_OWN_WORDS = {
    "type", "phase", "device", "device_name", "code", "cause", "field", "name", "app_version",
    "reason", "held_back_by", "ran_out",
}  # fmt: skip
_OWN_FOLDER = re.compile(r"(?:^|[/\\])(checkpoint-\d+|adapter|model)$")
_OWN_PARAMS = {"kind", "name", "how", "place", "time", "used", "total", "step"}
_NUMBER = re.compile(r"[-+]?[\d.,:]+(e[-+]?\d+)?( ?(%|[kMGT]i?B|s|min|h))?")


def event(said: Event) -> dict[str, Any]:
    """An event without what people, data and models wrote, and without names of folders."""
    shown: dict[str, Any] = _event_part(said.model_dump(mode="json"))
    match said:
        case WarningRaised() | RunFailed() | RunInterrupted():
            shown |= _message(said)
    return shown


def message(said: RunFailed | RunInterrupted) -> str:
    """Its sentences, as `event` gives them."""
    shown = _message(said)
    key = "message" if isinstance(said, RunFailed) else "detail"
    return f"{shown[key]} {shown['remedy']}".rstrip()


def _event_part(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _event_part(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_event_part(each, key) for each in value]
    if isinstance(value, str) and key not in _OWN_WORDS and value:
        known = _OWN_FOLDER.search(value)
        return f"<folder>/{known[1]}" if known else _left_out(value)
    return value


def _message(said: WarningRaised | RunFailed | RunInterrupted) -> dict[str, Any]:
    """Its texts with the names of what they were filled with, in the place of that."""
    shown: dict[str, Any] = {"params": {}}
    texts = (
        {"detail": said.detail, "remedy": said.remedy, "log_tail": log(said.log_tail)}
        if isinstance(said, RunInterrupted)
        else {"message": said.message}
    )
    if isinstance(said, RunFailed):
        texts["remedy"] = said.remedy
    if any(isinstance(value, list | tuple | Mapping) for value in said.params.values()):
        # What they look like in the sentence is not known.
        texts |= {key: _left_out(texts[key]) for key in texts.keys() - {"log_tail"}}
    for name, value in said.params.items():
        if _is_ours(name, str(value)):
            shown["params"][name] = value
            continue
        shown["params"][name] = f"<{name}>"
        for key in texts.keys() - {"log_tail"}:
            texts[key] = texts[key].replace(str(value), f"<{name}>") if str(value) else texts[key]
    return shown | texts


def _is_ours(name: str, value: str) -> bool:
    if name in _OWN_PARAMS or _NUMBER.fullmatch(value):
        return True
    return name == "reason" and failures.of_words(value) is not None


def _left_out(text: str) -> str:
    return f"<left out, {len(text)} characters>"


# --------------------------------------------------------------------------------- what was asked

_MOST_ENTRIES = 50
_PARTS_OF_MODELS = {"target_modules", "exclude_modules", "modules_to_save"}


def job(asked: Job) -> dict[str, Any]:
    """A job's settings; of texts only defaults, those chosen from a list, and ids on the Hub."""
    shown = _section(asked)
    model = getattr(asked, "model", None)
    if model is not None and not os.path.exists(os.path.expanduser(model.id)):
        shown["model"]["id"] = model.id
    return shown


def _section(section: BaseModel) -> dict[str, Any]:
    fields = type(section).model_fields
    shown = {}
    for name, value in section:
        is_default = isinstance(value, str) and value == fields[name].default
        shown[name] = value if is_default else _setting(name, value, fields[name].annotation)
    return shown


def _setting(name: str, value: Any, kind: Any) -> Any:
    if isinstance(value, BaseModel):
        return _section(value)
    if isinstance(value, str):
        is_word = value in _words(kind) or (name in _PARTS_OF_MODELS and value.isidentifier())
        return value if is_word else _left_out(value)
    if isinstance(value, list | tuple):
        if len(value) > _MOST_ENTRIES:
            return f"<{len(value)} entries>"
        return [_setting(name, each, kind) for each in value]
    if isinstance(value, Mapping):
        return f"<{len(value)} entries>"
    return value


def _words(kind: Any) -> set[Any]:
    """The texts that a field's type names."""
    found: set[Any] = set()
    for part in get_args(kind):
        found |= {part} if isinstance(part, str) else _words(part)
    return found


# --------------------------------------------------------------------------------- what it logged

_PYTHON_FILE = re.compile(
    r'^(?P<head>.*?File ")(?P<path>[^"]+)(?P<tail>", line \d+(, in .+| in .+)?)$'
)
_ERROR = re.compile(
    r"^(?P<kind>[A-Za-z_][\w.]*(Error|Exception|Warning|Interrupt|Exit)): ?(?P<text>.*)$"
)
_WARNING = re.compile(r"^(?P<path>[^\n]+?\.py):(?P<line>\d+): (?P<kind>\w*Warning): .*$")
_HARMLESS = re.compile(
    r"^(Traceback \(most recent call last\):"
    r"|Fatal Python error: [\w ]+"
    r"|(Current t|T)hread 0x[0-9a-f]+( \[[\w-]+\])? \(most recent call first\):"
    r"|Extension modules: [\w.,: ()]+"
    r"|(During handling of the above|The above) exception.*:"
    r"|  <no Python frame>|Python runtime state: \w+|\s*[\^~]+\s*|)$"
)  # fmt: skip


def log(text: str) -> str:
    """Tracebacks and crash reports with shortened paths; what else a log may hold is left out.

    Of an error's own words only those that memory, the card or its driver would say are kept.
    """
    return "\n".join(_lines(text.splitlines()))


def _lines(lines: list[str]) -> Iterator[str]:
    skipped = 0
    source_next = False  # after a line that names a file comes that file's own line
    for line in lines:
        kept = _kept_line(line, source_next)
        file = _PYTHON_FILE.match(line)
        source_next = file is not None and file["path"].endswith(".py")
        if kept is None:
            skipped += 1
            continue
        if skipped:
            yield _gap(skipped)
            skipped = 0
        yield kept
    if skipped:
        yield _gap(skipped)


def _gap(lines: int) -> str:
    return f"<{lines} {'line' if lines == 1 else 'lines'} left out>"


def _kept_line(line: str, is_source: bool) -> str | None:
    if found := _PYTHON_FILE.match(line):
        head = found["head"] if not found["head"].strip(' File"') else '  File "'
        return f"{head}{module_of(found['path'])}{found['tail']}"
    if _HARMLESS.match(line):
        return line
    if is_source and line.startswith("    "):
        return line
    if found := _WARNING.match(line):
        return f"{module_of(found['path'])}:{found['line']}: {found['kind']}"
    if failures.of_words(line) is not None:
        return line[:300]
    if found := _ERROR.match(line):
        return f"{found['kind']}: {_left_out(found['text'])}" if found["text"] else found["kind"]
    return None


# ----------------------------------------------------------------------------- the second belt

_SECRETS = re.compile(
    r"\b(hf_|sk-|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}\b"
    r"|(?<=://)[^/\s@]+:[^/\s@]+(?=@)"
    r"|[\w.+-]+@[\w-]+\.[\w.]+"
)
_HOMES = re.compile(
    r"(/home|/Users|/root|[A-Za-z]:(\\\\|[\\/])Users)((\\\\|[\\/])[^\s/\\\"'<>|:]*)?"
)
_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|AUTH", re.IGNORECASE)


class Scrubber:
    """Knows the names of this computer, its person and this run; takes them out of any text."""

    def __init__(self, run_folder: Path) -> None:
        home, lorasmith = Path.home(), paths.home()
        names = [
            (str(run_folder), "<run>"), (str(lorasmith), "<lorasmith>"), (str(home), "<home>"),
            (str(home.resolve()), "<home>"), (run_folder.name, "<run>"),
        ]  # fmt: skip
        names += [(secret, "<secret>") for secret in _secrets()]
        self._names = sorted(
            {(form, to) for name, to in names for form in _forms(name) if len(form) > 2},
            key=lambda pair: -len(pair[0]),
        )
        self._words = [
            (_as_word(name), to)
            for name, to in (
                *((user, "<user>") for user in _users()),
                (platform.node(), "<computer>"),
            )
            if len(name) > 1
        ]

    def __call__(self, text: str) -> str:
        for name, to in self._names:
            text = text.replace(name, to)
        text = _SECRETS.sub("<secret>", text)
        text = _HOMES.sub("<home>", text)
        for word, to in self._words:
            text = word.sub(to, text)
        return text


def _forms(name: str) -> Iterator[str]:
    """As it is, and as it stands in JSON and in a URL-like path."""
    yield name
    yield json.dumps(name)[1:-1]
    yield name.replace("\\", "/")


def _as_word(name: str) -> re.Pattern[str]:
    """A name wherever it stands; a short one only where it is not part of another word."""
    plain = re.escape(name)
    if len(name) < 5:
        plain = rf"(?<![A-Za-z0-9]){plain}(?![A-Za-z0-9])"
    return re.compile(plain, re.IGNORECASE)


def _users() -> set[str]:
    found = {os.environ.get(key, "") for key in ("USER", "USERNAME", "LOGNAME")}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a name
        found.add(getpass.getuser())
    return {*found, Path.home().name}


def _secrets() -> Iterator[str]:
    """Tokens that this process can see without asking anybody to unlock something."""
    for name, value in os.environ.items():
        if _SECRET_NAMES.search(name) and len(value) >= 8:
            yield value
    yield from hub_token.in_files()
