"""A whole model in a folder: base + adapter merged, or one that was trained in full."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export import merge
from training_backend.export.ends import name_end
from training_backend.export.partial import Partial
from training_backend.export.shards import converted
from training_backend.export.tensor_file import DTYPES, TensorFile
from training_backend.export.weights import Weights
from training_backend.files import write_json_atomic
from training_backend.hub import downloads, hub_cache
from training_backend.job import DEMO_MODEL_IDS, ExportJob, is_on_network
from training_backend.lifecycle import checkpoints, inputs
from training_backend.models.adapters import CONFIG, WEIGHTS, Adapter
from training_backend.models.base_files import base_folder
from training_backend.models.model_folder import read_model_config, weight_files
from training_backend.worker import Reporter

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


Prepared = Callable[[Weights], None]


def write_merged(
    adapter: Adapter,
    job: ExportJob,
    out: Path,
    partial: Partial,
    reporter: Reporter,
    prepared: Prepared = lambda _: None,
) -> None:
    """Base + adapter.

    Args:
        out: the partial folder, or one in it.
        prepared: called when everything but the weights is there.
    """
    base = find_base(adapter, reporter)
    files = base_weights(base)
    if adapter.run is not None and inputs.base_changed(adapter.run, base):
        reporter.warn(
            "base_changed",
            "The base model {base} changed since the run was trained on it; what comes of the "
            "merge may answer otherwise than the run did.",
            base=base,
        )
    config = base_config(base)
    dtype = None if job.dtype == "auto" else job.dtype
    beside = _beside(base, adapter.folder)
    sources = [*files, base / "config.json", adapter.folder / WEIGHTS, adapter.folder / CONFIG]
    sources += beside
    seen: merge.Seen | None = None
    if job.base != "16-bit":
        from training_backend.export.seen_base import seen_weights

        seen = seen_weights(base, files, adapter, reporter)
        sources += [adapter.run.folder / "job.json"] if adapter.run is not None else []
    with merge.Merge(files, adapter, config, dtype=dtype, seen=seen) as merged:
        weights = Weights(merged.tensors, sources, job, out, partial, reporter)
        for file in beside:
            copy_file(file, out)
        changed = {**config, **merged.config}
        write_json_atomic(out / "config.json", _of_type(changed, dtype) if dtype else changed)
        name_end(out)
        prepared(weights)
        weights.write("merging")
        reporter.phase("verifying", detail="a sample of the merged weights, in double precision")
        steps = merged.check_sample(weights.paths)
    reporter.log(
        f"{merged.changed} weights merged; the sample is within {steps:.2f} rounding steps."
    )


def write_model(
    model: Path,
    job: ExportJob,
    out: Path,
    partial: Partial,
    reporter: Reporter,
    prepared: Prepared = lambda _: None,
) -> None:
    """A model of which every weight was trained; one of a checkpoint has 32 bits, which become 16.

    A finished one stays in its own type, unless the job names another. Arguments as for
    `write_merged`.
    """
    files = weight_files(model)
    config = read_model_config(model)
    own = str(config.get("dtype") or "bfloat16")
    is_checkpoint = model.name.startswith(checkpoints.PREFIX)
    dtype = job.dtype if job.dtype != "auto" else "bfloat16" if is_checkpoint else own
    with ExitStack() as stack:
        opened = [stack.enter_context(TensorFile(path)) for path in files]
        tensors = [
            converted(file, tensor, DTYPES[dtype]) for file in opened for tensor in file.tensors
        ]
        beside = _beside(model, model)
        sources = [*files, model / "config.json", *beside]
        weights = Weights(tensors, sources, job, out, partial, reporter)
        for file in beside:
            copy_file(file, out)
        write_json_atomic(out / "config.json", _of_type(config, dtype))
        name_end(out)
        prepared(weights)
        weights.write("saving", "the model")


def _beside(base: Path, trained: Path) -> list[Path]:
    """The files that go along as they are: of the base, and the tokenizer of what was trained."""
    tokenizer = trained if (trained / "tokenizer.json").is_file() else base
    wanted = [base / "generation_config.json", *(tokenizer / name for name in TOKENIZER_FILES)]
    if not (tokenizer / "tokenizer.model").is_file():
        wanted.append(base / "tokenizer.model")  # transformers saves none; llama.cpp asks
    return [path for path in wanted if path.is_file()]


def _of_type(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A configuration that says so of the model and all its parts, by the old name as well."""

    def named(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {inner: named(part, inner) for inner, part in value.items()}
        return dtype if key in ("dtype", "torch_dtype") and value is not None else value

    return {**named(config), "dtype": dtype}


def find_base(adapter: Adapter, reporter: Reporter, *, may_fetch: bool = True) -> Path:
    """The folder of the 16-bit base model.

    Args:
        may_fetch: from the Hub, where it is not here yet.

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
    if not may_fetch and id not in DEMO_MODEL_IDS and downloads.whole_model(id, revision) is None:
        raise UserError(
            "base_not_here",
            "The base model {base} is not on this computer.",
            "Download it on the page Model.",
            field="run",
            base=id,
        )
    try:
        return base_folder(id, revision, reporter)
    except UserError as error:
        error.field = "run"
        raise


def base_config(base: Path) -> dict[str, Any]:
    """Its `config.json`. Raises `UserError` about the run when it cannot be read."""
    try:
        return read_model_config(base)
    except UserError as error:
        error.field = "run"
        raise


def base_weights(base: Path) -> list[Path]:
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
