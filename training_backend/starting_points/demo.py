"""The job that the first window opens with and that a terminal without a screen runs."""

from __future__ import annotations

from typing import Any

from training_backend.job import TrainingJob, parse_job

# The first is in the data's field, the second is not: the style carries over, the knowledge
# stays.
DEMO_PROMPTS = ("My chain keeps slipping. What should I do?", "What is the capital of France?")

# Measured on two cores: at this rate and size the house style shows in every answer after
# one to two minutes; at the usual 2e-4 it does not.
DEMO_JOB: dict[str, Any] = {
    "name": "Support style",
    "model": {"id": "demo"},
    "dataset": {"path": "demo"},
    "lora": {"r": 16, "lora_alpha": 32},
    "training": {
        "max_steps": 40,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "max_length": 256,
        "activation_checkpointing": False,
        "warmup_steps": 3,
        "save_steps": 20,
    },
    "evaluation": {"prompts": list(DEMO_PROMPTS), "max_new_tokens": 64},
}


def demo_job() -> TrainingJob:
    job = parse_job(DEMO_JOB, "the demo")
    assert isinstance(job, TrainingJob)
    return job
