"""Exports in plain words: their forms, their stages, and what became of their check."""

from __future__ import annotations

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

from app import i18n
from training_backend.export.needs import Stage
from training_backend.job import ExportFormat, ExportJob, GgufQuantization
from training_backend.protocol import Verdict

# In a few words for a table, as a choice, and what it is for; in the order they are offered in.
FORMATS: dict[ExportFormat, tuple[str, str, str]] = {
    "safetensors": (
        str(QT_TRANSLATE_NOOP("export_words", "Whole model")),
        str(QT_TRANSLATE_NOOP("export_words", "A whole model (safetensors)")),
        str(
            QT_TRANSLATE_NOOP(
                "export_words",
                "Model and adapter merged: for transformers, vLLM, TGI and most other programs.",
            )
        ),
    ),
    "gguf": (
        str(QT_TRANSLATE_NOOP("export_words", "GGUF")),
        str(
            QT_TRANSLATE_NOOP("export_words", "One file for Ollama, LM Studio or llama.cpp (GGUF)")
        ),
        str(
            QT_TRANSLATE_NOOP(
                "export_words", "Model and adapter merged, at home on laptops and desktops."
            )
        ),
    ),
    "bnb_4bit": (
        str(QT_TRANSLATE_NOOP("export_words", "Whole model, 4 bits")),
        str(QT_TRANSLATE_NOOP("export_words", "A whole model in 4 bits (bitsandbytes)")),
        str(
            QT_TRANSLATE_NOOP(
                "export_words", "For transformers and vLLM on a card with little memory."
            )
        ),
    ),
    "adapter": (
        str(QT_TRANSLATE_NOOP("export_words", "Adapter")),
        str(QT_TRANSLATE_NOOP("export_words", "The adapter alone")),
        str(
            QT_TRANSLATE_NOOP(
                "export_words", "Small; PEFT and vLLM load it beside the same base model."
            )
        ),
    ),
    "gguf_adapter": (
        str(QT_TRANSLATE_NOOP("export_words", "Adapter, GGUF")),
        str(QT_TRANSLATE_NOOP("export_words", "The adapter alone for llama.cpp (GGUF)")),
        str(
            QT_TRANSLATE_NOOP(
                "export_words", "Small; llama.cpp loads it beside a GGUF file of the base model."
            )
        ),
    ),
}
QUANTIZATIONS: tuple[tuple[GgufQuantization, str], ...] = (
    ("q8_0", str(QT_TRANSLATE_NOOP("export_words", "8 bits (Q8_0): answers as the whole model"))),
    ("q6_k", str(QT_TRANSLATE_NOOP("export_words", "6 bits (Q6_K): hardly worse"))),
    ("q5_k_m", str(QT_TRANSLATE_NOOP("export_words", "5 bits (Q5_K_M): in between"))),
    (
        "q4_k_m",
        str(
            QT_TRANSLATE_NOOP(
                "export_words", "4 bits (Q4_K_M): small; for models of 3 billion and more"
            )
        ),
    ),
    ("bf16", str(QT_TRANSLATE_NOOP("export_words", "16 bits (BF16): nothing is lost"))),
    ("f16", str(QT_TRANSLATE_NOOP("export_words", "16 bits (F16): for older programs"))),
)
_STAGES: dict[Stage, str] = {
    "download": str(QT_TRANSLATE_NOOP("export_words", "Download the base model")),
    "look": str(QT_TRANSLATE_NOOP("export_words", "See whether the model can be written so")),
    "merge": str(QT_TRANSLATE_NOOP("export_words", "Merge the adapter into the model")),
    "copy": str(QT_TRANSLATE_NOOP("export_words", "Copy the model")),
    "convert": str(QT_TRANSLATE_NOOP("export_words", "Write the GGUF file")),
    "pack": str(QT_TRANSLATE_NOOP("export_words", "Pack the model into 4 bits")),
    "save": str(QT_TRANSLATE_NOOP("export_words", "Save the result")),
    "prove": str(QT_TRANSLATE_NOOP("export_words", "Check that it answers alike")),
}
# A shape, a word and the colour's role: no meaning is told by colour alone.
_VERDICTS: dict[Verdict, tuple[str, str, str]] = {
    "alike": ("✓", str(QT_TRANSLATE_NOOP("export_words", "Answers alike")), "good"),
    "slightly_different": (
        "≈",
        str(QT_TRANSLATE_NOOP("export_words", "Answers slightly differently")),
        "careful",
    ),
    "different": ("✕", str(QT_TRANSLATE_NOOP("export_words", "Answers differently")), "bad"),
    "not_proven": ("?", str(QT_TRANSLATE_NOOP("export_words", "Not proven")), "careful"),
}
# By the names that `export.proof_judge` gives them.
_CHECKS = {
    "files": str(QT_TRANSLATE_NOOP("export_words", "Files")),
    "prompts": str(QT_TRANSLATE_NOOP("export_words", "Questions as read")),
    "ends": str(QT_TRANSLATE_NOOP("export_words", "End of an answer")),
    "kl": str(QT_TRANSLATE_NOOP("export_words", "Next word")),
    "adapter": str(QT_TRANSLATE_NOOP("export_words", "What was trained")),
    "perplexity": str(QT_TRANSLATE_NOOP("export_words", "Answers of the data")),
    "end_probability": str(QT_TRANSLATE_NOOP("export_words", "Ends in time")),
    "agreement": str(QT_TRANSLATE_NOOP("export_words", "Same answers")),
    "four_bit": str(QT_TRANSLATE_NOOP("export_words", "4-bit training")),
}


def _tr(text: str) -> str:
    return QCoreApplication.translate("export_words", text)


def form(job: ExportJob) -> str:
    """`GGUF, Q8_0`: what was written, in a few words."""
    name = _tr(FORMATS[job.format][0])
    return f"{name}, {job.quantization.upper()}" if job.format == "gguf" else name


def choice(of: ExportFormat) -> str:
    return _tr(FORMATS[of][1])


def about(of: ExportFormat, *, every_weight: bool) -> str:
    """What a form is for; a run that trained every weight has nothing to merge, nor an adapter."""
    if not every_weight or of == "bnb_4bit":
        return _tr(FORMATS[of][2])
    match of:
        case "safetensors":
            return _tr("The trained model: for transformers, vLLM, TGI and most other programs.")
        case "gguf":
            return _tr("The trained model, at home on laptops and desktops.")
    return _tr("This run trained every weight of the model, so it has none.")


def quantization(kind: GgufQuantization, size: int | None) -> str:
    words = _tr(dict(QUANTIZATIONS)[kind])
    if size is None:
        return words
    return _tr("{kind}, about {size}").format(kind=words, size=i18n.size(size))


def stage(name: Stage) -> str:
    return _tr(_STAGES[name])


def verdict(of: Verdict | None) -> tuple[str, str, str]:
    """A sign, words and the colour's role; None for an export that was not checked."""
    if of is None:
        return "–", _tr("Not checked"), "secondary"
    sign, words, role = _VERDICTS[of]
    return sign, _tr(words), role


def check(name: str) -> str:
    """What a check is about, in two or three words."""
    return _tr(_CHECKS.get(name, name.replace("_", " ").capitalize()))
