"""Sends an export to the Hugging Face Hub: private unless asked otherwise, and able to go on.

The order: whose token it is, the repository (made where it is not there), the large files into the
Hub's store (`large_files.py`), then one commit with everything, so that a push that is cut off
leaves nothing half. Asking to stop is a pause: what has arrived stays there, and the next push of
the same files sends the rest.

huggingface_hub's session carries it. Its own upload tells nothing between files, cannot be stopped,
and retries for half a minute without a word; the requests here are the ones that it makes.
Light at module level; takes as long as the line does: for the helper and the command line.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_backend.computer.stay_awake import StayAwake
from training_backend.hub import hub_errors, large_files, push_errors, push_files, push_repo
from training_backend.hub.push_files import PushFile
from training_backend.hub.push_repo import Hub
from training_backend.hub.transfer import (
    PAUSES,
    OnProgress,
    Refused,
    ShouldStop,
    Transfer,
)
from training_backend.models import weight_damage

COMMIT_SECONDS = 120.0  # the Hub may take its time with a commit
_SAMPLE_BYTES = 512  # by which, and by its size, the Hub decides where a file is kept
_OWN = {".gitattributes"}  # what the Hub itself puts into a new repository

_checksums: dict[tuple[str, int, int], str] = {}  # by path, size and time: for going on


@dataclass(frozen=True)
class Pushed:
    """A push that is done. `private` is what the repository is, `sent_bytes` what was sent now."""

    repo: str
    url: str
    commit: str
    private: bool
    sent_bytes: int


def push(
    folder: Path,
    repo: str,
    card: str,
    picture: bytes | None = None,
    *,
    private: bool = True,
    renew: bool = False,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    pauses: Sequence[float] = PAUSES,
) -> Pushed:
    """Send an export, its card and the card's picture, which are put into its folder.

    The computer stays awake meanwhile, where it can.

    Args:
        folder: a finished export (see `push_files.look`).
        repo: owner/name, or a name alone.
        card: the text of README.md.
        private: whether only the owner sees it; means nothing for a repository that is private.
        renew: whether a repository that has files already may be changed. Files of the same name
            are replaced, and weights that are no longer of the model are removed.

    Raises:
        UserError: with the field `push.repo`, `push.token`, `push.card`, `push.visibility` or
            `push.folder`.
        StopRequested: `should_stop` said so.
    """
    push_errors.require_online()
    found = push_files.look(folder)
    damage = weight_damage.find(found.folder)
    if damage is not None:
        damage.field = "push.folder"
        raise damage
    check_card(card)
    files = [*found.files, *push_files.put_card(found.folder, card, picture)]
    transfer = Transfer(on_progress, should_stop, push_errors.require_online, pauses)
    awake = StayAwake()
    awake.begin()
    try:
        return _Push(files, card, transfer).run(repo, private, renew)
    finally:
        awake.end()


def check_card(card: str) -> None:
    """Raises `UserError` about field `push.card` for what should not or cannot be sent."""
    if push_files.names_home(card):
        raise push_errors.private_card("the path of a folder of yours")
    if push_files.holds_token(card):
        raise push_errors.private_card("a token")
    if push_files.front_matter(card) is None:
        return
    from huggingface_hub import ModelCard

    try:
        ModelCard(card)
    except Exception as error:  # of YAML, and of values of another kind, by many names
        mark = getattr(error, "problem_mark", None)
        reason = str(error) if mark is None else f"it cannot be read in line {mark.line + 2}"
        raise push_errors.bad_card(reason) from None


class _Push:
    """One call of `push`."""

    def __init__(self, files: list[PushFile], card: str, transfer: Transfer) -> None:
        self._files = files
        self._card = card
        self._transfer = transfer
        self._checksums: dict[str, str] = {}
        self._sent = 0

    def run(self, name: str, private: bool, renew: bool) -> Pushed:
        self._transfer.report("asking")
        hub = Hub(name)
        patiently = self._transfer.patiently
        owner = patiently(lambda: push_repo.account_of(hub))
        if not owner.may_write:
            raise push_errors.read_only_token(owner.name)
        hub.repo = repo = push_repo.full_name(name, owner)
        patiently(lambda: self._validate_card(hub))
        self._hash_files()
        known = patiently(lambda: push_repo.describe(hub))
        if known is None:
            patiently(lambda: push_repo.create(hub, private))
            known = patiently(lambda: push_repo.describe(hub))
        with hub_errors.explained(repo, signed_in=True):
            if known is None:
                raise hub_errors.strange_answer(repo)
            if private and not known["private"]:
                raise push_errors.is_public(repo)
            there = push_repo.files_of(known)
            same = self._is_all_there(there)
            if there.keys() - _OWN and not renew and not same:
                raise push_errors.taken(repo, len(there.keys() - _OWN))
            commit = str(known["sha"])
        if not same:
            commit = self._send(hub, commit, there)
        self._transfer.report("done")
        url = f"{hub_errors.endpoint()}/{repo}"
        return Pushed(repo, url, commit, bool(known["private"]), self._sent)

    # --- before anything is sent --------------------------------------------------------------

    def _validate_card(self, hub: Hub) -> None:
        """The Hub's own word on the card, before gigabytes are sent. Mirrors need not have one."""
        asked = {"repoType": "model", "content": self._card}
        try:
            hub("POST", "/api/validate-yaml", json=asked)
        except Refused as refusal:
            if refusal.status in (400, 422):
                raise push_errors.bad_card(push_errors.said(refusal.answer)) from None
            if refusal.status not in (404, 405, 501):
                raise

    def _hash_files(self) -> None:
        for file in self._files:
            self._transfer.meter.file = file.name
            self._checksums[file.name] = self._sha256(file)
        self._transfer.meter.total = sum(file.bytes for file in self._files)
        self._transfer.meter.start_anew(0)

    def _sha256(self, file: PushFile) -> str:
        try:
            state = file.path.stat()
            key = (str(file.path), state.st_size, state.st_mtime_ns)
            if key not in _checksums:
                digest = hashlib.sha256()
                with file.path.open("rb") as content:
                    while chunk := content.read(4 * 1024 * 1024):
                        digest.update(chunk)
                        self._transfer.report("checking")
                _checksums[key] = digest.hexdigest()
        except OSError as error:
            raise push_errors.file_unreadable(file.name, error) from None
        return _checksums[key]

    # --- sending ------------------------------------------------------------------------------

    def _send(self, hub: Hub, parent: str, there: dict[str, str]) -> str:
        """Large files one by one, then one commit; returns its name."""
        patiently = self._transfer.patiently
        large = patiently(lambda: self._kept_as_large(hub))
        meter = self._transfer.meter
        for file in self._files:
            if file.name in large:
                meter.file = file.name
                before = meter.done
                large_files.send(file, self._checksums[file.name], hub.repo, hub, self._transfer)
                self._sent += meter.done - before
        meter.file = ""
        body = self._commit_body(parent, large, there)
        return patiently(lambda: self._commit(hub, body))

    def _kept_as_large(self, hub: Hub) -> set[str]:
        """The names of the files that the Hub keeps in its store rather than in the repository."""
        samples = {file.name: (self._sample(file), file.bytes) for file in self._files}
        asked = {
            "files": [
                {"path": name, "sample": base64.b64encode(sample).decode(), "size": size}
                for name, (sample, size) in samples.items()
            ]
        }
        answer = hub("POST", f"/api/models/{hub.repo}/preupload/main", json=asked)
        with hub_errors.explained(hub.repo, signed_in=True):
            large = {str(told["path"]) for told in answer["files"] if told["uploadMode"] == "lfs"}
        return {file.name for file in self._files if file.bytes} & large  # no empty ones

    def _sample(self, file: PushFile) -> bytes:
        try:
            with file.path.open("rb") as content:
                return content.read(_SAMPLE_BYTES)
        except OSError as error:
            raise push_errors.file_unreadable(file.name, error) from None

    def _commit_body(self, parent: str, large: set[str], there: dict[str, str]) -> bytes:
        """One JSON document a line, as the Hub's commit takes it."""
        lines: list[dict[str, Any]] = [
            {
                "key": "header",
                "value": {
                    "summary": "Upload from Lorasmith",
                    "description": "",
                    "parentCommit": parent,
                },
            }
        ]
        for file in self._files:
            if file.name in large:
                oid = self._checksums[file.name]
                value = {"path": file.name, "algo": "sha256", "oid": oid, "size": file.bytes}
                lines.append({"key": "lfsFile", "value": value})
            else:
                lines.append(_in_full(file.name, self._content(file)))
                self._transfer.meter.count(file.bytes)
                self._sent += file.bytes
        lines += [
            {"key": "deletedFile", "value": {"path": name}} for name in sorted(self._stale(there))
        ]
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def _content(self, file: PushFile) -> bytes:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise push_errors.file_unreadable(file.name, error) from None
        if hashlib.sha256(data).hexdigest() != self._checksums[file.name]:
            raise push_errors.file_changed(file.name)
        return data

    def _stale(self, there: dict[str, str]) -> set[str]:
        """Weights there that would be loaded beside, or in place of, the ones that come."""
        ours = {file.name for file in self._files}
        ends = (".safetensors", ".safetensors.index.json")
        if not any(name.endswith(ends) for name in ours):
            return set()
        return {name for name in there if name.endswith(ends) and "/" not in name} - ours

    def _commit(self, hub: Hub, body: bytes) -> str:
        try:
            answer = hub(
                "POST", f"/api/models/{hub.repo}/commit/main", content=body,
                headers={"Content-Type": "application/x-ndjson"}, timeout=COMMIT_SECONDS,
            )  # fmt: skip
            with hub_errors.explained(hub.repo, signed_in=True):
                return str(answer["commitOid"])
        except Exception:
            # The commit may have been made, and only its answer lost.
            known = push_repo.describe(hub)
            if known is not None and self._is_all_there(push_repo.files_of(known)):
                return str(known["sha"])
            raise

    def _is_all_there(self, there: dict[str, str]) -> bool:
        """Whether the repository holds exactly these contents under these names."""
        for file in self._files:
            told = there.get(file.name, "")
            own = self._checksums[file.name] if len(told) == 64 else _git_sha1(self._content(file))
            if told != own:
                return False
        return True


def _in_full(name: str, data: bytes) -> dict[str, Any]:
    content = base64.b64encode(data).decode()
    return {"key": "file", "value": {"content": content, "path": name, "encoding": "base64"}}


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
