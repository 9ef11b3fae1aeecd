"""The model card of an export, written from its run: what the Hub shows as README.md.

Numbers, settings and names that are public anyway: no rows, no prompts, no answers, no paths, no
names of files. Light; reads a whole journal: for a thread or the helper.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from training_backend import __version__
from training_backend.files import write_text_atomic
from training_backend.hub.push_files import CARD, PICTURE, read_object
from training_backend.job import DEMO_MODEL_IDS, ExportFormat, TrainingJob
from training_backend.models import adapters, curated, vllm
from training_backend.models.export_form import form_of
from training_backend.models.licence import Licence
from training_backend.models.origin import DEMO_MODEL_HUB_ID
from training_backend.runs import Run
from training_backend.summaries import card_facts, redaction
from training_backend.summaries.card_facts import Base, Course
from training_backend.summaries.losses import perplexity, recent

# A card with this line was written by the program; one without it is a person's own, and stays.
OURS = "<!-- Written by Lorasmith, and written anew as long as nobody changes it. -->"
# The last line of ours: a hash of all before it. Where that is another, somebody changed the card.
_SEAL = re.compile(r"\n<!-- [0-9a-f]{16} -->\n")
_ASKED = "## Does it answer as the training did?"
_USED = "## How to use it"

_PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
_SCORES = {"exact_match": "Exact match", "f1": "F1", "rouge_l": "ROUGE-L"}
# Licences of our catalogue that the Hub's list of licences does not have.
_NOT_LISTED = {"qwen", "qwen-research", "mistral-research", "falcon-llm-license", "lfm1.0"}
_LICENCE_KEYS = ("license", "license_name", "license_link")
_SECTIONS = ("quantization", "lora", "training")
_ALWAYS = {"lora_alpha", "lora_dropout", "target_modules", "optim", "lr_scheduler_type", "seed"}
_OF_THE_COURSE = {"save_steps", "save_total_limit", "logging_steps", "tensorboard"}


@dataclass(frozen=True)
class ModelCard:
    """A card, and the PNG that it shows as `push_files.PICTURE`; None where it shows none."""

    text: str
    picture: bytes | None = None


def own_text(folder: Path) -> str | None:
    """The card that a person wrote, or changed, in the folder; None where it is ours, or none."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    if not text.strip() or _is_as_written(text):
        return None
    return without_marks(text)


def without_marks(text: str) -> str:
    """A card of ours as a person's own."""
    return _SEAL.sub("", text).replace(f"{OURS}\n\n", "").replace(OURS, "")


def tell_verdict(folder: Path) -> None:
    """Have the card in an export's folder say what its proof found; one that was changed stays.

    Raises `OSError`.
    """
    path = folder / CARD
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if not _is_as_written(text):
        return
    before, used, after = _SEAL.sub("", text).partition(_USED)
    about = before.partition(_ASKED)[0].rstrip()
    new = "\n\n".join(filter(None, [about, _verdict(folder), used + after]))
    write_text_atomic(path, _sealed(new))


def write(folder: Path, repo: str, run: Run | None = None, base: Base | None = None) -> ModelCard:
    """The card of an export.

    Args:
        folder: a finished export.
        repo: owner/name that it is to have on the Hub; of one that stays here, its folder's name.
        run: the training it came from; without, the card tells what the folder tells.
        base: what it was made from, where that is known.

    Raises:
        UserError: the run's job is damaged.
    """
    form = form_of(folder) or "safetensors"
    job = None if run is None else adapters.job_of(run)
    if base is None:
        base = card_facts.base_of_job(job) if job else card_facts.base_of_folder(folder)
    course = Course() if run is None else card_facts.read(run)
    picture = _picture(course)
    sections = [
        _front_matter(form, base, job),
        OURS,
        f"# {repo.rpartition('/')[2]}",
        _about(form, base, job, run),
        _verdict(folder),
        _use(folder, form, repo, base),
    ]
    if job is not None and run is not None:
        sections += [
            _training(job, course, run, folder, picture is not None),
            _evaluation(course),
            _settings(job),
            _versions(course),
        ]
    sections.append(_licence(base))
    return ModelCard(_sealed("\n\n".join(filter(None, sections)) + "\n"), picture)


def _is_as_written(text: str) -> bool:
    """Whether it is a card of ours of which nobody changed a word."""
    return OURS in text and _sealed(_SEAL.sub("", text)) == text


def _sealed(card: str) -> str:
    return f"{card}\n<!-- {hashlib.sha256(card.encode()).hexdigest()[:16]} -->\n"


# ------------------------------------------------------------------------------------ sections


