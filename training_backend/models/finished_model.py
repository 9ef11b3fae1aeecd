"""The model that a run left, loaded as it was trained, ready to answer."""

from __future__ import annotations

from typing import Any

from peft import PeftModel

from training_backend.errors import UserError
from training_backend.job import ExportJob, TrainingJob
from training_backend.models import adapters, base_model
from training_backend.models.adapters import Adapter
from training_backend.models.base_files import base_folder
from training_backend.models.tokenizer import load_tokenizer
from training_backend.runs import Run
from training_backend.worker import Reporter


def load(run: Run, reporter: Reporter) -> tuple[Any, Any]:
    """The run's model and tokenizer: what it finished with, else its newest whole checkpoint.

    A base that was trained in 4 bits is loaded in 4 bits, with the adapter beside it.

    Raises `UserError` when there is none, or its base cannot be had.
    """
    source = adapters.find_source(ExportJob(run=str(run.folder), out="."))
    job = adapters.job_of(run)
    if not isinstance(source, Adapter):
        return base_model.load_model(_to_answer(job), source, reporter), load_tokenizer(source)
    beyond = adapters.beyond_known_lora(source.config)
    if beyond:
        raise UserError(
            "adapter_unfinished",
            "What run {run} has so far cannot be used: it has {what}.",
            "Let the run come to its end; its finished adapter can be used.",
            field="run",
            run=run.id,
            what=beyond,
        )
    model, _ = load_base(run, reporter)
    model = PeftModel.from_pretrained(model, str(source.folder))
    return model.eval(), load_tokenizer(source.folder)


def load_base(run: Run, reporter: Reporter) -> tuple[Any, Any]:
    """What the run was trained from, and its tokenizer. Raises `UserError` as `load`."""
    job = adapters.job_of(run)
    folder = base_folder(job.model.id, job.model.revision, reporter)
    return base_model.load_model(_to_answer(job), folder, reporter), load_tokenizer(folder)


def _to_answer(job: TrainingJob) -> TrainingJob:
    """Weights that are not to be trained are held in 16 bits, as the result is."""
    training = job.training.model_copy(update={"method": "lora"})
    return job.model_copy(update={"training": training})
