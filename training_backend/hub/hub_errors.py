"""What the Hugging Face Hub or the line to it says no with, as one sentence and a remedy. Light."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from training_backend import preferences
from training_backend.errors import UserError

_LINE_ERRORS = {"TransportError", "ConnectionError", "TimeoutError", "SSLError"}
_CREDENTIALS = "Invalid credentials in Authorization header"


def endpoint() -> str:
    """The Hub's address, or that of the mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def licence_page(id: str) -> str:
    """Where a person reads a gated model's terms and asks for access."""
    return f"{endpoint()}/{id}"


def require_online(what: str) -> None:
    """Raises `UserError` `hub_offline` when no connection may be opened.

    Args:
        what: what would be fetched, such as owner/name.
    """
    if preferences.is_offline():
        raise _error(
            "hub_offline",
            "{what} is on the Hugging Face Hub, and “work offline” is switched on.",
            "Switch it off on the Model page (or unset HF_HUB_OFFLINE), or choose a model that "
            "is on this computer.",
            what=what,
        )


@contextmanager
def explained(id: str, *, signed_in: bool, revision: str | None = None) -> Iterator[None]:
    """Turns what huggingface_hub raises while it asks for a model into a `UserError`.

    Args:
        signed_in: whether a token went with the request.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = of_exception(error, id, signed_in=signed_in, revision=revision)
        if found is None:
            raise
        raise found from None  # what libraries raise may hold addresses with signatures


def of_exception(
    error: Exception, id: str, *, signed_in: bool, revision: str | None = None
) -> UserError | None:
    """The sentence for an exception, or None for one that the Hub and the line have no part in."""
    response = getattr(error, "response", None)
    if response is not None:
        return of_answer(response, id, signed_in=signed_in, revision=revision)
    if is_line_error(error):
        return no_connection(error)
    if "HFValidationError" in _names(error):
        return not_found(id)
    if "OfflineModeIsEnabled" in _names(error):
        return _error(
            "hub_offline",
            "{what} is on the Hugging Face Hub, and HF_HUB_OFFLINE is set.",
            "Unset it, or choose a model that is on this computer.",
            what=id,
        )
    if isinstance(error, ValueError | LookupError | TypeError):
        return strange_answer(id)
    return None


def of_answer(response: Any, id: str, *, signed_in: bool, revision: str | None = None) -> UserError:
    """The sentence for an answer of the Hub that is not what was asked for."""
    status = int(response.status_code)
    code = response.headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        return _gated(id, signed_in)
    if code == "RevisionNotFound":
        return _error(
            "hub_revision_not_found",
            "The model {id} has no version {revision} on the Hugging Face Hub.",
            "Check the branch, tag or commit, or leave it empty for the newest.",
            field="model.revision",
            id=id,
            revision=revision or "main",
        )
    if code == "EntryNotFound":
        return _error(
            "hub_file_not_found",
            "A file of the model {id} is no longer on the Hugging Face Hub.",
            "Try again; the model may just have been changed.",
            id=id,
        )
    if status in (401, 403) and signed_in and code != "RepoNotFound":
        refused = status == 401 or response.headers.get("X-Error-Message") == _CREDENTIALS
        return _error(
            "hub_unauthorized",
            "The Hugging Face Hub does not accept the token."
            if refused
            else "The token does not allow reading the model {id}.",
            "Enter a token that can read models (they are made on huggingface.co, under Settings, "
            "Access tokens), or remove it.",
            id=id,
        )
    if status in (401, 403, 404):
        return not_found(id)
    if status == 429:
        return _error(
            "hub_busy",
            "The Hugging Face Hub asks to wait: too many requests came from this network.",
            "Try again in a few minutes; signing in with a token raises the limit.",
        )
    return _error(
        "hub_unavailable",
        "The Hugging Face Hub cannot answer now (HTTP {status}).",
        "Try again later; what has arrived so far is kept.",
        status=status,
    )


def not_found(id: str) -> UserError:
    return _error(
        "hub_not_found",
        "There is no public model {id} on the Hugging Face Hub.",
        "Check the spelling; for a private model, enter a token that may read it.",
        id=id,
    )


def strange_answer(what: str) -> UserError:
    """For what does not look like the Hub: often the sign-in page of a hotel's network."""
    return _error(
        "hub_strange_answer",
        "The answer about {what} is not one of the Hugging Face Hub.",
        "Check whether this network asks you to sign in first (open any page in the browser), "
        "and HF_ENDPOINT if it is set.",
        what=what or "the request",
    )


def no_connection(error: Exception) -> UserError:
    reason = (str(error).splitlines() or [""])[0].rstrip(". ") or type(error).__name__
    return _error(
        "no_connection",
        "The Hugging Face Hub ({host}) cannot be reached: {reason}.",
        "Check the network connection and try again; what has arrived so far is kept.",
        host=endpoint(),
        reason=reason[:200],
    )


def is_line_error(error: Exception) -> bool:
    """Whether the connection failed, rather than the server, the disk or the program."""
    return bool(_LINE_ERRORS & _names(error))


def _gated(id: str, signed_in: bool) -> UserError:
    return _error(
        "hub_gated",
        "The model {id} is given only to people who agreed to its licence; the token's owner is "
        "not among them yet."
        if signed_in
        else "The model {id} is given only to people who agreed to its licence.",
        "Agree on {licence_page} (some owners take a while to answer), then try again."
        if signed_in
        else "Agree on {licence_page}, then enter a token of your account here.",
        id=id,
        licence_page=licence_page(id),
    )


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _error(
    code: str, message: str, remedy: str, *, field: str = "model.id", **params: object
) -> UserError:
    return UserError(code, message, remedy, field=field, **params)
