"""The Hugging Face cache on this computer: where it is, and which models in it are whole.

Light: huggingface_hub takes a third of a second to import. The layout is the one it documents:
`models--owner--name/` with `blobs/` (contents by checksum), `snapshots/<commit>/` (links to
them by file name) and `refs/<branch or tag>` (the commit that the name stood for).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from training_backend import preferences

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_ADDRESS = re.compile(
    r"(?:(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)", re.IGNORECASE
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HEX = re.compile(r"[0-9a-f]+")
_REVISION = re.compile(r"\w[\w./-]*", re.ASCII)


def parse_id(text: str) -> str | None:
    """The owner/name that `text` means, or None.

    Takes the address of a model's page too, as people copy it from the browser; whatever
    stands behind the name in it (a branch, a file, a question mark) is passed over.
    """
    name = text.strip()
    address = _ADDRESS.match(name)
    if address:
        parts = re.split(r"[?#]", name[address.end() :])[0].split("/")
        if parts[0] in ("datasets", "spaces", "api", "docs", "collections", "papers"):
            return None
        name = "/".join(parts[:2])
    well_formed = _ID.fullmatch(name) and ".." not in name and "--" not in name
    return name if well_formed and len(name) <= 96 else None


def is_revision(text: str) -> bool:
    """Whether `text` can be a branch, tag or commit, and cannot lead out of a folder."""
    return bool(_REVISION.fullmatch(text)) and ".." not in text and "//" not in text


def folder() -> Path:
    """Where models are downloaded to: as the person chose, else where other programs look."""
    chosen = preferences.load().models_folder
    return Path(chosen).expanduser() if chosen else shared_folder()


def folders() -> list[Path]:
    """Where downloaded models may be; the first is `folder()`."""
    return list(dict.fromkeys([folder(), shared_folder()]))


def shared_folder() -> Path:
    """huggingface_hub's own cache, by its rules."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        value = os.environ.get(variable)
        if value:
            return Path(os.path.expandvars(value)).expanduser()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = os.path.expandvars(os.environ.get("HF_HOME") or str(caches / "huggingface"))
    return Path(home).expanduser() / "hub"


def repo_folder(root: Path, id: str) -> Path:
    """The folder of the model owner/name in the cache `root`."""
    return root / ("models--" + re.sub(r"[/\\]", "--", id))


def find_snapshot(id: str, revision: str | None = None) -> Path | None:
    """The folder of a version that is here; None for `main` unless a download of it ended.

    Says nothing of whether the files in it are good: `model_folder.check_model_folder` does.
    """
    if revision is not None and not is_revision(revision):
        return None
    for root in folders():
        found = snapshot_of(repo_folder(root, id), revision)
        if found is not None:
            return found
    return None


def snapshot_of(repo: Path, revision: str | None = None) -> Path | None:
    """The folder that a branch, tag or commit (None: `main`) stands for in a repository."""
    commit = revision or "main"
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (repo / "refs" / commit).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    snapshot = repo / "snapshots" / commit
    return snapshot if _HEX.fullmatch(commit) and snapshot.is_dir() else None


def origin(snapshot: str | Path) -> tuple[str, str] | None:
    """The owner/name and commit that a folder in a cache was downloaded from, or None."""
    path = Path(snapshot)
    repo = path.parent.parent.name
    if path.parent.name != "snapshots" or not repo.startswith("models--"):
        return None
    owner, _, name = repo.removeprefix("models--").partition("--")
    return (f"{owner}/{name}", path.name) if name else None
