"""Which adapter a job means, and what it was trained on. Light: reads JSON only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.errors import UserError
from training_backend.files import write_json_atomic
from training_backend.hub import hub_cache
from training_backend.job import ExportJob, TrainingJob
from training_backend.lifecycle import checkpoints
from training_backend.runs import Run

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

# What can be merged, but not trained on.
_BEYOND_TRAINING = {
    "trainable_token_indices": "trained tokens",
    "fan_in_fan_out": "transposed layers (fan_in_fan_out)",
    "lora_bias": "LoRA biases",
}
_BEYOND_MERGING = {
    "alora_invocation_tokens": "a switch-on text (activated LoRA)",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "arrow_config": "routing (Arrow)",
    "layer_replication": "repeated layers",
}
# Other ways to begin (pissa, olora, corda, loftq ...) change the base's weights as well.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter folder; `base` is the folder or Hub id of the model it belongs to."""

    folder: Path
    base: str
    config: dict[str, Any]
    run: Run | None


def find_source(job: ExportJob) -> Adapter | Path:
    """The adapter that an export job names, or the folder of a model trained in every weight.

    Of a run what it finished with, else its newest whole checkpoint; or a plain PEFT folder.
    Raises `UserError` about field `run`, `checkpoint` or `format`.
    """
    folder = Path(os.path.expanduser(job.run))  # Path's own raises for an unknown user
    if (folder / CONFIG).is_file() and not (folder / "job.json").is_file():
        return read_adapter(folder, None)
    run = runs.find(job.run)
    trained = run.job()
    if not isinstance(trained, TrainingJob):
        raise UserError("not_a_training_run", "{run} is not a training run.", run=run.id)
    if trained.training.method == "lora":
        return read_adapter(_of_run(job, run, run.adapter, WEIGHTS), run)
    if job.format in ("adapter", "gguf_adapter"):
        raise UserError(
            "no_adapter_of_full",
            "Run {run} trained every weight of the model, so there is no adapter.",
            "Export the model instead.",
            field="format",
            run=run.id,
        )
    return _of_run(job, run, run.model, "config.json")


def _of_run(job: ExportJob, run: Run, finished: Path, proof: str) -> Path:
    """The folder of a run that is meant; `proof` is a file of the finished one."""
    if job.checkpoint is not None:
        chosen = run.checkpoints / Path(job.checkpoint).name
        if not checkpoints.is_whole(chosen):
            raise UserError(
                "checkpoint_missing",
                "Run {run} has no whole checkpoint {checkpoint}.",
                "Choose another checkpoint.",
                field="checkpoint",
                run=run.id,
                checkpoint=job.checkpoint,
            )
        return chosen
    done = (finished / proof).is_file()
    if done and not _being_extended(run):
        return finished
    newest = checkpoints.newest_verified(run.checkpoints)
    if newest is None and done:
        return finished
    if newest is None:
        raise UserError(
            "nothing_to_export",
            "Run {run} has nothing to export yet.",
            "Train until its first checkpoint is saved, or choose another run.",
            field="run",
            run=run.id,
        )
    return newest.folder


def _being_extended(run: Run) -> bool:
    """Whether what it finished with is of an earlier attempt, which a longer one followed."""
    return run.revisions() > 0 and run.state() != "completed"


def beyond_known_lora(config: dict[str, Any]) -> str:
    """What an adapter uses that we cannot train on; "" for nothing.

    LoRA, rsLoRA, DoRA and parts trained in full (`modules_to_save`) are what is known.
    """
    return beyond_merging(config) or _used(_BEYOND_TRAINING, config)


def beyond_merging(config: dict[str, Any]) -> str:
    """What an adapter uses that cannot become part of the base's weights; "" for nothing."""
    if config.get("peft_type") != "LORA":
        return f"{config.get('peft_type')} instead of LoRA"
    used = _used(_BEYOND_MERGING, config)
    if used:
        return used
    start = config.get("init_lora_weights")
    return "" if start in _PLAIN_STARTS else f"{start} as its beginning"


def _used(kinds: dict[str, str], config: dict[str, Any]) -> str:
    return next((what for key, what in kinds.items() if config.get(key)), "")


def job_of(run: Run) -> TrainingJob:
    """The job of a run, with the version of the base model that it was trained on."""
    job = run.training_job()
    if job.model.revision or not (run.adapter / WEIGHTS).is_file():
        return job
    revision = read_adapter(run.adapter, run).config.get("revision")
    return job.model_copy(update={"model": job.model.model_copy(update={"revision": revision})})


def name_base(folder: Path) -> None:
    """In a saved adapter, name a base model from the Hub by owner/name and commit.

    PEFT writes where it was loaded from, which is a folder in this computer's cache.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    known = hub_cache.origin(str(config.get("base_model_name_or_path") or ""))
    if known is not None:
        config["base_model_name_or_path"], config["revision"] = known
        write_json_atomic(folder / CONFIG, config)


def read_adapter(folder: Path, run: Run | None, field: str = "run") -> Adapter:
    """Raises `UserError` about `field` when the folder holds no complete adapter."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict) or not (folder / WEIGHTS).is_file():
        raise UserError(
            "adapter_damaged",
            "The folder {folder} does not hold a whole adapter.",
            "It needs {config} and {weights}.",
            field=field,
            folder=folder,
            config=CONFIG,
            weights=WEIGHTS,
        )
    base = config.get("base_model_name_or_path")
    if not base:
        raise UserError(
            "adapter_without_base",
            "{config} in {folder} does not name its base model.",
            "Add base_model_name_or_path to it.",
            field=field,
            folder=folder,
            config=CONFIG,
        )
    return Adapter(folder, str(base), config, run)
