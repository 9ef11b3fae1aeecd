"""What a run says at the beginning of an attempt whose job was revised. Light."""

from __future__ import annotations

from training_backend.job import TrainingJob

_SECTIONS = ("model", "quantization", "lora", "training")


def sentence(before: TrainingJob, now: TrainingJob) -> str:
    """The settings in which the job differs; "" where there are none."""
    found = []
    for name in _SECTIONS:
        earlier, section = getattr(before, name), getattr(now, name)
        for key, info in type(section).model_fields.items():
            value, was = getattr(section, key), getattr(earlier, key)
            if value != was:
                found.append(f"{info.title} {_shown(value)} (was {_shown(was)})")
    return f"It goes on with other settings: {', '.join(found)}." if found else ""


def _shown(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
