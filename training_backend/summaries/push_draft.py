"""What a push of an export would send, to be looked at before: its files and its card. Light."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from training_backend.hub import push_files
from training_backend.hub.push_files import PICTURE, PushFolder
from training_backend.protocol import Verdict
from training_backend.runs import Run
from training_backend.summaries import card_facts, model_card
from training_backend.summaries.model_card import ModelCard


@dataclass(frozen=True)
class PushDraft:
    """A push to be.

    Attributes:
        card: the person's own one from the folder (`is_own`), else one written now.
        verdict: of the export's proof: alike, slightly_different, different, not_proven; "" for
            an export that was not checked.
    """

    found: PushFolder
    card: ModelCard
    is_own: bool
    verdict: str


def draft(folder: Path, repo: str, run: Run | None = None) -> PushDraft:
    """Look at an export as it would be pushed.

    Args:
        repo: owner/name, as it stands in the card.
        run: where it came from; by default the one that it was exported from here, if any.

    Raises:
        UserError: it is no finished export, or one that tells of this computer.
    """
    found = push_files.look(folder)
    own = model_card.own_text(found.folder)
    if own is not None:
        card = ModelCard(own, _picture_of(found.folder) if PICTURE in own else None)
    else:
        card = model_card.write(found.folder, repo, run or card_facts.run_of(found.folder))
    proof = push_files.read_object(found.folder / "proof.json")
    verdict = str(proof.get("verdict") or "")
    known = verdict if verdict in get_args(Verdict) else ""
    return PushDraft(found, card, own is not None, known)


def name_for(folder: Path) -> str:
    """A name on the Hub for the export in this folder."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")
    return re.sub(r"-{2,}|\.{2,}", "-", name)[:60] or "model"


def edited(text: str, before: str) -> str:
    """A card that a person changed is theirs from then on: it is not written anew."""
    return text if text == before else model_card.without_marks(text)


def _picture_of(folder: Path) -> bytes | None:
    try:
        return (folder / PICTURE).read_bytes()
    except OSError:
        return None
