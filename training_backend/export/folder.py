"""The output folder: built beside as `<out>.partial`, made durable, then renamed.

Nothing that identifies this machine leaves it: paths are taken out of every JSON file, and
keys that could make another program run code are dropped.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from training_backend.errors import UserError
from training_backend.export import gguf_export, merge, tensor_file
from training_backend.files import fsync_folder, fsync_tree, replace, write_json_atomic
from training_backend.hub import hub_cache
from training_backend.job import ExportJob, GgufQuantization, is_on_network
from training_backend.lifecycle import checkpoints, inputs
from training_backend.lifecycle.preflight import check_empty
from training_backend.models import adapters
from training_backend.models.adapters import CONFIG, WEIGHTS, Adapter
from training_backend.models.base_files import base_folder
from training_backend.models.model_folder import read_model_config, weight_files
from training_backend.models.model_kinds import CODE_KEYS
from training_backend.paths import require_free
from training_backend.protocol import RunCompleted
from training_backend.worker import Reporter

MARKER = ".lorasmith-partial"
PROGRESS_SECONDS = 0.1

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_DROPPED_KEYS = CODE_KEYS | {"_name_or_path", "name_or_path"}


def run(job: ExportJob, reporter: Reporter) -> RunCompleted:
    """Do the export. Raises `UserError`, or `StopRequested`; then nothing is left behind."""
    out = Path(job.out).expanduser().absolute()
    check_empty(out)
    source = adapters.find_source(job)
    _check_undamaged(source if isinstance(source, Path) else source.folder)
    partial = _partial(out)
    try:
        if job.format == "adapter" and isinstance(source, Adapter):
            _write_adapter(source, partial, reporter)
        elif job.format == "gguf":
            _write_gguf(source, job.quantization, partial, out.name, reporter)
        elif isinstance(source, Path):
            _write_model(source, partial, reporter)
        else:
            _write_merged(source, partial, reporter)
        _scrub(partial)
        reporter.phase("saving", detail="the folder")
        fsync_tree(partial)
        if out.is_dir():
            out.rmdir()  # empty, as checked
        replace(partial, out)
        (out / MARKER).unlink()  # last: what is killed before leaves a folder known to be ours
        fsync_folder(out)
        fsync_folder(out.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return RunCompleted(folder=str(out))


def _check_undamaged(source: Path) -> None:
    """Raises `UserError` when a file of the result is not as the training wrote it."""
    damaged = checkpoints.damaged_since(source)
    if damaged:
        raise UserError(
            "result_damaged",
            "The file {name} in {folder} is no longer as the training wrote it.",
            "Export a checkpoint of the run instead, or put the file back from a copy.",
            field="run",
            name=damaged[0],
            folder=source,
        )


def _partial(out: Path) -> Path:
    """A fresh folder beside the output; one that an earlier export left is removed."""
    partial = out.with_name(out.name + ".partial")
    if partial.exists():
        if not (partial / MARKER).is_file():
            raise UserError(
                "partial_in_the_way",
                "The folder {partial} is in the way.",
                "Move it away, or choose another output folder.",
                field="out",
                partial=partial,
            )
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            "out_not_writable",
            "The folder {out} cannot be made: {reason}.",
            "Choose a folder that you may write to.",
            field="out",
            out=out,
            reason=error.strerror or error,
        ) from None
    (partial / MARKER).touch()
    return partial


def _write_gguf(
    source: Adapter | Path,
    quantization: GgufQuantization,
    out: Path,
    name: str,
    reporter: Reporter,
) -> None:
    """The model in a folder of its own first, which is gone at the end."""
    model = out / "model"
    model.mkdir()

    def prepared(weights: int) -> None:
        """Everything but the weights is there: what stops a GGUF file is said now."""
        beside = gguf_export.bytes_beside(weights, quantization)
        require_free(out, weights + beside + 50_000_000, "the model and the GGUF file")
        _scrub(model)
        gguf_export.check(model, out / "vocabulary.gguf", quantization, reporter)

    if isinstance(source, Path):
        _write_model(source, model, reporter, prepared)
    else:
        _write_merged(source, model, reporter, prepared)
    file = out / f"{name}-{quantization.upper()}.gguf"
    gguf_export.write(model, file, quantization, name, reporter)
    for licence in model.glob("LICENSE*"):
        _copy(licence, out)
    shutil.rmtree(model)


def _write_merged(
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
        _copy(base / file, out)
    if len(files) > 1:
        _copy(base / "model.safetensors.index.json", out)
    tokenizer = adapter.folder if (adapter.folder / "tokenizer.json").is_file() else base
    for file in _TOKENIZER_FILES:
        _copy(tokenizer / file, out)
    if not (out / "tokenizer.model").exists():
        _copy(base / "tokenizer.model", out)  # transformers saves none; the GGUF converter asks
    for licence in base.glob("LICENSE*"):
        _copy(licence, out)
    prepared(size)
    reporter.phase("merging", fraction=0.0)
    told = time.monotonic()

    def progress(share: float) -> None:
        nonlocal told
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            reporter.phase("merging", fraction=share)

    changed = merge.merge(files, adapter, out, progress)
    reporter.phase("verifying", detail="a sample of the merged weights, in double precision")
    steps = merge.check_sample(files, adapter, out)
    reporter.log(f"{changed} weights merged; the sample is within {steps:.2f} rounding steps.")


def _write_model(
    model: Path,
    out: Path,
    reporter: Reporter,
    prepared: Callable[[int], None] = lambda _: None,
) -> None:
    """A model of which every weight was trained; one of a checkpoint has 32 bits, which become 16.

    A finished one stays in its own type. `prepared` as for `_write_merged`.
    """
    files = weight_files(model)
    config = read_model_config(model)
    own = str(config.get("dtype") or "bfloat16")
    is_checkpoint = model.name.startswith(checkpoints.PREFIX)
    dtype = "bfloat16" if is_checkpoint else own
    size = sum(path.stat().st_size for path in files)
    require_free(out, size + 50_000_000, "the model")
    for name in ("generation_config.json", "model.safetensors.index.json", *_TOKENIZER_FILES):
        _copy(model / name, out)
    write_json_atomic(out / "config.json", {**config, "dtype": dtype})
    prepared(size)
    reporter.phase("saving", fraction=0.0, detail="the model")
    for number, path in enumerate(files, start=1):
        tensor_file.convert(path, out / path.name, tensor_file.DTYPES[dtype])
        reporter.phase("saving", fraction=number / len(files), detail="the model")


def _write_adapter(adapter: Adapter, out: Path, reporter: Reporter) -> None:
    size = (adapter.folder / WEIGHTS).stat().st_size
    require_free(out, size + 50_000_000, "the adapter")
    reporter.phase("saving", detail="the adapter")
    for name in (WEIGHTS, CONFIG, *_TOKENIZER_FILES):
        _copy(adapter.folder / name, out)


def _copy(source: Path, folder: Path) -> None:
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


def _scrub(out: Path) -> None:
    for path in out.glob("*.json"):
        if path.name != "tokenizer.json":  # the vocabulary: large, and no place for paths
            document = json.loads(path.read_text(encoding="utf-8"))
            write_json_atomic(path, _without_paths(document))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_paths(v) for k, v in value.items() if k not in _DROPPED_KEYS}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if isinstance(value, str) and _is_path(value):
        return PureWindowsPath(value).name
    return value


def _is_path(text: str) -> bool:
    """Whether a text is an absolute path, of this system or of Windows.

    Tokens may begin with a slash too: "/" and "/think" are none unless there is such a folder.
    """
    if len(text) > 1_000 or "\n" in text:
        return False
    if PureWindowsPath(text).is_absolute():
        return True
    path = PurePosixPath(text)
    return path.is_absolute() and (len(path.parts) > 2 or bool(path.name and os.path.exists(text)))
