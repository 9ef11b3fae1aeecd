"""The job: what a person asks for, as one versioned JSON document.

The same document serves the window, the command line, a saved preset and a shared recipe.
A field's title, help, bounds, unit and place (basic or advanced) are said here, once: the
settings form is built from them. Names are those of PEFT, TRL, transformers and
bitsandbytes. Secrets never appear.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator

from training_backend.errors import JobError, Problem, UserError
from training_backend.hub.hub_cache import parse_id
from training_backend.job_data import DataFormat as DataFormat
from training_backend.job_data import DatasetSection as DatasetSection
from training_backend.job_data import Fix as Fix
from training_backend.job_data import LossOn as LossOn
from training_backend.job_data import MappingSection as MappingSection
from training_backend.job_data import ReadingSection as ReadingSection
from training_backend.job_data import SourceSection as SourceSection
from training_backend.job_fields import Section, field
from training_backend.job_rules import conflicts
from training_backend.job_training import LoraSection as LoraSection
from training_backend.job_training import QuantizationSection as QuantizationSection
from training_backend.job_training import TrainingSection as TrainingSection

DEMO_MODEL_IDS = ("demo", "smollm2-demo")


class ModelSection(Section):
    id: str = field(
        ..., "Base model", "A model folder, a Hub id such as owner/name, or demo.", form=False,
        min_length=1,
    )  # fmt: skip
    revision: str | None = field(
        None, "Revision", "Branch, tag or commit on the Hub.", advanced=True, form=False
    )
    adapter: str | None = field(
        None, "Start from an adapter", "A folder with a LoRA adapter of this model to train on.",
        form=False, min_length=1,
    )  # fmt: skip

    @field_validator("id")
    @classmethod
    def _named(cls, value: str) -> str:
        """The address of a model's page on the Hub means the model."""
        return parse_id(value) or value


class EvaluationSection(Section):
    held_out_fraction: float = field(
        0.0,
        "Held-out share",
        "Share of the rows kept back for tests; 0.05 is 5 %. Not used with a test file.",
        ge=0.0,
        le=0.5,
    )
    eval_steps: int = field(
        50, "Test every", "Steps between tests on the held-out rows.", unit="steps", ge=1,
        le=1_000_000, advanced=True,
    )  # fmt: skip
    keep_best: bool = field(
        True,
        "Keep the best",
        "The result is the model of the test with the lowest held-out loss, not that of the last "
        "step. Without held-out rows it is the last.",
        advanced=True,
    )
    early_stopping_patience: int = field(
        0,
        "Stop early after",
        "Ends the run when so many tests in a row brought no lower held-out loss; 3 is a good "
        "choice.",
        unit="tests",
        special="off",
        ge=0,
        le=1000,
        advanced=True,
    )
    prompts: tuple[str, ...] = field(
        (),
        "Questions to try",
        "One a line. The model answers them before the first step and at every checkpoint.",
    )
    max_new_tokens: int = field(
        96, "Longest answer", "To those questions.", unit="tokens", ge=1, le=4096, advanced=True
    )
    task_metric_rows: int = field(
        0,
        "Compare answers of",
        "At the end so many held-out rows are answered, and the answers compared with the data's "
        "own (exact match, F1, ROUGE-L). 50 to 200 tell enough.",
        unit="rows",
        special="off",
        ge=0,
        le=10_000,
        advanced=True,
    )


class TrainingJob(Section):
    """Fine-tune one base model on one dataset."""

    kind: Literal["training"] = "training"
    version: Literal[1] = 1
    name: str = Field(default="untitled", min_length=1, max_length=120, title="Name")
    model: ModelSection
    dataset: DatasetSection
    quantization: QuantizationSection = Field(default_factory=QuantizationSection)
    lora: LoraSection = Field(default_factory=LoraSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)


ExportFormat = Literal["safetensors", "adapter", "gguf", "gguf_adapter", "bnb_4bit"]
ExportDtype = Literal["auto", "bfloat16", "float16"]
ExportBase = Literal["16-bit", "4-bit"]
GgufQuantization = Literal["f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m"]
MOST_QUESTIONS = 12  # of a person's own, in the check of an export
# Bits a weight in a GGUF file, its scales included; of the mixed kinds as large models have it.
GGUF_BITS: dict[GgufQuantization, float] = {
    "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": 6.6, "q5_k_m": 5.7, "q4_k_m": 4.9,
}  # fmt: skip


