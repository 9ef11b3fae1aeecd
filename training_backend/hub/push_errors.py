"""What the Hugging Face Hub says no to a push with, as one sentence and a remedy. Light."""

from __future__ import annotations

import json
from typing import Any

from training_backend import preferences
from training_backend.errors import UserError
from training_backend.hub import hub_errors

_MOST_REASON = 200  # characters of what the Hub itself says
_OF_ROOM = ("storage limit", "quota", "storage patterns", "upgrade your plan", "out of storage")


def require_online() -> None:
    """Raises `UserError` `hub_offline` while nothing may be sent."""
    if preferences.is_offline():
        raise _error(
            "hub_offline",
            "Nothing can be sent to the Hugging Face Hub: “work offline” is switched on.",
            "Switch it off on the Model page (or unset HF_HUB_OFFLINE).",
            field="push.repo",
        )


def no_token() -> UserError:
    return _error(
        "hub_token_missing",
        "The Hugging Face Hub takes nothing from someone it does not know: there is no token.",
        "Enter a token with the right to write (they are made on huggingface.co, under Settings, "
        "Access tokens).",
        field="push.token",
    )


def read_only_token(name: str) -> UserError:
    return _error(
        "hub_token_reads_only",
        "The token of {name} may read, but not write.",
        "Make a token with the right to write on huggingface.co, under Settings, Access tokens, "
        "and enter it here.",
        field="push.token",
        name=name,
    )


def bad_name(name: str) -> UserError:
    return _error(
        "hub_name_malformed",
        "“{name}” cannot be the name of a model on the Hub.",
        "Write owner/name in letters, digits, dots, hyphens and underscores, 96 at most.",
        field="push.repo",
        name=name,
    )


def not_yours(owner: str, mine: list[str]) -> UserError:
    return _error(
        "hub_owner_unknown",
        "The token's account does not belong to {owner}.",
        "Write under one of: {mine}.",
        field="push.repo",
        owner=owner,
        mine=", ".join(mine),
    )


def taken(repo: str, count: int) -> UserError:
    return _error(
        "hub_repo_not_empty",
        "{repo} is on the Hub already, and not empty (files: {count}).",
        "Choose another name, or say that this one is to be renewed.",
        field="push.repo",
        repo=repo,
        count=count,
    )


def is_public(repo: str) -> UserError:
    return _error(
        "hub_repo_is_public",
        "{repo} is there already, and everybody can see it.",
        "Choose another name for a private model, or push it as public.",
        field="push.visibility",
        repo=repo,
    )


def bad_card(reason: str) -> UserError:
    return _error(
        "hub_card_malformed",
        "The head of the model card, between the two lines ---, is not right: {reason}.",
        "Mend it or remove it; it is YAML, such as license: mit.",
        field="push.card",
        reason=_short(reason),
    )


def private_card(what: str) -> UserError:
    return _error(
        "hub_card_private",
        "The model card holds {what}.",
        "Take it out: what is pushed leaves this computer.",
        field="push.card",
        what=what,
    )


def file_changed(name: str) -> UserError:
    return _error(
        "push_file_changed",
        "The file {name} was changed while it was sent.",
        "Push again once nothing writes to it.",
        field="push.folder",
        name=name,
    )


def file_unreadable(name: str, error: OSError) -> UserError:
    return _error(
        "push_file_unreadable",
        "The file {name} cannot be read: {reason}.",
        "Check that it is still there and may be read, then push again.",
        field="push.folder",
        name=name,
        reason=error.strerror or error,
    )


def of_answer(answer: Any, repo: str) -> UserError:
    """The sentence for an answer of the Hub that is a refusal."""
    status = int(answer.status_code)
    if status == 429 or status >= 500:
        error = hub_errors.of_answer(answer, repo, signed_in=True)
        error.field = "push.repo"
        return error
    return of_words(status, said(answer), repo)


def of_words(status: int, words: str, repo: str) -> UserError:
    """As `of_answer`, for a status with the Hub's own words, which may be none."""
    reason = _short(words)
    if status == 402 or any(word in reason.lower() for word in _OF_ROOM):
        return _error(
            "hub_no_room",
            "The Hub has no more room for {repo}: {reason}.",
            "Remove models that are no longer needed on huggingface.co, or push it elsewhere; "
            "what has arrived so far is kept.",
            field="push.repo",
            repo=repo,
            reason=reason or "the account's storage is full",
        )
    if status == 401:
        return _error(
            "hub_unauthorized",
            "The Hugging Face Hub does not accept the token.",
            "Enter a token with the right to write (they are made on huggingface.co, under "
            "Settings, Access tokens).",
            field="push.token",
        )
    if status == 403:
        return _error(
            "hub_no_right",
            "The token may not write to {repo}{said}.",
            "Give the token the right to write there (huggingface.co, Settings, Access tokens), "
            "or choose another owner.",
            field="push.token",
            repo=repo,
            said=f" (the Hub says: {reason})" if reason else "",
        )
    if status == 404:
        return _error(
            "hub_repo_missing",
            "{repo} is not on the Hub, or the token may not see it.",
            "Check the name and the token, then push again.",
            field="push.repo",
            repo=repo,
        )
    if status in (409, 412):
        return _error(
            "hub_conflict",
            "{repo} was changed by somebody else in the meantime.",
            "Look at it on the Hub, then push again; what has arrived so far is kept.",
            field="push.repo",
            repo=repo,
        )
    return _error(
        "hub_refused",
        "The Hub refuses to take {repo} (HTTP {status}{said}).",
        "Check the name, the card and the files; what has arrived so far is kept.",
        field="push.repo",
        repo=repo,
        status=status,
        said=f": {reason}" if reason else "",
    )


def said(answer: Any) -> str:
    """What the Hub itself says to a refusal; "" for nothing."""
    words = answer.headers.get("X-Error-Message", "")
    if words:
        return str(words)
    try:
        document = json.loads(answer.content)
        errors = document.get("errors")
        return str(errors[0]["message"] if errors else document.get("error") or "")
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return ""


def _short(text: str) -> str:
    return " ".join(text.split()).rstrip(". ")[:_MOST_REASON]


def _error(code: str, message: str, remedy: str, *, field: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field=field, **params)
