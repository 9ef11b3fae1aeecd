"""Runs and jobs in plain words: states, phases, what is trained on what."""

from __future__ import annotations

import math
import re
from pathlib import PurePath

from PySide6.QtCore import QT_TRANSLATE_NOOP, QCoreApplication

from training_backend.job import TrainingJob
from training_backend.protocol import Phase
from training_backend.runs import State

_STATES: dict[State, tuple[str, str]] = {
    "queued": (str(QT_TRANSLATE_NOOP("wording", "waiting")), "secondary"),
    "running": (str(QT_TRANSLATE_NOOP("wording", "running")), "accent"),
    "completed": (str(QT_TRANSLATE_NOOP("wording", "completed")), "good"),
    "stopped": (str(QT_TRANSLATE_NOOP("wording", "stopped")), "careful"),
    "failed": (str(QT_TRANSLATE_NOOP("wording", "failed")), "bad"),
    "interrupted": (str(QT_TRANSLATE_NOOP("wording", "interrupted")), "bad"),
}
_PHASES: dict[Phase, str] = {
    "no_room": str(QT_TRANSLATE_NOOP("wording", "Waiting for room on the disk")),
    "waiting": str(QT_TRANSLATE_NOOP("wording", "Waiting for the card")),
    "loading": str(QT_TRANSLATE_NOOP("wording", "Getting the model ready")),
    "quantising": str(QT_TRANSLATE_NOOP("wording", "Packing the model into 4 bits")),
    "sampling": str(QT_TRANSLATE_NOOP("wording", "Answering questions")),
    "tokenising": str(QT_TRANSLATE_NOOP("wording", "Preparing the data")),
    "measuring": str(QT_TRANSLATE_NOOP("wording", "Trying one step")),
    "training": str(QT_TRANSLATE_NOOP("wording", "Training")),
    "paused": str(QT_TRANSLATE_NOOP("wording", "Paused")),
    "saving": str(QT_TRANSLATE_NOOP("wording", "Saving the result")),
    "merging": str(QT_TRANSLATE_NOOP("wording", "Merging the adapter into the model")),
    "converting": str(QT_TRANSLATE_NOOP("wording", "Writing the GGUF file")),
    "verifying": str(QT_TRANSLATE_NOOP("wording", "Checking the result")),
    "scoring": str(QT_TRANSLATE_NOOP("wording", "Comparing answers with the data's own")),
}
LONGEST_MESSAGE = 1_500  # signs; a library may put a whole file into what it says
_DEMO = {"demo": "SmolLM2-135M-Instruct", "smollm2-demo": "SmolLM2-135M-Instruct"}


def _tr(text: str) -> str:
    return QCoreApplication.translate("wording", text)


def state_word(state: State) -> str:
    return _tr(_STATES[state][0])


def state_role(state: State) -> str:
    """The colour's role in the palette; never shown without the word."""
    return _STATES[state][1]


def phase_title(phase: Phase) -> str:
    return _tr(_PHASES[phase])


def model_name(model_id: str) -> str:
    return one_line(_DEMO.get(model_id) or PurePath(model_id).name or model_id)


def data_name(path: str) -> str:
    return one_line("support.jsonl" if path == "demo" else PurePath(path).name or path)


def describe(job: TrainingJob) -> str:
    """One line: what is trained on what, and how."""
    return _tr("{model} on {data}, {method}").format(
        model=model_name(job.model.id), data=data_names(job), method=method(job)
    )


def data_names(job: TrainingJob) -> str:
    return " + ".join(data_name(source.path) for source in job.dataset.resolved_sources())


def method(job: TrainingJob) -> str:
    if job.training.method == "full":
        return _tr("all weights")
    return f"{'QLoRA' if job.quantization.load_in_4bit else 'LoRA'} r {job.lora.r}"


def kept_checkpoints(job: TrainingJob) -> tuple[str, str]:
    """Which of a run's checkpoints stay on the disk: in a few words, and as a sentence."""
    tested = job.evaluation.held_out_fraction > 0 or job.dataset.held_out_path is not None
    count = str(job.training.save_total_limit)
    if tested and job.evaluation.keep_best:
        return (
            _tr("newest {count} and best kept").format(count=count),
            _tr(
                "The newest {count} checkpoints are kept, and the one with the lowest held-out "
                "loss; each new one takes the place of the oldest."
            ).format(count=count),
        )
    return (
        _tr("newest {count} kept").format(count=count),
        _tr(
            "The newest {count} checkpoints are kept; each new one takes the place of the oldest."
        ).format(count=count),
    )


def epoch_of(job: TrainingJob, epoch: float) -> str:
    """`epoch 2 of 3`, counted from one; without an end when steps decide."""
    number = max(1, math.ceil(epoch - 1e-9))
    if job.training.max_steps > 0:
        return _tr("epoch {number}").format(number=number)
    total = math.ceil(job.training.num_train_epochs)
    return _tr("epoch {number} of {total}").format(number=min(number, total), total=total)


# Control characters but tab and line feed; line separators, zero-width and bidi controls, lone
# surrogates. Joiners stay: emoji and several scripts need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with signs that cannot be seen written out, as in ‹U+202E›."""  # noqa: RUF002
    return _UNSEEN.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", text)


def sentence(text: str) -> str:
    """A sentence that may quote what comes from outside, for an error, a tip or a question.

    As `visible`, and cut where it is longer than anyone reads.
    """
    return visible(text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…")


def one_line(text: str) -> str:
    """A name from outside as tables, menus and questions show it; as `visible`, in one line."""
    return visible(" ".join(text.split()))