def _front_matter(form: ExportFormat, base: Base, job: TrainingJob | None) -> str:
    """As https://huggingface.co/docs/hub/model-cards describes it."""
    full = job is not None and job.training.method == "full"
    document: dict[str, Any] = {}
    licence = base.licence
    if licence.id in _NOT_LISTED:
        licence = Licence("other", licence.id, licence.link)
    for key, value in zip(_LICENCE_KEYS, (licence.id, licence.name, licence.link), strict=True):
        if value and licence.id:
            document[key] = value
    if base.id:
        document["base_model"] = base.id
        relation = {"adapter": "adapter", "gguf_adapter": "adapter"}.get(form, "finetune")
        document["base_model_relation"] = relation
    document["pipeline_tag"] = "text-generation"
    if not form.startswith("gguf"):
        document["library_name"] = "peft" if form == "adapter" else "transformers"
    datasets = [] if job is None else card_facts.hub_datasets(job)
    if datasets:
        document["datasets"] = datasets
    tags = ["lorasmith", "full-fine-tuning" if full else "lora"]
    tags += ["gguf"] * form.startswith("gguf") + ["bitsandbytes"] * (form == "bnb_4bit")
    if job is not None:
        tags.append("dpo" if job.training.objective == "dpo" else "sft")
    document["tags"] = tags
    lines = [f"{key}: {json.dumps(value)}" for key, value in document.items()]  # JSON is YAML
    return "\n".join(["---", *lines, "---"])


def _about(form: ExportFormat, base: Base, job: TrainingJob | None, run: Run | None) -> str:
    what = {
        "safetensors": "A language model",
        "adapter": "A LoRA adapter",
        "gguf": "A language model as a GGUF file",
        "gguf_adapter": "A LoRA adapter as a GGUF file",
        "bnb_4bit": "A language model, quantised to 4 bits (bitsandbytes)",
    }[form]
    link = f"[{base.id}](https://huggingface.co/{base.id})" if base.id else ""
    source = link or "a model that is not on the Hub"
    if job is None:
        return f"{what}, made from {source}." if link else f"{what}."
    how = "all its weights trained" if job.training.method == "full" else "fine-tuned"
    at = f", version `{base.revision[:12]}`" if base.revision else ""
    goal = " on which of two answers is preferred" if job.training.objective == "dpo" else ""
    belongs = "for" if form in ("adapter", "gguf_adapter") else "made from"
    text = f"{what} {belongs} {source}{at}, {how}{goal} with Lorasmith {__version__}."
    if base.id == DEMO_MODEL_HUB_ID and job.model.id in DEMO_MODEL_IDS:
        text += " The weights it was trained on were expanded from a 4-bit file (Q4_1) of it."
    return text


def _verdict(folder: Path) -> str:
    """What the proof of the export found, if it was made."""
    proof = read_object(folder / "proof.json")
    message, checks = proof.get("message"), proof.get("checks")
    if not isinstance(message, str) or not message:
        return ""
    lines = [_ASKED, "", _plain(message)]
    rows = []
    for check in checks if isinstance(checks, list) else []:
        if isinstance(check, dict) and isinstance(check.get("message"), str):
            passed = {True: "yes", False: "no"}.get(check.get("passed"), "")  # type: ignore[arg-type]
            rows.append(
                f"| {_cell(check['message'])} | {_number(check.get('value'))} | "
                f"{_number(check.get('limit'))} | {passed} |"
            )
    if rows:
        lines += ["", "| Check | Measured | Limit | Passed |", "| --- | ---: | ---: | --- |", *rows]
    return "\n".join(lines)


def _use(folder: Path, form: ExportFormat, repo: str, base: Base) -> str:
    python = "```python\n{code}\n```"
    gguf = next((path.name for path in sorted(folder.glob("*.gguf"))), "model.gguf")
    match form:
        case "safetensors" | "bnb_4bit":
            code = (
                "from transformers import pipeline\n\n"
                f'chat = pipeline("text-generation", model="{repo}")\n'
                'print(chat([{"role": "user", "content": "Hello"}])[0]["generated_text"])'
            )
            text = python.format(code=code)
            if form == "bnb_4bit":
                text = f"It needs the package bitsandbytes.\n\n{text}"
        case "adapter":
            code = (
                "from peft import AutoPeftModelForCausalLM\n"
                "from transformers import AutoTokenizer\n\n"
                f'model = AutoPeftModelForCausalLM.from_pretrained("{repo}")\n'
                f'tokenizer = AutoTokenizer.from_pretrained("{repo}")'
            )
            text = python.format(code=code)
            text += _with_vllm(folder, repo, base)
        case "gguf":
            on_hub = f"llama-server -hf {repo}\nollama run hf.co/{repo}"
            text = f"```\n{on_hub if '/' in repo else f'llama-server -m {gguf}'}\n```"
        case "gguf_adapter":
            command = f"llama-server -m BASE.gguf --lora {gguf}"
            text = f"With llama.cpp, beside the base model's .gguf file:\n\n```\n{command}\n```"
    return f"{_USED}\n\n{text}"


def _with_vllm(folder: Path, repo: str, base: Base) -> str:
    config = read_object(folder / "adapter_config.json")
    beyond = vllm.beyond(config)
    if beyond:
        return f"\n\nvLLM cannot serve it beside the base model: it has {beyond}. Merge it first."
    if not base.id:
        return ""
    return (
        "\n\nWith vLLM:\n\n```\n"
        f"vllm serve {base.id} --enable-lora --max-lora-rank {vllm.max_lora_rank(config)} "
        f"--lora-modules {repo.rpartition('/')[2]}={repo}\n```"
    )


