"""Single settings in words: their titles as in the form, values as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

from app.widgets import figures, wording
from training_backend.job import TrainingJob

MOST_LINES = 12  # of a tool tip
_CHOICES = {
    "quantization.bnb_4bit_quant_type": {"nf4": "NF4", "fp4": "FP4"},
    "quantization.bnb_4bit_compute_dtype": {
        "bfloat16": str(QT_TRANSLATE_NOOP("setting", "16 bits (bfloat16)")),
        "float16": str(QT_TRANSLATE_NOOP("setting", "16 bits (float16)")),
        "float32": str(QT_TRANSLATE_NOOP("setting", "32 bits (float32)")),
    },
    "lora.init_lora_weights": {
        "default": str(QT_TRANSLATE_NOOP("setting", "As usual")),
        "gaussian": str(QT_TRANSLATE_NOOP("setting", "Gaussian")),
        "orthogonal": str(QT_TRANSLATE_NOOP("setting", "Orthogonal")),
        "olora": "OLoRA",
        "pissa": "PiSSA",
    },
    "training.method": {
        "lora": str(QT_TRANSLATE_NOOP("setting", "An adapter (LoRA)")),
        "full": str(QT_TRANSLATE_NOOP("setting", "Every weight")),
    },
    "training.objective": {
        "sft": str(QT_TRANSLATE_NOOP("setting", "To answer")),
        "dpo": str(QT_TRANSLATE_NOOP("setting", "To prefer (DPO)")),
    },
    "training.train_sampling_strategy": {
        "random": str(QT_TRANSLATE_NOOP("setting", "Random")),
        "group_by_length": str(QT_TRANSLATE_NOOP("setting", "By length")),
    },
    "training.lr_scheduler_type": {
        "linear": str(QT_TRANSLATE_NOOP("setting", "Straight to 0")),
        "cosine": str(QT_TRANSLATE_NOOP("setting", "Cosine to 0")),
        "cosine_with_min_lr": str(QT_TRANSLATE_NOOP("setting", "Cosine to a tenth")),
        "constant": str(QT_TRANSLATE_NOOP("setting", "Constant")),
        "constant_with_warmup": str(QT_TRANSLATE_NOOP("setting", "Constant, with warm-up")),
        "polynomial": str(QT_TRANSLATE_NOOP("setting", "Polynomial")),
        "inverse_sqrt": str(QT_TRANSLATE_NOOP("setting", "Inverse square root")),
    },
    "training.optim": {
        "auto": str(QT_TRANSLATE_NOOP("setting", "Automatic")),
        "adamw_torch": "AdamW",
        "adamw_torch_fused": str(QT_TRANSLATE_NOOP("setting", "AdamW, fused")),
        "adamw_8bit": str(QT_TRANSLATE_NOOP("setting", "AdamW, 8-bit")),
        "paged_adamw_8bit": str(QT_TRANSLATE_NOOP("setting", "AdamW, paged, 8-bit")),
        "paged_adamw_32bit": str(QT_TRANSLATE_NOOP("setting", "AdamW, paged, 32-bit")),
        "lion_8bit": str(QT_TRANSLATE_NOOP("setting", "Lion, 8-bit")),
        "ademamix_8bit": str(QT_TRANSLATE_NOOP("setting", "AdEMAMix, 8-bit")),
        "adafactor": "Adafactor",
        "sgd": "SGD",
    },
}


@cache
def _titles() -> dict[str, str]:
    return {
        f"{section}.{key}": field.title or key
        for section, info in TrainingJob.model_fields.items()
        for key, field in getattr(info.annotation, "model_fields", {}).items()
    }


def title(field: str) -> str:
    """The name of a field, `section.key`, as its form has it."""
    if field == "name":
        return _tr("Name of the run")
    return QCoreApplication.translate("job", _titles().get(field, field))


def choice(field: str, value: str) -> str:
    """One of a field's choices in words; as it is where it has none."""
    return _tr(_CHOICES.get(field, {}).get(value, value))


def value(shown: object, field: str = "") -> str:
    """A setting's value as the form would show it."""
    match shown:
        case str() if shown in _CHOICES.get(field, {}):
            return choice(field, shown)
        case None | "" | [] | ():
            return "–"
        case bool():
            return _tr("on") if shown else _tr("off")
        case -1:
            return _tr("by epochs")
        case int():
            return figures.count(shown)
        case float():
            return f"{shown:g}"
        case {"path": str(path)}:  # a source of data
            return wording.data_name(path)
        case {"code": str(code)}:  # a fix of data
            return code.replace("_", " ")
        case dict():
            known = {key: inner for key, inner in shown.items() if inner not in (None, {}, [])}
            return ", ".join(f"{key}: {value(inner)}" for key, inner in known.items())
        case list() | tuple():
            return ", ".join(map(value, shown))
    return str(shown)


def changes(steps: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """One line each, as `Rank: 16 → 32`, for fields with their values before and after."""
    lines = [
        _tr("{setting}: {before} → {after}").format(
            setting=title(field), before=_short(before, field), after=_short(after, field)
        )
        for field, (before, after) in steps.items()
    ]
    if len(lines) > MOST_LINES:
        more = _tr("and {count} more").format(count=len(lines) - MOST_LINES + 1)
        lines = [*lines[: MOST_LINES - 1], more]
    return lines


def _short(shown: object, field: str) -> str:
    text = " ".join(value(shown, field).split())
    return text if len(text) <= 40 else text[:39] + "…"


def _tr(text: str) -> str:
    return QCoreApplication.translate("setting", text)
