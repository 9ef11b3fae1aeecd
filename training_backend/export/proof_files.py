"""What kind of export a folder holds. Light."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from training_backend.errors import UserError
from training_backend.export import gguf_file
from training_backend.job import ExportFormat, GgufQuantization
from training_backend.models.adapters import CONFIG
from training_backend.models.export_form import form_of

# `enum llama_ftype` in llama.h.
_FILE_TYPES: dict[int, GgufQuantization] = {
    1: "f16", 7: "q8_0", 15: "q4_k_m", 17: "q5_k_m", 18: "q6_k", 32: "bf16",
}  # fmt: skip


def kind(folder: Path) -> tuple[ExportFormat, GgufQuantization]:
    """The format of an export, and the quantisation of a GGUF file, by its files.

    Raises `UserError` about `folder` for what is none.
    """
    if not folder.is_dir():
        raise UserError(
            "export_missing",
            "There is no folder {folder}.",
            "Choose the folder of an export.",
            field="folder",
            folder=folder,
        )
    form = form_of(folder)
    if form == "gguf":
        return form, _quantization(folder)
    if form is not None:
        return form, "f16" if form == "gguf_adapter" else "q8_0"
    raise UserError(
        "export_of_no_kind",
        "{folder} holds no export: no .gguf file, no config.json, no {config}.",
        "Choose the folder of an export.",
        field="folder",
        folder=folder,
        config=CONFIG,
    )


def only_gguf(folder: Path) -> Path:
    """The model of a GGUF export. Raises `UserError` unless there is exactly one."""
    files = sorted(folder.glob("*.gguf"))
    if len(files) != 1:
        raise UserError(
            "gguf_not_one",
            "There are {count} .gguf files in {folder}; an export has one.",
            "Leave only the one to be checked there.",
            count=len(files),
            folder=folder.name,
        )
    return files[0]


def _quantization(folder: Path) -> GgufQuantization:
    """By what the file says of itself; of a damaged one by its name."""
    path = sorted(folder.glob("*.gguf"))[0]
    try:
        known = gguf_file.read(path).metadata
    except (UserError, OSError):
        known = {}
    ending = path.stem.rpartition("-")[2].lower()
    named = [kind for kind in get_args(GgufQuantization) if kind == ending]
    return _FILE_TYPES.get(known.get("general.file_type", -1), [*named, "q8_0"][0])