class ExportJob(Section):
    """Write what a run learned as a folder that other programs load.

    `run` is a run's folder or a plain PEFT adapter folder; `checkpoint` one of the run's
    checkpoint folder names, or None for the finished (else the newest) adapter. `quantization`
    is that of a GGUF file and means nothing for the other formats; `dtype`, `max_shard_gb` (10^9
    bytes; None: as the base model's files are) and `base` mean something where weights are merged.
    """

    kind: Literal["export"] = "export"
    version: Literal[1] = 1
    name: str = Field(default="export", min_length=1, max_length=120, title="Name")
    run: str = Field(min_length=1, title="Run")
    checkpoint: str | None = Field(default=None, title="Checkpoint")
    format: ExportFormat = Field(default="safetensors", title="Format")
    quantization: GgufQuantization = Field(default="q8_0", title="Bits of a GGUF file")
    dtype: ExportDtype = field(
        "auto",
        "Number format",
        "auto is the base model's own; float16 is for programs that know no bfloat16.",
        advanced=True,
    )
    max_shard_gb: float | None = field(
        None,
        "Largest file",
        "Left out, the files are as large as the base model's.",
        unit="GB",
        ge=0.1,
        le=1_000,
        advanced=True,
    )
    base: ExportBase = field(
        "16-bit",
        "Merge into",
        "16-bit is the base model itself; 4-bit is what the adapter saw in 4-bit training.",
        advanced=True,
    )
    verify: bool = field(
        True,
        "Check the result",
        "Asks the export the same questions as the base model with the adapter.",
    )
    prompts: tuple[str, ...] = field(
        (),
        "Your own questions",
        "Asked in the check, beside held-out rows of the data.",
        max_length=MOST_QUESTIONS,
    )
    out: str = Field(min_length=1, title="Output folder")


class VerifyJob(Section):
    """Ask an export the same questions as what it was made of, and compare.

    `folder` is the export's; `run` and `checkpoint` are as of `ExportJob`.
    """

    kind: Literal["verify"] = "verify"
    version: Literal[1] = 1
    name: str = Field(default="verify", min_length=1, max_length=120, title="Name")
    folder: str = Field(min_length=1, title="Export")
    run: str = Field(min_length=1, title="Run")
    checkpoint: str | None = Field(default=None, title="Checkpoint")
    prompts: tuple[str, ...] = Field(
        default=(), max_length=MOST_QUESTIONS, title="Your own questions"
    )


class ProbeJob(Section):
    """Try one real step of a training on its longest rows, and measure the memory it takes."""

    kind: Literal["probe"] = "probe"
    version: Literal[1] = 1
    name: str = Field(default="probe", min_length=1, max_length=120, title="Name")
    job: TrainingJob


Job = TrainingJob | ExportJob | VerifyJob | ProbeJob
_KINDS: dict[Any, type[Job]] = {
    "export": ExportJob, "verify": VerifyJob, "probe": ProbeJob,
}  # fmt: skip


def parse_job(data: Any, source: str = "job") -> Job:
    """Check a job document. Raises `JobError` with every mistake at once."""
    if not isinstance(data, Mapping):
        raise JobError([Problem("", "a job is one JSON object")], source)
    kind = data.get("kind")
    model = _KINDS.get(kind, TrainingJob) if isinstance(kind, str) else TrainingJob
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise JobError([Problem("", f"is not JSON: {error}")], source) from None
    try:
        # JSON mode: strict about types, yet a JSON list is a tuple.
        job = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise JobError(_problems(error, model), source) from None
    training = job.job if isinstance(job, ProbeJob) else job
    problems = conflicts(training) if isinstance(training, TrainingJob) else []
    if problems:
        raise JobError(problems, source)
    return job


def load_job(path: Path) -> Job:
    """Read a job file; relative paths in it are looked for beside it, then from here.

    Raises `UserError` when the file cannot be read and `JobError` for its content.
    """
    job = parse_job(read_document(path), str(path))
    return anchored(job, path.resolve().parent) if isinstance(job, TrainingJob) else job


def load_training_job(path: Path) -> TrainingJob:
    """As `load_job`, for a file that must hold a training."""
    job = load_job(path)
    if not isinstance(job, TrainingJob):
        raise UserError("not_a_training_job", "{path} is not a training job.", path=path)
    return job


