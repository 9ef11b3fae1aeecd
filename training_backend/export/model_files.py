"""A whole model in a folder: base + adapter merged, or one that was trained in full."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export import merge, tensor_file
from training_backend.files import write_json_atomic
from training_backend.hub import hub_cache
from training_backend.job import is_on_network
from training_backend.lifecycle import checkpoints, inputs
from training_backend.models.adapters import CONFIG, Adapter
from training_backend.models.base_files import base_folder
from training_backend.models.model_folder import read_model_config, weight_files
from training_backend.paths import require_free
from training_backend.worker import Reporter

PROGRESS_SECONDS = 0.1

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def write_merged(
    adapter: Adapter,
    out: Path,
    reporter: Reporter,
    prepared: Callable[[int], None] = lambda _: None,
) -> None:
    """Base + adapter; `prepared` is called with the weights' bytes before they are written."""
    base = _base_folder(adapter, reporter)
    files = _base_weights(base)
    if adapter.run is not None and inputs.base_changed(adapter.run, base):
        reporter.warn(
            "base_changed",
            "The base model {base} changed since the run was trained on it; what comes of the "
            "merge may answer otherwise than the run did.",
            base=base,
        )
    size = sum(path.stat().st_size for path in files)
    require_free(out, size + 50_000_000, "the merged model")
    for file in ("config.json", "generation_config.json"):
        copy_file(base / file, out)
    tokenizer = adapter.folder if (adapter.folder / "tokenizer.json").is_file() else base
    for file in TOKENIZER_FILES:
        copy_file(tokenizer / file, out)
    if not (out / "tokenizer.model").exists():
        copy_file(base / "tokenizer.model", out)  # transformers saves none; the GGUF converter asks
    for licence in base.glob("LICENSE*"):
        copy_file(licence, out)
    told = time.monotonic()

    def progress(share: float) -> None:
        nonlocal told
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            reporter.phase("merging", fraction=share)

    config = _base_config(base)
    with merge.Merge(files, adapter, config) as merged:
        write_json_atomic(out / "config.json", {**config, **merged.config})
        prepared(sum(tensor.size for tensor in merged.tensors))
        reporter.phase("merging", fraction=0.0)
        merge.write(merged, out, progress)
        reporter.phase("verifying", detail="a sample of the merged weights, in double precision")
        steps = merged.check_sample(weight_files(out))
    reporter.log(
        f"{merged.changed} weights merged; the sample is within {steps:.2f} rounding steps."
    )


def write_model(
    model: Path,
    out: Path,
    reporter: Reporter,
    prepared: Callable[[int], None] = lambda _: None,
) -> None:
    """A model of which every weight was trained; one of a checkpoint has 32 bits, which become 16.

    A finished one stays in its own type. `prepared` as for `write_merged`.
    """
    files = weight_files(model)
    config = read_model_config(model)
    own = str(config.get("dtype") or "bfloat16")
    is_checkpoint = model.name.startswith(checkpoints.PREFIX)
    dtype = "bfloat16" if is_checkpoint else own
    size = sum(path.stat().st_size for path in files)
    require_free(out, size + 50_000_000, "the model")
    for name in ("generation_config.json", "model.safetensors.index.json", *TOKENIZER_FILES):
        copy_file(model / name, out)
    write_json_atomic(out / "config.json", {**config, "dtype": dtype})
    prepared(size)
    reporter.phase("saving", fraction=0.0, detail="the model")
    for number, path in enumerate(files, start=1):
        tensor_file.convert(path, out / path.name, tensor_file.DTYPES[dtype])
        reporter.phase("saving", fraction=number / len(files), detail="the model")


def _base_folder(adapter: Adapter, reporter: Reporter) -> Path:
    """The folder of the 16-bit base model, fetched from the Hub where it is not here yet.

    Raises `UserError` when it cannot be had.
    """
    if adapter.run is None and is_on_network(adapter.base):
        # Merely looking there tells that computer who is logged in here (Windows).
        raise UserError(
            "base_on_network",
            "The adapter names a base model on another computer: {base}.",
            "Copy the model here, and correct base_model_name_or_path in the adapter's {config}.",
            field="run",
            base=adapter.base,
            config=CONFIG,
        )
    folder = Path(adapter.base).expanduser()
    if (folder / "config.json").is_file():
        return folder
    known = hub_cache.origin(folder)  # where the cache had it
    if known is None and folder.is_absolute():
        raise UserError(
            "base_missing",
            "The base model {base} is no longer there.",
            "Put it back, or correct base_model_name_or_path in the adapter's {config}.",
            field="run",
            base=adapter.base,
            config=CONFIG,
        )
    id, revision = known or (adapter.base, adapter.config.get("revision"))
    try:
        return base_folder(id, revision, reporter)
    except UserError as error:
        error.field = "run"
        raise


def _base_config(base: Path) -> dict[str, Any]:
    try:
        return read_model_config(base)
    except UserError as error:
        error.field = "run"
        raise


def _base_weights(base: Path) -> list[Path]:
    """The files that transformers would load. Raises `UserError` when one is missing."""
    files = weight_files(base) or [base / "model.safetensors"]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise UserError(
            "base_incomplete",
            "The base model {base} is not whole: {name} is missing.",
            "Put it back, or download the model again.",
            field="run",
            base=base,
            name=missing[0],
        )
    return files


def copy_file(source: Path, folder: Path) -> None:
    """Copies what is there; refuses a link by which any file of this computer would go along."""
    if not source.is_file():
        return
    if not _is_of_its_folder(source):
        raise UserError(
            "file_leads_elsewhere",
            "{name} in {folder} is a link that leads out of the model's folder.",
            "Put the file itself there, if it belongs to the model, or remove the link.",
            field="run",
            name=source.name,
            folder=source.parent,
        )
    shutil.copyfile(source, folder / source.name)


def _is_of_its_folder(path: Path) -> bool:
    """Whether a file lies where it seems to, or in the Hub's cache among its model's contents."""
    real, folder = path.resolve(), path.parent.resolve()
    if real.is_relative_to(folder):
        return True
    return folder.parent.name == "snapshots" and real.is_relative_to(folder.parents[1] / "blobs")
