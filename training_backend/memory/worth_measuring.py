"""Whether one real step should be tried before a run: a guess, for a hint. Light."""

from __future__ import annotations

from typing import Literal

from training_backend import catalog, vram
from training_backend.computer.devices import Device
from training_backend.errors import UserError
from training_backend.job import TrainingJob

Reason = Literal["", "tight", "long"]

LONG_SECONDS = 600
FAR_TOO_MUCH = 1.25  # of what is free: no error of the estimate is as large
_STEPS = 500  # where the epochs decide and the rows are not counted
# A frozen base costs 2 operations a parameter and token forward, 2 backward, and 2 more where
# activations are recomputed (arXiv 2001.08361, section 2.1, less the gradients of its weights).
_OPERATIONS = 6
# What is reached in training, not the peak: of a card of the middle, and of two processor cores
# (SmolLM2-135M, two rows of 512 tokens: 4 s a step).
_OPERATIONS_A_SECOND = {"cuda": 3e13, "xpu": 3e13, "mps": 3e12, "cpu": 2e11}


def reason_to_measure(job: TrainingJob, device: Device) -> Reason:
    """ "tight" where the estimate says so, "long" for a run of probably more than ten minutes.

    "" where there is no reason, the same settings were measured on this device, or where there is
    no hope: a step would only show what is known.
    """
    try:
        estimate = vram.estimate_job(job, device)
    except (UserError, vram.TraceNeeded):
        pass
    else:
        hopeless = estimate.total_bytes > FAR_TOO_MUCH * device.available_bytes
        if estimate.measured or hopeless:
            return ""
        if estimate.fit != "comfortable":
            return "tight"
    return "long" if (_guessed_seconds(job, device) or 0) > LONG_SECONDS else ""


def _guessed_seconds(job: TrainingJob, device: Device) -> float | None:
    try:
        parameters = catalog.describe_model(job.model.id).parameters
    except UserError:
        return None
    if parameters is None:
        return None
    training = job.training
    steps = training.max_steps if training.max_steps > 0 else _STEPS * training.num_train_epochs
    rows = training.per_device_train_batch_size * training.gradient_accumulation_steps
    # Rows are seldom full unless they are packed.
    tokens = rows * training.max_length * (1.0 if training.packing else 0.4)
    return steps * tokens * parameters * _OPERATIONS / _OPERATIONS_A_SECOND[device.kind]
