"""A model folder whose layers have 4 bits, which transformers loads as it is, with bitsandbytes.

The same kind of numbers as in training (NF4, double quantisation), but of the merged weights: base
and adapter are added in 16 bits first. What is quantised, and how: `four_bit_tools`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export import four_bit_tools
from training_backend.export.child import ChildDied, ChildFailed, in_child
from training_backend.export.four_bit_tools import Plan
from training_backend.export.model_files import write_merged, write_model
from training_backend.export.partial import Partial
from training_backend.export.shards import INDEX
from training_backend.export.tensor_file import TensorInfo
from training_backend.export.weights import BESIDE_BYTES, Weights
from training_backend.files import replace, write_json_atomic
from training_backend.job import ExportJob
from training_backend.models.adapters import Adapter
from training_backend.models.model_folder import read_model_config
from training_backend.paths import GB, require_free
from training_backend.worker import Reporter

SHARD_BYTES = 5_000_000_000  # of a file, if nothing is said
MOSTLY = 0.6  # of the 16-bit size; what stays larger is told


def write_four_bit(
    job: ExportJob, source: Adapter | Path, partial: Partial, reporter: Reporter
) -> None:
    """Write a model in 4 bits; the one in 16 bits lies in a folder inside it meanwhile.

    Raises `UserError`, `StopRequested`, `OSError`, `MemoryError`.
    """
    out = partial.folder
    model = out / "model"
    model.mkdir(exist_ok=True)
    plan: Plan | None = None

    def prepared(weights: Weights) -> None:
        """Everything but the weights is there: what stops a folder in 4 bits is said now."""
        nonlocal plan
        plan = _check(model, weights, reporter)

    if isinstance(source, Path):
        write_model(source, job, model, partial, reporter, prepared)
    else:
        write_merged(source, job, model, partial, reporter, prepared)
    assert plan is not None
    _quantise(model, out, plan, job.max_shard_gb, reporter)
    for path in model.iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", INDEX):
            replace(path, out / path.name)
    shutil.rmtree(model)


def _check(model: Path, weights: Weights, reporter: Reporter) -> Plan:
    """Refuse what cannot be quantised or has no room, before any weight is read.

    Args:
        model: a folder with the model's `config.json`, on the drive that is to hold it all.
        weights: what will be in it.
    """
    reporter.phase("quantising", detail="looking which layers can have 4 bits")
    tensors = [TensorInfo(t.name, t.dtype, t.shape, 0, t.size) for t in weights.tensors]
    plan: Plan = _in_child(four_bit_tools.plan, str(model), tensors, reporter=reporter)
    needed = weights.size - weights.kept + plan.size + BESIDE_BYTES
    require_free(model, needed, "the model in 16 and in 4 bits")
    if plan.size > MOSTLY * weights.size:
        reporter.warn(
            "four_bit_partly",
            "Only some of this model's layers can have 4 bits: it will take {size} GB instead of "
            "{before} GB.",
            size=f"{plan.size / GB:.2f}",
            before=f"{weights.size / GB:.2f}",
        )
    return plan


def _quantise(
    model: Path, out: Path, plan: Plan, max_shard_gb: float | None, reporter: Reporter
) -> None:
    """Write the weights of a 16-bit model folder into `out` in 4 bits, and its `config.json`."""
    shard = round(max_shard_gb * GB) if max_shard_gb else SHARD_BYTES
    reporter.phase("quantising", fraction=0.0)
    _in_child(
        four_bit_tools.quantise,
        str(model),
        str(out),
        plan,
        shard,
        reporter=reporter,
        tell=lambda share, _: reporter.phase("quantising", fraction=share),
    )
    config = read_model_config(model)
    write_json_atomic(out / "config.json", {**config, "quantization_config": plan.settings})
    before, after = (sum(f.stat().st_size for f in d.glob("*.safetensors")) for d in (model, out))
    reporter.log(
        f"{len(plan.layers)} layers have 4 bits now: the weights take {after / GB:.3g} GB instead "
        f"of {before / GB:.3g} GB."
    )


def _in_child(work: Any, *arguments: Any, reporter: Reporter, **options: Any) -> Any:
    meanwhile = reporter.check_stop
    try:
        return in_child(work, *arguments, name="four-bit", meanwhile=meanwhile, **options)
    except ChildDied as error:
        if error.out_of_memory:
            raise MemoryError from None
        raise UserError(
            "four_bit_died",
            "The process that writes the model in 4 bits ended unexpectedly (exit code "
            "{exit_code}).",
            "Its last words are in the log. If memory ran out, close other programs and try again.",
            exit_code=error.exit_code,
        ) from None
    except ChildFailed as error:
        raise four_bit_tools.refused(str(error)) from None
