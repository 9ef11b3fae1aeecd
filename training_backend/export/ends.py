"""Where a model's answers end: the token that its chat template closes them with is named so.

A base model's own files name the end of a text. One that was trained to chat ends its answers with
what the template writes, and programs that do not know it let it go on for ever. Light.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from training_backend.data.safe_template import render_safely
from training_backend.errors import UserError
from training_backend.files import write_json_atomic

GENERATION = "generation_config.json"
_KEPT = ("bos_token_id", "eos_token_id", "pad_token_id")
_ANSWER = "zebrareplies"  # no template writes it by itself


def name_end(model: Path) -> None:
    """Add the closing token to the ends in a model folder's generation_config.json.

    Nothing is done where it is there already, or where no token can be told.
    """
    token = _closing(model)
    if token is None:
        return
    known = _read(model / GENERATION)
    if known is None:  # then programs read these from config.json
        config = _read(model / "config.json") or {}
        known = {key: config[key] for key in _KEPT if config.get(key) is not None}
    named = known.get("eos_token_id")
    ends = named if isinstance(named, list) else [] if named is None else [named]
    if token not in ends:
        write_json_atomic(model / GENERATION, {**known, "eos_token_id": [*ends, token]})


def _closing(model: Path) -> int | None:
    """The id of the special token that the template writes right after an answer."""
    settings = _read(model / "tokenizer_config.json") or {}
    tokenizer = _read(model / "tokenizer.json") or {}
    template = _template(model, settings)
    if not template:
        return None
    chat = [{"role": "user", "content": "zebraasks"}, {"role": "assistant", "content": _ANSWER}]
    variables = {
        name: _text(settings.get(name)) for name in ("bos_token", "eos_token", "unk_token")
    }
    rendered = None
    with contextlib.suppress(UserError):  # it was tried before the training
        rendered = render_safely(template, variables, [{"messages": chat}])[0].text
    if rendered is None or _ANSWER not in rendered:
        return None
    behind = rendered.rpartition(_ANSWER)[2].lstrip()
    special = [
        (token["content"], token["id"])
        for token in tokenizer.get("added_tokens") or []
        if token.get("special") and token.get("content") and behind.startswith(token["content"])
    ]
    return int(max(special, key=lambda found: len(found[0]))[1]) if special else None


def _template(model: Path, settings: dict[str, Any]) -> str:
    file = model / "chat_template.jinja"
    with contextlib.suppress(OSError, ValueError):
        return file.read_text(encoding="utf-8")
    known = settings.get("chat_template")
    return known if isinstance(known, str) else ""


def _text(token: Any) -> str:
    """A token as the settings name it: its text, or an object that has it."""
    return str(token.get("content") or "") if isinstance(token, dict) else str(token or "")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