def read_document(path: Path, most_bytes: int = -1) -> Any:
    """The JSON in a file, whatever it says. Raises `UserError`.

    Args:
        most_bytes: a larger file is refused.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1 if most_bytes >= 0 else -1)
        if 0 <= most_bytes < len(data):
            raise UserError(
                "job_too_large",
                "{path} is too large for a job file.",
                "Choose the file with the settings, not the data.",
                path=path,
            )
        return json.loads(data.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError("job_missing", "There is no job file {path}.", path=path) from None
    except IsADirectoryError:
        raise UserError("job_is_folder", "{path} is a folder, not a job file.", path=path) from None
    except json.JSONDecodeError as error:
        raise UserError(
            "job_not_json",
            "{path} is not valid JSON: {reason} in line {line}, column {column}.",
            path=path, reason=error.msg, line=error.lineno, column=error.colno,
        ) from None  # fmt: skip
    except UnicodeDecodeError:
        raise UserError(
            "job_not_text",
            "{path} is not text in UTF-8, so it is no job file.",
            "Choose a job file, or save this one anew as UTF-8.",
            path=path,
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # 5,000 digits, too deep
        raise UserError(
            "job_unreadable", "{path} cannot be read: {reason}.", path=path, reason=error
        ) from None


def is_on_network(path: str) -> bool:
    r"""Whether a path is of the form \\server\share.

    Windows signs in at a server whose path is merely looked at: a job file from anywhere must not
    bring that about.
    """
    return path.startswith(("\\\\", "//"))


def anchored(job: TrainingJob, folder: Path) -> TrainingJob:
    """Make paths that exist beside the job file absolute, so that the run outlives the cwd."""

    def absolute(text: str) -> str:
        if text in DEMO_MODEL_IDS:  # also where a folder of that name lies about
            return text
        if is_on_network(text):
            return text
        for base in (folder, Path.cwd()):
            # os.path answers False where Path raises: a name too long, an unknown user's home.
            candidate = os.path.join(base, os.path.expanduser(text))
            if os.path.exists(candidate):
                return str(Path(candidate))
        return text

    paths = {"id": absolute(job.model.id)}
    if job.model.adapter is not None:
        paths["adapter"] = absolute(job.model.adapter)
    model = job.model.model_copy(update=paths)
    dataset = job.dataset.with_paths(absolute)
    return job.model_copy(update={"model": model, "dataset": dataset})


def _problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    problems: dict[str, Problem] = {}  # a union reports once per member: the first one is enough
    for item in error.errors(include_url=False):
        place = item["loc"]
        name = ".".join(str(part) for part in place[:2])
        if name == "dataset":  # a mistake of the section as a whole
            name = "dataset.path"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = _unknown_key(place, model)
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] == "string_too_short" and not item["input"]:
            message = "must not be empty"
        elif item["type"] not in {"value_error", "json_invalid"}:
            message = f"{message[0].lower()}{message[1:]}, not {_shown(item['input'])}"
        inner = ""
        if place[:1] == ("dataset",):  # the one section that holds others
            inner = ", ".join(
                f"number {part + 1}" if isinstance(part, int) else part for part in place[2:]
            )
        problems.setdefault(
            f"{name}, {inner}", Problem(name, f"{inner}: {message}" if inner else message)
        )
    return list(problems.values())


def _unknown_key(place: tuple[int | str, ...], model: type[BaseModel]) -> str:
    sections = [model]
    for part in place[:-1]:
        inner = [
            found
            for section in sections
            if part in section.model_fields
            for found in _sections_in(section.model_fields[str(part)].annotation)
        ]
        sections = inner or sections  # a position in a list, or the tag of a union
    name = str(place[-1])
    keys = {key for section in sections for key in section.model_fields}
    for section in sections:
        for key, info in section.model_fields.items():
            extra = info.json_schema_extra
            if isinstance(extra, dict) and name.lower() in cast(
                "list[str]", extra.get("aliases", [])
            ):
                return f"unknown key; did you mean {key}?"
    close = difflib.get_close_matches(name, sorted(keys), n=1, cutoff=0.5)
    return f"unknown key; did you mean {close[0]}?" if close else "unknown key"


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections_in(part)]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
