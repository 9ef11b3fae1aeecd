"""Training on from an adapter: what it is, and whether it fits the job. Light.

The base is the job's own model. The adapter gives its weights and its structure (rank, alpha,
layers, patterns); the job says the same of them, since memory estimates and exports go by it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.models import adapters
from training_backend.models.adapters import WEIGHTS, Adapter
from training_backend.models.model_folder import tensor_shapes, weight_files

PREFIX = "base_model.model."

# Of `adapter_config.json`; everything else of the structure is plain LoRA.
_STRUCTURE = (
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
)


def find(job: TrainingJob) -> Adapter | None:
    """The adapter that the job starts from: its folder, or a run's folder with one in it.

    Raises:
        UserError: about `model.adapter`: no such folder, no LoRA, or a kind that we cannot train.
    """
    if job.model.adapter is None:
        return None
    folder = Path(os.path.expanduser(job.model.adapter)).absolute()
    if not os.path.isdir(folder):
        raise _error(
            "adapter_missing", "There is no folder {folder}.", "Choose an adapter's folder.",
            folder=folder,
        )  # fmt: skip
    if not (folder / adapters.CONFIG).is_file() and (folder / "adapter").is_dir():
        folder = folder / "adapter"
    adapter = adapters.read_adapter(folder, None, field="model.adapter")
    beyond = adapters.beyond_known_lora(adapter.config)
    if adapter.config.get("modules_to_save"):
        beyond = "fully trained layers (modules_to_save)"
    if beyond:
        raise _error(
            "adapter_not_plain_lora",
            "The adapter in {folder} uses {what}, which cannot be trained on.",
            "Choose a LoRA adapter.",
            folder=folder, what=beyond,
        )  # fmt: skip
    return adapter


def structure(adapter: Adapter) -> dict[str, Any]:
    """What of its `adapter_config.json` a fresh LoRA needs to be of the same shape."""
    return {key: adapter.config[key] for key in _STRUCTURE if adapter.config.get(key) is not None}


def settings(adapter: Adapter) -> dict[str, Any]:
    """The job's fields that say the same as the adapter, for a form to take over."""
    targets = adapter.config.get("target_modules")
    blocks = adapter.config.get("layers_to_transform")
    return {
        "lora.r": adapter.config.get("r"),
        "lora.lora_alpha": adapter.config.get("lora_alpha"),
        "lora.use_rslora": bool(adapter.config.get("use_rslora")),
        "lora.use_dora": bool(adapter.config.get("use_dora")),
        "lora.target_modules": sorted(map(str, targets)) if isinstance(targets, list) else targets,
        "lora.layers_to_transform": "all"
        if blocks is None
        else sorted([blocks] if isinstance(blocks, int) else blocks),
    }


def check(job: TrainingJob, base: Path | None) -> None:
    """Whether the job's adapter fits the job and its base model.

    Args:
        base: the base model's folder, None where it is not here yet.

    Raises:
        UserError: about `model.adapter`, or the field of `lora` that contradicts it.
    """
    adapter = find(job)
    if adapter is None:
        return
    _check_settings(job, adapter)
    _check_name(job, adapter)
    if base is not None:
        _check_shapes(adapter, base)


def _check_settings(job: TrainingJob, adapter: Adapter) -> None:
    for field, theirs in settings(adapter).items():
        key = field.removeprefix("lora.")
        ours = getattr(job.lora, key)
        if key == "target_modules":
            # A word is compared with the model's layers, which the worker knows.
            if isinstance(ours, str) or not isinstance(theirs, list):
                continue
            ours = sorted(name.strip() for name in ours)
        elif isinstance(ours, tuple):
            ours = sorted(ours)
        if ours != theirs:
            raise differs(key, _shown(ours), _shown(theirs))


def differs(key: str, ours: str, theirs: str) -> UserError:
    """The error for a setting of `lora` that contradicts the adapter."""
    return UserError(
        "adapter_settings_differ",
        "{key} is {ours} here, but {theirs} in the adapter that the training starts from.",
        "Set it to {theirs}, or start without the adapter.",
        field=f"lora.{key}",
        key=key,
        ours=ours,
        theirs=theirs,
    )


def _check_name(job: TrainingJob, adapter: Adapter) -> None:
    """Two Hub ids tell that models differ where their shapes do not; folders may be renamed."""
    asked, made_for = job.model.id.strip(), adapter.base
    if not (_is_hub_id(asked) and _is_hub_id(made_for)):
        return
    if asked.rpartition("/")[2].lower() != made_for.rpartition("/")[2].lower():
        raise _error(
            "adapter_other_base",
            "The adapter in {folder} was made for {made_for}, not for {asked}.",
            "Choose {made_for} as the base model, or another adapter.",
            folder=adapter.folder, made_for=made_for, asked=asked,
        )  # fmt: skip


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "~", "/")) and "\\" not in name


def _check_shapes(adapter: Adapter, base: Path) -> None:
    try:
        halves = tensor_shapes(adapter.folder / WEIGHTS)
    except ValueError:
        raise _error(
            "adapter_damaged",
            "{weights} in {folder} is damaged.",
            "Take the adapter from its source again.",
            folder=adapter.folder, weights=WEIGHTS,
        ) from None  # fmt: skip
    known: dict[str, tuple[int, ...]] = {}
    for path in weight_files(base):
        try:
            known |= tensor_shapes(path)
        except (OSError, ValueError):
            return  # loading the model says what is wrong with it
    found = 0
    for name, shape in halves.items():
        module, _, half = name.removeprefix(PREFIX).partition(".lora_")
        if half == "magnitude_vector" and len(shape) == 1:  # DoRA's; as long as B is tall
            continue
        if half not in ("A.weight", "B.weight") or len(shape) != 2:
            raise _error(
                "adapter_not_plain_lora",
                "The adapter in {folder} uses {what}, which cannot be trained on.",
                "Choose a LoRA adapter.",
                folder=adapter.folder, what=name,
            )  # fmt: skip
        weight = known.get(f"{module}.weight")
        if weight is None or len(weight) != 2:
            continue  # files may name a layer otherwise than the loaded model
        found += 1
        # W is out x in, A is r x in, B is out x r.
        fits = shape[1] == weight[1] if half == "A.weight" else shape[0] == weight[0]
        if not fits:
            raise _made_for_another(adapter, f"{module} has another shape")
    if not found and known:
        raise _made_for_another(adapter, "none of its layers is in this model")


def _made_for_another(adapter: Adapter, reason: str) -> UserError:
    return _error(
        "adapter_other_base",
        "The adapter in {folder} was made for another base model ({made_for}): {reason}.",
        "Choose the base model that it was made for, or another adapter.",
        folder=adapter.folder, made_for=adapter.base, reason=reason,
    )  # fmt: skip


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _error(code: str, message: str, remedy: str, **params: object) -> UserError:
    return UserError(code, message, remedy, field="model.adapter", **params)
