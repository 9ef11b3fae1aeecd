"""Which settings of a job cannot go together, each with its reason. Light.

What one field may be is said at the field; what depends on the model's layers is checked where
they are known, in `targets` and `lora`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from training_backend.errors import Problem

if TYPE_CHECKING:
    from training_backend.job import TrainingJob


def conflicts(job: TrainingJob) -> list[Problem]:
    """Every combination in a job that cannot work, at the field that one would change."""
    return [Problem(field, message) for field, message in _conflicts(job)]


def _conflicts(job: TrainingJob) -> Iterator[tuple[str, str]]:
    lora, training, in_4bit = job.lora, job.training, job.quantization.load_in_4bit
    start = lora.init_lora_weights
    if in_4bit and lora.changes_base:
        yield (
            "lora.init_lora_weights",
            f"{start} changes the base model's weights, which 4 bits would round anew; choose "
            "default, or turn 4-bit loading off",
        )
    elif in_4bit and start == "orthogonal":
        yield (
            "lora.init_lora_weights",
            "orthogonal does not work in 4-bit; choose default, or turn 4-bit loading off",
        )
    if start == "orthogonal" and lora.r % 2:
        yield (
            "lora.init_lora_weights",
            "orthogonal needs an even rank; choose another rank or start",
        )
    if lora.changes_base and lora.use_dora:
        yield "lora.init_lora_weights", f"{start} and DoRA do not go together; choose one of them"
    if lora.changes_base and job.model.adapter is not None:
        yield (
            "lora.init_lora_weights",
            "an adapter to start from has its own beginning; choose default",
        )
    if lora.modules_to_save != "none" and job.model.adapter is not None:
        yield (
            "lora.modules_to_save",
            "the adapter to start from trains no parts in full; write none",
        )
    if training.method == "full":
        if in_4bit:
            yield (
                "training.method",
                "weights in 4 bits cannot be trained; turn 4-bit loading off, or choose lora",
            )
        if job.model.adapter is not None:
            yield "training.method", "an adapter to start from is trained on with lora"
    if training.objective == "dpo":
        yield from _dpo_conflicts(job)
    if training.packing and training.padding_free:
        yield "training.padding_free", "packed rows have no padding already; turn one of them off"
    if training.padding_free and training.train_sampling_strategy == "group_by_length":
        yield (
            "training.train_sampling_strategy",
            "without padding the order of lengths does not matter; choose random",
        )
    if training.packing and training.train_sampling_strategy == "group_by_length":
        yield (
            "training.train_sampling_strategy",
            "packed rows are all of one length already; choose random",
        )
    tested = job.evaluation.held_out_fraction > 0 or job.dataset.held_out_path is not None
    if job.evaluation.early_stopping_patience and not tested:
        yield (
            "evaluation.early_stopping_patience",
            "no rows are held out to test on; set a held-out share or a test file, or turn this "
            "off",
        )
    if job.evaluation.task_metric_rows and not tested:
        yield (
            "evaluation.task_metric_rows",
            "no rows are held out to be answered; set a held-out share or a test file, or turn "
            "this off",
        )


def _dpo_conflicts(job: TrainingJob) -> Iterator[tuple[str, str]]:
    lora, training = job.lora, job.training
    formats = {source.format for source in job.dataset.resolved_sources()}
    if formats - {"auto", "preference"}:
        yield (
            "training.objective",
            "dpo needs data with a chosen and a rejected answer in each row (the form preference); "
            "choose sft, or other data",
        )
    if training.method == "full":
        yield (
            "training.objective",
            "dpo compares with the model as it was, which is there only beside an adapter; choose "
            "lora or sft",
        )
    if job.model.adapter is not None:
        yield (
            "training.objective",
            "dpo compares with the model without adapters, so it cannot go on from one; merge that "
            "adapter by an export first",
        )
    if lora.changes_base:
        yield (
            "lora.init_lora_weights",
            f"dpo compares with the model as it was, which {lora.init_lora_weights} changes; "
            "choose default",
        )
    if training.packing:
        yield "training.packing", "dpo compares pairs of rows, which cannot be packed; turn it off"
    if training.padding_free:
        yield "training.padding_free", "dpo compares pairs of rows, which are padded; turn it off"
    if training.neftune_noise_alpha:
        yield "training.neftune_noise_alpha", "dpo would compare noise; set it to 0"
    if training.train_sampling_strategy == "group_by_length":
        yield "training.train_sampling_strategy", "dpo takes rows in random order only"
