"""Models on the Hugging Face Hub: looking for them, and what one of them consists of.

Light at module level. The functions ask the Hub and take as long as the line does: they are
for the helper process and the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from training_backend.errors import UserError
from training_backend.hub import hub_token
from training_backend.hub.hub_cache import find_snapshot, is_revision, parse_id
from training_backend.hub.hub_errors import (
    endpoint,
    explained,
    not_found,
    of_answer,
    require_online,
    strange_answer,
)
from training_backend.hub.hub_store import HubFile
from training_backend.models import curated
from training_backend.models.catalog_entry import CatalogEntry
from training_backend.models.model_cache import short_problem
from training_backend.models.model_kinds import kind_problem

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

TIMEOUT_SECONDS = 10.0
_LOOKED_THROUGH = 5  # times the limit: so many answers are gone through for those that fit

# What training needs of a model, all at the top of its repository. Not the same weights once
# more as pickles, GGUF, ONNX, or in the layout of the model's makers (consolidated, original/).
_WANTED = re.compile(
    r"config\.json|generation_config\.json|model\.safetensors\.index\.json|chat_template\.jinja"
    r"|chat_template\.json|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json"
    r"|added_tokens\.json|tokenizer\.model|vocab\.json|merges\.txt|vocab\.txt|README\.md"
    r"|(?:LICEN[SC]E|NOTICE|USE_POLICY)[\w.-]*"
)
_SHARD = re.compile(r"(?!consolidated|adapter_)[\w.-]+-of-[\w.-]+\.safetensors")
_WHOLE = "model.safetensors"
# Words that ask for what cannot be trained; then it is shown, with the reason.
_NAMED_KIND = re.compile(r"gguf|gptq|awq|exl\d|bnb|\b[2-8]-?bit|fp8|mlx|onnx|lora|vl\b", re.I)
_TYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "I8": 1, "U8": 1, "F8_E4M3": 1}
_EXPANDED = ("config", "downloads", "gated", "library_name", "pipeline_tag", "safetensors", "tags")


@dataclass(frozen=True)
class HubModel:
    """One version of a model: what to show of it, and the files that training needs.

    `problem` says why it cannot be trained; its files are of no use then.
    """

    entry: CatalogEntry
    commit: str
    files: tuple[HubFile, ...]
    problem: UserError | None

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Search:
    """What was found. `left_out` counts models that fit the words but cannot be trained."""

    models: list[CatalogEntry]
    left_out: int


def search(
    query: str,
    *,
    licence: str = "",
    gated: bool | None = None,
    max_parameters: int | None = None,
    limit: int = 30,
) -> Search:
    """Models that write text and have these words in their name, the most downloaded first.

    Those that cannot be trained (GGUF, GPTQ, AWQ, …) are left out, unless the words ask for
    such a kind or name one model as owner/name: then they are there, with the reason.

    Args:
        licence: such as "apache-2.0"; "" for any.
        gated: False for freely available ones only, True for the others, None for both.
        max_parameters: models whose size is not told are left out then.

    Raises:
        UserError: no connection, working offline, or the Hub refuses.
    """
    words = query.strip()
    require_online(f"“{words}”" if words else "The list of models")
    exact = parse_id(words)
    shows_all = exact is not None or bool(_NAMED_KIND.search(words))
    token = hub_token.read()
    found: list[CatalogEntry] = []
    left_out = 0
    asked = {
        "search": exact or words,
        "filter": f"license:{licence}" if licence else None,
        "pipeline_tag": None if shows_all else "text-generation",
        "gated": gated,
        "num_parameters": f"max:{max_parameters}" if max_parameters else None,
        "sort": "downloads",
        "limit": limit * _LOOKED_THROUGH,
        "expand": _EXPANDED,
    }
    answers = _ask("/api/models", token, words, asked)
    with explained(words, signed_in=bool(token)):
        models = list(_well_named(answers))
    for model in models:
        entry = _entry(model, _searched_problem(model))
        if max_parameters and (entry.parameters or max_parameters + 1) > max_parameters:
            continue
        if entry.problem and not shows_all:
            left_out += 1
            continue
        found.append(entry)
        if len(found) == limit:
            break
    found.sort(key=lambda entry: bool(entry.problem))  # stable: by downloads within
    return Search(found, left_out)


def info(id: str, revision: str | None = None) -> HubModel:
    """One model on the Hub, at a branch, tag or commit (None: the newest), in one request.

    Raises:
        UserError: not there, gated, no connection, working offline.
    """
    name = parse_id(id)
    if name is None:
        raise not_found(id)
    if revision is not None and not is_revision(revision):
        raise _no_revision(name, revision)
    require_online(name)
    token = hub_token.read()
    with explained(name, signed_in=bool(token), revision=revision):
        model = _api(token).model_info(
            name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
    siblings = {sibling.rfilename: sibling for sibling in model.siblings or ()}
    wanted = tuple(_file(name, siblings[file]) for file in _wanted(siblings))
    if not re.fullmatch(r"[0-9a-f]{40}", model.sha or ""):
        raise strange_answer(name)
    problem = kind_problem(dict(model.config or {}), siblings, name, tags=model.tags or ())
    entry = _entry(model, problem, sum(file.bytes for file in wanted), id=name)
    return HubModel(entry, str(model.sha), wanted, problem)


def fetch_config(id: str, revision: str | None = None) -> dict[str, Any]:
    """The `config.json` of a model on the Hub, a few kilobytes that are not kept.

    Raises:
        UserError: as `info`; there is none, or the model cannot be trained.
    """
    if revision is not None and not is_revision(revision):
        raise _no_revision(id, revision)
    require_online(id)
    path = f"/{id}/resolve/{quote(revision or 'main', safe='')}/config.json"
    try:
        config = _ask(path, hub_token.read(), id, {}, revision)
    except UserError as error:
        if error.code != "hub_file_not_found":
            raise
        problem = info(id, revision).problem
        raise (problem or error) from None
    if not isinstance(config, dict):
        raise strange_answer(id)
    problem = kind_problem(config, ("config.json", _WHOLE), id)
    if problem is not None:
        raise problem
    return config


def token_owner() -> str:
    """The account that the kept token belongs to; "" where there is none.

    Raises:
        UserError: `hub_unauthorized` for a token that the Hub does not know, no connection.
    """
    token = hub_token.read()
    if not token:
        return ""
    require_online("The account of a token")
    return str(_ask("/api/whoami-v2", token, "", {})["name"])


def _ask(
    path: str, token: str | None, what: str, asked: dict[str, Any], revision: str | None = None
) -> Any:
    """An answer of the Hub's API, in one try: huggingface_hub's own search would go on trying
    for 23 seconds, and waits without end for an answer that does not come."""
    from huggingface_hub import get_session

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    params = {key: value for key, value in asked.items() if value not in (None, "")}
    with explained(what, signed_in=bool(token), revision=revision):
        answer = get_session().get(
            endpoint() + path, params=params, headers=headers, timeout=TIMEOUT_SECONDS
        )
        if answer.status_code >= 400:
            raise of_answer(answer, what, signed_in=bool(token), revision=revision)
        return answer.json()


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    # False: it would take the token file of its own accord.
    return HfApi(endpoint=endpoint(), token=token or False, library_name="lorasmith")


def _well_named(answers: Any) -> Iterator[ModelInfo]:
    """Old models without an owner cannot be named in a job."""
    from huggingface_hub import ModelInfo

    for answer in answers:
        if parse_id(str(answer["id"])) == answer["id"]:
            yield ModelInfo(**{"siblings": None, **answer})  # type: ignore[no-untyped-call]


def _searched_problem(model: ModelInfo) -> UserError | None:
    """A search does not tell the files: tags and library stand in for them."""
    tags = {str(tag).lower() for tag in model.tags or ()}
    files = {"config.json"} if model.config else set()
    if "safetensors" in tags or model.safetensors:
        files.add(_WHOLE)
    if "gguf" in tags or model.library_name == "gguf":
        files.add("model.gguf")
    if not files:
        files = {"config.json", "pytorch_model.bin"}
    elif model.config is None and _WHOLE in files and model.library_name != "peft":
        return None  # what it is will be seen when it is chosen
    return kind_problem(dict(model.config or {}), files, model.id, tags=tags)


def _entry(
    model: ModelInfo, problem: UserError | None, size: int | None = None, id: str | None = None
) -> CatalogEntry:
    id = id or model.id
    tags = [str(tag) for tag in model.tags or ()]
    licence = next((tag.partition(":")[2] for tag in tags if tag.startswith("license:")), "")
    parameters = model.safetensors.total if model.safetensors else None
    return CatalogEntry(
        id=id,
        title=id,
        parameters=parameters,
        size_bytes=size if size is not None else _weight_bytes(model),
        licence=licence,
        location=find_snapshot(id),
        description="On the Hugging Face Hub.",
        family=curated.family_of(id),
        gated=bool(model.gated),
        chat_template=_has_template(model.config),
        source="hub",
        problem=short_problem(problem) if problem else "",
    )


def _weight_bytes(model: ModelInfo) -> int | None:
    """By the numbers of each type, which the Hub tells of safetensors files."""
    told = model.safetensors.parameters if model.safetensors else {}
    return sum(count * _TYPE_BYTES.get(type, 2) for type, count in told.items()) or None


def _has_template(config: dict[str, Any] | None) -> bool | None:
    told = (config or {}).get("tokenizer_config")
    if not isinstance(told, dict):
        return None
    return bool(told.get("chat_template") or (config or {}).get("chat_template_jinja"))


def _wanted(names: Any) -> list[str]:
    """The files that training needs, small ones first."""
    wanted = sorted(name for name in names if _WANTED.fullmatch(name))
    if _WHOLE in names:
        return [name for name in wanted if not name.endswith(".index.json")] + [_WHOLE]
    return wanted + sorted(name for name in names if _SHARD.fullmatch(name))


def _file(id: str, sibling: Any) -> HubFile:
    checksum = str(sibling.lfs.sha256 if sibling.lfs else sibling.blob_id or "")
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", checksum):  # it becomes a file name here
        raise strange_answer(id)
    return HubFile(sibling.rfilename, int(sibling.size or 0), checksum)


def _no_revision(id: str, revision: str) -> UserError:
    return UserError(
        "hub_revision_not_found",
        "The model {id} has no version {revision} on the Hugging Face Hub.",
        "Check the branch, tag or commit, or leave it empty for the newest.",
        field="model.revision",
        id=id,
        revision=revision,
    )
