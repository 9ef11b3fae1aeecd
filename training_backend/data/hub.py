"""Rows of datasets on the Hugging Face Hub, streamed, and of folders that `datasets` saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training_backend.data.parquet import plain
from training_backend.data.table import FIELD, Details, Notices, Progress, Row, Table
from training_backend.errors import UserError
from training_backend.hub import hub_token

_ID = re.compile(
    r"(?:https://huggingface\.co/datasets/|hf://datasets/)?"
    r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/?",
    re.ASCII,
)
_BATCH_ROWS = 256
_TIMEOUT = 15.0  # seconds for the Hub to answer


def hub_id(path: str) -> str | None:
    """The owner/name of a dataset on the Hub that `path` may mean, or None."""
    match = _ID.fullmatch(path)
    return match[1] if match and ".." not in path and "--" not in path else None


def open_hub(id: str, subset: str | None, split: str) -> Table:
    """A dataset on the Hub. Raises `UserError`, also when it cannot be reached."""
    with _explained(id):
        from huggingface_hub import HfApi

        token = hub_token.read()
        # Answers within seconds, where `datasets` tries many times over.
        HfApi(token=token or False).dataset_info(id, timeout=_TIMEOUT)
    return stream(id, id, subset, split, token)


def stream(
    source: str, name: str, subset: str | None, split: str, token: str | None = None
) -> Table:
    """Whatever `datasets.load_dataset` takes, streamed; nothing is kept on the disk.

    Raises `UserError` for a subset or split that is not there, with those that are.
    """
    notes = Notices()
    with _explained(name):
        import datasets

        subsets = tuple(datasets.get_dataset_config_names(source, token=token))
        chosen = subset or ("default" if "default" in subsets else subsets[0])
        _check_choice(name, "subset", chosen, subsets)
        splits = tuple(datasets.get_dataset_split_names(source, chosen, token=token))
        if split == "train" and splits and split not in splits:
            split = splits[0]
            notes.add(
                "split_without_train",
                "{name} has no split train; {split} is read.",
                name=name,
                split=split,
            )
        _check_choice(name, "split", split, splits)
        opened = datasets.load_dataset(source, chosen, split=split, streaming=True, token=token)
        if opened.features:
            opened = opened.decode(False)  # pictures and sound stay the bytes that they are
        told = (opened.info.splits or {}).get(split)
    if subset is None and len(subsets) > 1:
        notes.add(
            "other_subsets",
            "{name} has {n_subsets} subsets; only {subset} is read.",
            name=name,
            n_subsets=len(subsets),
            subset=chosen,
        )

    def read(progress: Progress, start: int) -> Iterator[Row]:
        with _explained(name):
            for number, row in enumerate(opened.skip(start) if start else opened, start + 1):
                if told and told.num_examples:
                    progress.fraction = min(1.0, number / told.num_examples)
                yield plain(row)

    return Table(
        name,
        Details("hub", subset=chosen, subsets=subsets, split=split, splits=splits),
        read,
        notes,
        tuple(opened.column_names or ()),
        (told.num_examples or None) if told else None,
    )


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of the datasets library made the folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def open_saved(folder: Path, split: str) -> Table:
    """A folder made by `save_to_disk`; with several splits, one of them.

    Raises `UserError` when it is damaged or has no such split.
    """
    import datasets

    try:
        opened = datasets.load_from_disk(str(folder))
    except Exception:  # of many kinds, from a missing file to damaged Arrow data
        raise UserError(
            "saved_dataset_damaged",
            "{name} is a saved dataset that is damaged or not complete.",
            "Copy it again, or save it again with save_to_disk.",
            field=FIELD,
            name=folder.name,
        ) from None
    splits: tuple[str, ...] = ()
    if isinstance(opened, datasets.DatasetDict):
        splits = tuple(opened)
        _check_choice(folder.name, "split", split, splits)
        opened = opened[split]
    arrow = opened.with_format("arrow")  # no decoding of pictures and sound

    def read(progress: Progress, start: int) -> Iterator[Row]:
        for offset in range(start, len(arrow), _BATCH_ROWS):
            for row in arrow[offset : offset + _BATCH_ROWS].to_pylist():
                yield plain(row)
            progress.fraction = min(1.0, (offset + _BATCH_ROWS) / len(arrow))

    return Table(
        folder.name,
        Details("saved_dataset", split=split if splits else None, splits=splits),
        read,
        columns=tuple(opened.column_names),
        known_count=len(arrow),
    )


def _check_choice(name: str, what: str, chosen: str, choices: tuple[str, ...]) -> None:
    if chosen in choices:
        return
    raise UserError(
        f"{what}_missing",
        "{name} has no {what} {chosen}.",
        "Choose one of: {choices}.",
        field=f"dataset.{what}",
        name=name,
        what=what,
        chosen=chosen,
        choices=", ".join(choices[:20]) or "none",
    )


@contextmanager
def _explained(id: str) -> Iterator[None]:
    """Turns what the Hub's libraries raise into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _error(id, error) from None


def _error(id: str, error: Exception) -> UserError:
    names = {kind.__name__ for kind in type(error).__mro__}
    said = str(error)
    if "GatedRepoError" in names or "is a gated dataset" in said:
        return UserError(
            "hub_gated",
            "{id} is given only to people who agreed to its terms.",
            "Agree to them on huggingface.co/datasets/{id}, and enter a token on the Model page.",
            field=FIELD,
            id=id,
        )
    if {"RepositoryNotFoundError", "DatasetNotFoundError"} & names:
        return UserError(
            "hub_not_found",
            "There is neither a file {id} nor a public dataset of that name on the Hugging Face "
            "Hub.",
            "Check the name; for a private dataset enter a token on the Model page.",
            field=FIELD,
            id=id,
        )
    if "OfflineModeIsEnabled" in names:
        return UserError(
            "hub_offline",
            "{id} is on the Hugging Face Hub, and “work offline” is switched on.",
            "Switch it off on the Model page (or unset HF_HUB_OFFLINE), or choose a file or folder "
            "on this computer.",
            field=FIELD,
            id=id,
        )
    if {"TransportError", "ConnectionError", "TimeoutError", "HfHubHTTPError"} & names:
        return UserError(
            "hub_unreachable",
            "The Hugging Face Hub cannot be reached to read {id}.",
            "Check the network, or choose a file or folder on this computer.",
            field=FIELD,
            id=id,
        )
    return UserError(
        "hub_unreadable",
        "The dataset {id} cannot be read ({reason}).",
        "Choose another subset, or download a file of it and choose that.",
        field=FIELD,
        id=id,
        reason=(said.splitlines() or [type(error).__name__])[0][:200],
    )
