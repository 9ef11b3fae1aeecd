"""A model's tokenizer, from its folder, made fit for training. Needs transformers, not torch."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.files import is_disk_full
from training_backend.models import model_folder

# The classes that `tokenizer_class` may name; not `AutoTokenizer`, which asks once more.
_TOKENIZER_CLASS = re.compile(
    r"(?!Auto)\w*(Tokenizer|TokenizerFast|TokenizersBackend|PythonBackend|MistralCommonBackend)"
)


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a model's folder, with a token for the end and one for padding.

    Raises:
        UserError: about `model.id`: there is none, it is broken, or it does not fit the weights.
    """
    from transformers import AutoTokenizer

    folder = Path(folder)
    if not model_folder.has_tokenizer(folder):
        raise UserError(
            "model_tokenizer_missing",
            "There is no tokenizer in {folder}: no tokenizer.json or tokenizer.model.",
            "Copy those of the original model into it, or download the model again.",
            field="model.id",
            folder=folder,
        )
    _check_class(folder)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # broken files end in errors of any kind
        raise cannot_load(folder, error) from error
    if tokenizer.eos_token is None:
        tokenizer.eos_token = _end(tokenizer, folder)
    _check_size(tokenizer, folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _check_class(folder: Path) -> None:
    """The kind that the files name is one of tokenizers.

    transformers takes the name of any of its classes there, and loads what that one loads, with
    what it asks about program code left open.
    """
    for name in ("tokenizer_config.json", "config.json"):
        try:
            kind = json.loads((folder / name).read_text(encoding="utf-8"))["tokenizer_class"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
        if kind is not None and not _TOKENIZER_CLASS.fullmatch(str(kind)):
            raise UserError(
                "tokenizer_of_no_kind",
                "The tokenizer in {folder} cannot be used: {file} says that it is of the kind "
                "{kind}, which is none of a tokenizer.",
                "Take the tokenizer of the original model.",
                field="model.id",
                folder=folder,
                file=name,
                kind=str(kind)[:80],
            )


def cannot_load(model: str | Path, error: Exception) -> Exception:
    """What to raise when a model's files, or its fetching, failed."""
    if is_disk_full(error):  # while it was fetched
        return error
    traceback.print_exception(error)
    told = isinstance(error, (OSError, ValueError)) and str(error).strip()
    return UserError(
        "model_unloadable",
        "The model {model} cannot be loaded: {reason}.",
        "Check the name, the files and the connection, or choose another model.",
        field="model.id",
        model=model,
        reason=(told or repr(error)).splitlines()[0].rstrip(".: "),
    )


def _end(tokenizer: Any, folder: Path) -> str:
    """The token that the model's other files name as the end of a text."""
    for name in ("generation_config.json", "config.json"):
        try:
            ids = json.loads((folder / name).read_text(encoding="utf-8"))["eos_token_id"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        token = tokenizer.convert_ids_to_tokens(ids[0] if isinstance(ids, list) and ids else ids)
        if isinstance(token, str):
            return token
    raise UserError(
        "tokenizer_without_end",
        "The tokenizer in {folder} has no token for the end of a text, so the model would never "
        "learn to stop.",
        "Name it as eos_token in tokenizer_config.json, or choose another model.",
        field="model.id",
        folder=folder,
    )


def _check_size(tokenizer: Any, folder: Path) -> None:
    """No token that training may meet is beyond the weights.

    Some models have a token or two more than weights, for pictures that they cannot see: those
    never come up in text. A padding token beyond them is given up for the end token.
    """
    rows = model_folder.embedding_rows(folder)
    if rows is None:
        return
    beyond = {token for token, id in tokenizer.get_vocab().items() if id >= rows}
    if tokenizer.pad_token in beyond:
        tokenizer.pad_token = None
    template = str(tokenizer.chat_template or "")
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    needed = {
        token
        for token in beyond
        if token not in added
        or token in (tokenizer.eos_token, tokenizer.bos_token)
        or token in template
    }
    if needed:
        raise UserError(
            "tokenizer_too_large",
            "The tokenizer in {folder} knows {count} token(s) that the weights have nothing for, "
            "such as “{token}”: the weights end at {rows}.",
            "Take tokenizer and weights from the same model.",
            field="model.id",
            folder=folder,
            count=len(needed),
            token=min(needed),
            rows=f"{rows:,}",
        )
