"""Whether a model would fit on a device, in a word for each row of a list."""

from __future__ import annotations

from typing import Literal

from training_backend import vram
from training_backend.computer.devices import Device
from training_backend.errors import UserError
from training_backend.job import ModelSection, TrainingJob
from training_backend.models.catalog_entry import CatalogEntry

Badge = Literal["comfortable", "tight", "fits_in_4bit", "does_not_fit", "unknown"]


def badge(entry: CatalogEntry, job: TrainingJob, device: Device) -> Badge:
    """How the model of `entry` would fit with the job's other settings. Takes milliseconds.

    "comfortable" and "tight" are for 16-bit training, "fits_in_4bit" when only 4-bit fits. A
    model that was never traced is judged by its number of parameters; without one it is
    "unknown", as is one that cannot be trained at all.
    """
    if entry.problem:
        return "unknown"
    in_16_bit = _fit(entry, job, device, load_in_4bit=False)
    if in_16_bit != "does_not_fit":
        return in_16_bit
    in_4_bit = _fit(entry, job, device, load_in_4bit=True)
    return "fits_in_4bit" if in_4_bit in ("comfortable", "tight") else in_4_bit


def _fit(
    entry: CatalogEntry, job: TrainingJob, device: Device, *, load_in_4bit: bool
) -> vram.Fit | Literal["unknown"]:
    quantization = job.quantization.model_copy(update={"load_in_4bit": load_in_4bit})
    # Revision and adapter belong to the model that is chosen now.
    model = ModelSection(id=entry.id)
    wanted = job.model_copy(update={"model": model, "quantization": quantization})
    try:
        return vram.estimate_job(wanted, device).fit
    except (vram.TraceNeeded, UserError):
        if entry.parameters is None:
            return "unknown"
    total = vram.estimate_parameters(entry.parameters, wanted, device)
    return vram.fit_of(total, device)
