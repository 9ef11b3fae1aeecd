"""Who pushes and where to: the Hub's answers on a token's account and on a repository. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from training_backend import __version__
from training_backend.hub import hub_errors, hub_token, push_errors
from training_backend.hub.hub_cache import parse_id
from training_backend.hub.transfer import SILENCE_SECONDS, Refused


@dataclass(frozen=True)
class Account:
    """Whose token it is, and under which owners it may write; the account itself comes first."""

    name: str
    owners: tuple[str, ...]
    may_write: bool


class Hub:
    """Asks the Hub, with the token. Of each answer only the document is given."""

    def __init__(self, repo: str) -> None:
        token = hub_token.read()
        if not token:
            raise push_errors.no_token()
        self.repo = repo
        self._token = token

    def __call__(self, method: str, address: str, **asked: Any) -> Any:
        """Args: `address` begins with a slash, or is one that the Hub has given.

        Raises:
            Refused: an answer that is none of success.
            UserError: `hub_strange_answer`.
        """
        from huggingface_hub import get_session

        push_errors.require_online()
        url = hub_errors.endpoint() + address if address.startswith("/") else address
        headers = {"User-Agent": f"lorasmith/{__version__}", **asked.pop("headers", {})}
        if _origin(url) == _origin(hub_errors.endpoint()):  # no other host gets the token
            headers["Authorization"] = f"Bearer {self._token}"
        asked.setdefault("timeout", SILENCE_SECONDS)
        answer = get_session().request(method, url, headers=headers, **asked)
        if answer.status_code >= 300:
            raise Refused(answer, push_errors.of_answer(answer, self.repo))
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            raise hub_errors.strange_answer(self.repo) from None


def account() -> Account:
    """Whose token is kept here.

    Raises:
        UserError: none (`hub_token_missing`), one that the Hub does not know, no connection.
    """
    push_errors.require_online()
    return account_of(Hub("the token's account"))


def full_name(text: str, account: Account) -> str:
    """The owner/name that was meant; a name alone is the account's own.

    Raises:
        UserError: about field `push.repo`.
    """
    name = text.strip()
    repo = parse_id(name if "/" in name else f"{account.name}/{name}")
    if repo is None:
        raise push_errors.bad_name(name)
    owner = repo.partition("/")[0]
    if owner not in account.owners:
        raise push_errors.not_yours(owner, list(account.owners))
    return repo


def account_of(hub: Hub) -> Account:
    answer = hub("GET", "/api/whoami-v2")
    with hub_errors.explained("the token's account", signed_in=True):
        name = str(answer["name"])
        orgs = [str(org["name"]) for org in answer.get("orgs") or ()]
        role = ((answer.get("auth") or {}).get("accessToken") or {}).get("role")
    return Account(name, (name, *orgs), role != "read")


def describe(hub: Hub) -> dict[str, Any] | None:
    """The repository with its files; None where there is none."""
    try:
        answer = hub("GET", f"/api/models/{hub.repo}", params={"blobs": "true"})
    except Refused as refusal:
        if refusal.status == 404:
            return None
        raise
    if not isinstance(answer, dict) or not isinstance(answer.get("private"), bool):
        raise hub_errors.strange_answer(hub.repo)
    return answer


def create(hub: Hub, private: bool) -> None:
    owner, _, name = hub.repo.partition("/")
    asked = {
        "name": name,
        "organization": owner,
        "type": "model",
        "visibility": "private" if private else "public",
    }
    try:
        hub("POST", "/api/repos/create", json=asked)
    except Refused as refusal:
        if refusal.status != 409:  # it was made by a try whose answer was lost
            raise


def files_of(known: dict[str, Any]) -> dict[str, str]:
    """The files of a repository with their checksums: SHA-256 of large ones, git's of others."""
    found = {}
    for sibling in known.get("siblings") or ():
        lfs = sibling.get("lfs")
        found[str(sibling["rfilename"])] = str(
            lfs["sha256"] if isinstance(lfs, dict) else sibling.get("blobId") or ""
        )
    return found


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
