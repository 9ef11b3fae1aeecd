"""A model folder whose layers have 4 bits, which transformers loads as it is, with bitsandbytes.

The same numbers as in training (NF4, double quantisation), but of the merged weights: base and
adapter are added in 16 bits first. What is quantised, and how: `four_bit_tools`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export import four_bit_tools
from training_backend.export.child import ChildDied, ChildFailed, in_child
from training_backend.export.four_bit_tools import Plan
from training_backend.files import write_json_atomic
from training_backend.models.model_folder import read_model_config
from training_backend.paths import require_free
from training_backend.worker import Reporter

SHARD_BYTES = 5_000_000_000  # of a file, if nothing is said
NAME = "four-bit"


def check(model: Path, weights: list[Path], reporter: Reporter) -> Plan:
    """Refuse what cannot be quantised or has no room, before any weight is read.

    Args:
        model: a folder with the model's `config.json`, on the drive that is to hold it all.
        weights: the files whose weights will be quantised, changed but of the same shapes.

    Raises `UserError`, `StopRequested`.
    """
    reporter.phase("quantising", detail="looking which layers can have 4 bits")
    plan: Plan = _in_child(
        four_bit_tools.plan, str(model), [str(path) for path in weights], reporter=reporter
    )
    before = sum(path.stat().st_size for path in weights)
    require_free(model, before + plan.size + 50_000_000, "the model in 16 and in 4 bits")
    return plan


def write(
    model: Path, out: Path, plan: Plan, max_shard_gb: float | None, reporter: Reporter
) -> None:
    """Write the weights of a 16-bit model folder into `out` in 4 bits, and its `config.json`.

    Raises `UserError`, `StopRequested`, `OSError`.
    """
    shard = round(max_shard_gb * 1e9) if max_shard_gb else SHARD_BYTES
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
        f"{len(plan.layers)} layers have 4 bits now: the weights take {after / 1e9:.2f} GB instead "
        f"of {before / 1e9:.2f} GB."
    )


def _in_child(work: Any, *arguments: Any, reporter: Reporter, **options: Any) -> Any:
    try:
        return in_child(work, *arguments, name=NAME, meanwhile=reporter.check_stop, **options)
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
