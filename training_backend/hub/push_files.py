"""What of an export's folder goes to the Hub, and what it is. Light: reads names and heads."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.files import write_bytes_atomic
from training_backend.job import ExportFormat
from training_backend.models.adapters import WEIGHTS
from training_backend.models.export_form import form_of
from training_backend.paths import UNFINISHED

CARD = "README.md"
PICTURE = "loss.png"  # which the card shows

# A list of what goes, so that nothing goes along by chance. No pickles, no logs, nothing hidden.
_SUFFIXES = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt", ".md", ".png")
_BARE_NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "USE_POLICY", "Modelfile")
_VOCABULARY = ("tokenizer.json", "vocab.json")
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_TOKEN = re.compile(r"\b(?:hf_|sk-|gh[opsu]_|github_pat_|glpat-)[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True)
class PushFile:
    """A file that is sent, by its name in the repository."""

    name: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class PushFolder:
    """An export as it is sent: its form, its files but for the card, and what stays here."""

    folder: Path
    form: ExportFormat
    files: tuple[PushFile, ...]
    left_out: tuple[str, ...]


def look(folder: Path) -> PushFolder:
    """What would be sent of a folder.

    Raises:
        UserError: about field `push.folder`: it is no finished export (`not_an_export`), or a
            file of it tells of this computer (`file_names_path`).
    """
    folder = folder.expanduser().absolute()
    form = form_of(folder)
    if form is None or not _has_weights(folder, form) or (folder / UNFINISHED).exists():
        raise _error(
            "not_an_export",
            "{folder} is not the folder of a finished export.",
            "Choose a folder with a whole model, an adapter or a .gguf file, as an export "
            "leaves it.",
            folder=folder,
        )
    files, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name in (CARD, PICTURE):  # come from the card
            continue
        if not _goes(path):
            left_out.append(path.name)
            continue
        _check_text(path)
        files.append(PushFile(path.name, path, path.stat().st_size))
    return PushFolder(folder, form, tuple(files), tuple(left_out))


def put_card(folder: Path, card: str, picture: bytes | None) -> list[PushFile]:
    """Write a card and its picture into the folder that they tell of.

    Raises:
        UserError: about field `push.folder`: they cannot be written.
    """
    put = []
    for name, data in ((CARD, card.encode()), (PICTURE, picture)):
        if data is None:
            continue
        path = folder / name
        try:
            write_bytes_atomic(path, data)
        except OSError as error:
            raise _error(
                "card_not_written",
                "{name} cannot be written into {folder}: {reason}.",
                "Copy the folder to where you may write, and push that.",
                name=name,
                folder=folder,
                reason=error.strerror or error,
            ) from None
        put.append(PushFile(name, path, len(data)))
    return put


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _has_weights(folder: Path, form: ExportFormat) -> bool:
    wanted = {"adapter": WEIGHTS, "gguf": "*", "gguf_adapter": "*"}.get(form, "*.safetensors")
    return any(folder.glob(wanted))


def _goes(path: Path) -> bool:
    if path.name.startswith(".") or path.is_symlink() or not path.is_file():
        return False
    return path.name.endswith(_SUFFIXES) or path.name.startswith(_BARE_NAMES)


def _check_text(path: Path) -> None:
    """Refuses a file that names a folder of this person; an export has none such."""
    if path.suffix in (".safetensors", ".gguf", ".model", ".png") or path.name in _VOCABULARY:
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if names_home(text) or holds_token(text):
        raise _error(
            "file_names_path",
            "{name} in {folder} names a folder of this computer, or holds a token.",
            "Export the run and push what comes of that: an export holds no such names.",
            name=path.name,
            folder=path.parent,
        )


def front_matter(text: str) -> str | None:
    """What stands between the first two lines `---` of a card; None where it has none."""
    found = _FRONT_MATTER.match(text)
    return found[1] if found else None


def holds_token(text: str) -> bool:
    """Whether a text holds what looks like a secret of the Hub or of a like service."""
    return bool(_TOKEN.search(text))


def names_home(text: str) -> bool:
    """Whether a text, JSON or not, holds the path of this person's home folder."""
    home = str(Path.home())
    return len(home) > 2 and any(form + sep in text for form in _forms(home) for sep in "/\\")


def _forms(home: str) -> set[str]:
    return {home, home.replace("\\", "\\\\"), home.replace("\\", "/")}


def _error(code: str, message: str, remedy: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field="push.folder", **params)