def _training(job: TrainingJob, course: Course, run: Run, folder: Path, has_picture: bool) -> str:
    lines = []
    if course.trained is not None:
        count, whole = course.trained
        lines.append(f"- {count:,} of {whole:,} parameters were trained ({count / whole:.2%}).")
    if course.training:
        step = course.training[-1][0]
        lines.append(f"- {step:,} steps; the loss was {_loss(course.training)} at the end.")
    export = card_facts.export_job(folder)
    if export is not None and export.checkpoint is not None:
        step = int(re.sub(r"\D", "", export.checkpoint) or 0)
        lines.append(f"- This is the model as it was after step {step:,}.")
    elif course.end is not None and course.end.best_step is not None:
        lines.append(f"- This is the model of step {course.end.best_step:,}, the best one.")
    if course.device:
        lines.append(f"- Trained on {_plain(course.device)}.")
    data = []
    if course.rows is not None:
        data.append(f"- {course.rows:,} rows.")
    if course.trained_token_share is not None and job.training.objective == "sft":
        data.append(f"- {course.trained_token_share:.0%} of their tokens were learned.")
    data += [f"- From the Hub: [{id}](https://huggingface.co/datasets/{id})." for id in
             card_facts.hub_datasets(job)]  # fmt: skip
    fingerprint = card_facts.data_fingerprint(run)
    if fingerprint:
        data.append(f"- SHA-256 of the rows as tokens, in their order: `{fingerprint}`.")
    if data:
        lines += ["", "### Data", "", *data]
    if has_picture:
        caption = "Light blue: the loss of each report; blue: smoothed"
        caption += "; orange: on held-out rows." if course.held_out else "."
        lines += ["", f"![Loss over the steps]({PICTURE})", "", caption]
    told = "\n".join(lines).strip()
    return f"## Training\n\n{told}" if told else ""


def _evaluation(course: Course) -> str:
    lines = []
    if course.held_out:
        end = course.end
        best = min(course.held_out, key=lambda point: point[1])
        kept = end is not None and end.best_step is not None
        step, loss = best if kept else course.held_out[-1]
        beside = "" if course.is_preference else f", perplexity {perplexity(loss):.4g}"
        lines.append(f"- Loss on held-out rows: {loss:.4f} after step {step:,}{beside}.")
    if course.scores:
        lines += [
            f"- Answers to {course.scored_rows:,} held-out rows, compared with the data's own:",
            "",
            "| Measure | Base model | This model | Give or take |",
            "| --- | ---: | ---: | ---: |",
        ]
        for score in course.scores:
            before = "" if score.before is None else f"{score.before:.1%}"
            margin = "" if score.margin is None else f"{score.margin * 100:.1f} points"
            lines.append(f"| {_SCORES[score.name]} | {before} | {score.after:.1%} | {margin} |")
    return "\n".join(["## Evaluation", "", *lines]) if lines else ""


def _settings(job: TrainingJob) -> str:
    """The basic settings, and others that are not as usual; texts only where they are ours."""
    shown = redaction.job(job)
    rows = []
    for name in _SECTIONS:
        section = getattr(job, name)
        if name == "lora" and job.training.method == "full":
            continue
        for key, info in type(section).model_fields.items():
            extra = info.json_schema_extra
            advanced = isinstance(extra, dict) and bool(extra.get("advanced"))
            value = shown[name][key]
            usual = advanced and value == info.default and key not in _ALWAYS
            if usual or key in _OF_THE_COURSE or _is_left_out(value):
                continue
            rows.append(f"| {info.title} (`{key}`) | {_cell(_said(value))} |")
    return "\n".join(["## Settings", "", "| Setting | Value |", "| --- | --- |", *rows])


def _versions(course: Course) -> str:
    found = [f"Lorasmith {__version__}"]
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name).partition('+')[0]}")
    written = time.strftime("%Y-%m-%d")
    return f"## Versions\n\n{', '.join(found)}; written on {written}."


def _licence(base: Base) -> str:
    if base.licence.id:
        name = base.licence.name if base.licence.id == "other" else base.licence.id
        note = curated.licence_note(name)
        said = f"That of the base model: {note or _plain(name or 'other')}."
    elif base.id:
        said = "That of the base model; see its page."
    else:
        return ""
    return f"## Licence\n\n{said}"


# ------------------------------------------------------------------------------------ in words


def _picture(course: Course) -> bytes | None:
    from training_backend.summaries import loss_picture

    return loss_picture.png(course.training, course.held_out)


def _loss(points: list[tuple[int, float]]) -> str:
    value = recent([loss for _, loss in points])
    return "" if value is None else f"{value:.3f}"


def _is_left_out(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return any(isinstance(part, str) and part.startswith("<") for part in parts)


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:.4g}" if is_number else ""


def _plain(text: str) -> str:
    """A text from outside in one line that Markdown takes for nothing but text."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _cell(text: str) -> str:
    return _plain(text)
