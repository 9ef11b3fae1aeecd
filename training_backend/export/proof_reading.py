"""The proof's work in processes of their own: the reference answers, the candidate is measured.

One model is in memory at a time. What the reference computed goes through files in a scratch
folder: whole distributions of each place of its answers, float32, some MB a question.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from training_backend.errors import UserError
from training_backend.export import proof_files, proof_measures
from training_backend.export.child import Tell
from training_backend.export.proof_measures import Distances
from training_backend.export.proof_questions import Question, questions
from training_backend.export.proof_speaker import Array, Speaker
from training_backend.job import ExportFormat, GgufQuantization, TrainingJob
from training_backend.runs import Run

MOST_PROMPT_TOKENS = 768
ANSWER_TOKENS = 48
DATA_TOKENS = 128
BASE_GGUF = "base.gguf"  # in the scratch folder, for an adapter that llama.cpp puts on it

# What llama.cpp, here or in this memory, cannot load, and another one may.
BEYOND_ENGINE = "proof_beyond_engine"
_NO_FAULT_OF_THE_FILE = ("unknown model architecture", "no memory")


@dataclass(frozen=True)
class Subject:
    """What is compared with what. All paths are of this computer.

    Attributes:
        folder: the export.
        base: the 16-bit base model's folder; None of a model whose every weight was trained.
        trained: the adapter's folder, or that of the model whose every weight was trained.
        run: the run's folder; None for an adapter from elsewhere.
        base_bits: what the adapter was merged into.
        bits: of the arithmetic: 32 where memory allows, else 16.
    """

    folder: str
    format: ExportFormat
    quantization: GgufQuantization
    base: str | None
    trained: str
    run: str | None
    base_bits: str = "16-bit"
    bits: int = 32
    prompts: tuple[str, ...] = ()

    def job(self) -> TrainingJob | None:
        return None if self.run is None else Run(Path(self.run)).training_job()


@dataclass(frozen=True)
class Asked:
    """A question as the reference read and answered it, in tokens.

    `answer` is its greedy answer; `data` the data's own, its end token included where the template
    writes one. `data_loss` is the surprise of the latter, in nats. Whether the last token of each
    closes it is told beside.
    """

    question: Question
    prompt: list[int]
    answer: list[int]
    data: list[int]
    data_loss: float = 0.0
    answer_ends: bool = False
    data_ends: bool = False


@dataclass(frozen=True)
class Reference:
    """All that the candidate is compared with, less the files.

    Attributes:
        closings: the tokens that answers end with, and their texts.
        ends_at: how likely the reference finds each end of an answer where it stands.
        four_bit: mean KL to the 4-bit base with the adapter, where the run trained on that.
        unread: why the run's data could not be used; "" where it was.
    """

    asked: list[Asked]
    begin: int | None
    begin_text: str
    closings: dict[int, str]
    ends_at: list[float]
    has_base: bool
    four_bit: float | None = None
    unread: str = ""


@dataclass(frozen=True)
class Measured:
    """The candidate beside the reference. Sums and counts; KL in nats.

    Attributes:
        alike: of how many of `prompts` chats it reads the very tokens.
        begins_twice: of how many it reads the token for the beginning once too often.
        unnamed: texts of closing tokens that its files do not name as an end.
        answers_alike: answers that it would give word for word, of `prompts`.
    """

    distances: Distances
    prompts: int
    alike: int
    begins_twice: int
    unnamed: tuple[str, ...]
    answers_alike: int
    data_places: int
    data_loss: float
    data_loss_reference: float
    ends_at: list[float] = field(default_factory=list)


# --- the reference ------------------------------------------------------------------------


def read_reference(tell: Tell, subject: Subject, scratch: str) -> Reference:
    """Ask the 16-bit base with its adapter, or the trained model itself.

    Raises `UserError` where it cannot be loaded.
    """
    import torch

    from training_backend.export.proof_torch import TorchSpeaker, with_adapter
    from training_backend.models import base_model
    from training_backend.models.tokenizer import load_tokenizer

    tell(None, "loading the trained model")
    job = subject.job()
    dtype = torch.float32 if subject.bits == 32 else torch.bfloat16
    in_four_bits = job.quantization if job and subject.base_bits == "4-bit" else None
    folder = Path(subject.base or subject.trained)
    model = base_model.load(folder, dtype, in_four_bits, on_card=False)
    tokenizer = load_tokenizer(_tokenizer_folder(subject))
    if subject.base is not None:
        model = with_adapter(model, subject.trained)
    asked, unread = questions(job, tokenizer, subject.prompts)
    speaker = TorchSpeaker(model, tokenizer)
    reference = _answered(tell, speaker, asked, Path(scratch), subject.base is not None)
    return replace(reference, unread=unread)


def _tokenizer_folder(subject: Subject) -> Path:
    """Of a run the base's own, whose template is then set as for the training."""
    trained = Path(subject.trained)
    has_own = (trained / "tokenizer.json").is_file() or (trained / "tokenizer.model").is_file()
    if subject.base is not None and (subject.run is not None or not has_own):
        return Path(subject.base)
    return trained


def _answered(
    tell: Tell, speaker: Any, wanted: list[Question], scratch: Path, has_base: bool
) -> Reference:
    read = [found for question in wanted if (found := _read(speaker, question)) is not None]
    if not read:
        raise UserError(
            "proof_nothing_to_ask",
            "The chat template takes none of the questions.",
            "Ask a question of your own.",
        )
    closings = {found.data[-1] for found in read if found.data_ends}
    ends = speaker.ends | {speaker.tokenizer.eos_token_id} | closings
    asked: list[Asked] = []
    ends_at: list[float] = []
    for number, found in enumerate(read):
        tell(number / len(read), f"the trained model answers, {number + 1} of {len(read)}")
        answer = speaker.answer(found.prompt, ends, ANSWER_TOKENS)
        found = replace(found, answer=answer, answer_ends=answer[-1] in ends)
        logits = speaker.logits(found.prompt + answer[:-1], len(answer))
        np.save(scratch / f"{number}-reference.npy", logits)
        if found.answer_ends:
            closings.add(answer[-1])
            ends_at.append(_chance(logits[-1], answer[-1]))
        if found.data:
            logits = speaker.logits(found.prompt + found.data[:-1], len(found.data))
            found = replace(found, data_loss=proof_measures.surprise(logits, found.data))
            if found.data_ends:
                ends_at.append(_chance(logits[-1], found.data[-1]))
        if has_base:
            with speaker.model.disable_adapter():
                logits = speaker.logits(found.prompt + answer[:-1], len(answer))
            np.save(scratch / f"{number}-base.npy", logits)
        asked.append(found)
    texts = {token: speaker.tokenizer.decode([token]) for token in sorted(closings)}
    begin = str(speaker.tokenizer.bos_token or "")
    return Reference(asked, speaker.begin, begin, texts, ends_at, has_base)


def _read(speaker: Any, question: Question) -> Asked | None:
    """None for what the template refuses, or what is too long."""
    if question.messages:
        try:
            prompt = speaker.prompt(question.messages)
            answer = {"role": "assistant", "content": question.answer}
            whole = speaker.whole([*question.messages, answer]) if question.answer else prompt
        except UserError as error:
            if error.code != "template_refuses":
                raise
            return None
    else:
        prompt, whole = question.text, question.text + question.answer
    is_chat = bool(question.messages)
    tokens = speaker.read(prompt, is_chat=is_chat)
    if not 0 < len(tokens) <= MOST_PROMPT_TOKENS:
        return None
    data = speaker.read(whole, is_chat=is_chat)
    if not question.answer or data[: len(tokens)] != tokens:
        return Asked(question, tokens, [], [])
    data = data[len(tokens) :]
    special = set(speaker.tokenizer.all_special_ids)
    end = speaker.tokenizer.eos_token_id
    if not is_chat:  # training adds the end; other tokens of the kind may stand in the midst of it
        special = set() if end is None else {end}
        data += special
    # Behind the token that closes an answer, templates may write a line break.
    until = next((place + 1 for place, token in enumerate(data) if token in special), len(data))
    data = data[: min(until, DATA_TOKENS)]
    return Asked(question, tokens, [], data, data_ends=bool(data) and data[-1] in special)


def _chance(logits: Array, token: int) -> float:
    return float(np.exp(proof_measures.log_softmax(logits)[token]))


# --- the base in 4 bits, as information ---------------------------------------------------


def read_four_bit(tell: Tell, subject: Subject, reference: Reference, scratch: str) -> float:
    """Mean KL of the reference to what the training saw: the base in 4 bits with the adapter."""
    from training_backend.export.proof_torch import TorchSpeaker, with_adapter
    from training_backend.models import base_model
    from training_backend.models.tokenizer import load_tokenizer

    job = subject.job()
    assert job is not None and subject.base is not None
    tell(None, "loading the base in 4 bits, as in training")
    model = base_model.load(
        Path(subject.base), base_model.precision(), job.quantization, on_card=False
    )
    model = with_adapter(model, subject.trained)
    speaker = TorchSpeaker(model, load_tokenizer(subject.base))
    kl, places = 0.0, 0
    for number, found in enumerate(reference.asked):
        tell(number / len(reference.asked), "the base in 4 bits, as in training")
        logits = speaker.logits(found.prompt + found.answer[:-1], len(found.answer))
        theirs = np.load(Path(scratch) / f"{number}-reference.npy")
        kl += proof_measures.distances(theirs, logits, None).kl
        places += len(found.answer)
    return kl / places


# --- the candidate --------------------------------------------------------------------------


def read_candidate(tell: Tell, subject: Subject, reference: Reference, scratch: str) -> Measured:
    """Load the export as its programs do, and measure it along the reference's answers.

    Raises `UserError` where it cannot be loaded, or is of another shape.
    """
    tell(None, "loading the export")
    return measure(tell, _candidate(subject, Path(scratch)), reference, Path(scratch))


def _candidate(subject: Subject, scratch: Path) -> Speaker:
    folder = Path(subject.folder)
    if subject.format in ("gguf", "gguf_adapter"):
        from training_backend.export import gguf_file
        from training_backend.export.gguf_engine import CannotUse, Engine

        file, context = proof_files.only_gguf(folder), MOST_PROMPT_TOKENS + DATA_TOKENS
        try:
            if subject.format == "gguf":
                engine = Engine(file, context=context)
            else:
                engine = Engine(scratch / BASE_GGUF, adapter=file, context=context)
        except CannotUse as error:
            if not any(words in error.message for words in _NO_FAULT_OF_THE_FILE):
                raise
            raise UserError(
                BEYOND_ENGINE,
                "The llama.cpp in this program cannot ask it: {reason}.",
                "Try it in a newer llama.cpp, or with more memory.",
                reason=error.params["reason"],
            ) from None
        gguf_file.try_template(engine.file)
        return engine
    import torch

    from training_backend.export.proof_torch import TorchSpeaker, with_adapter
    from training_backend.models import base_model
    from training_backend.models.tokenizer import load_tokenizer

    dtype = torch.float32 if subject.bits == 32 else torch.bfloat16
    if subject.format == "adapter":
        assert subject.base is not None
        base = Path(subject.base)
        model = with_adapter(base_model.load(base, dtype, None, on_card=False), str(folder))
        has_own = (folder / "tokenizer.json").is_file()
        return TorchSpeaker(model, load_tokenizer(folder if has_own else base))
    if subject.format == "bnb_4bit":
        model = base_model.load_quantised(folder, dtype, on_card=False)
    else:
        model = base_model.load(folder, dtype, None, on_card=False)
    return TorchSpeaker(model, load_tokenizer(folder))


def measure(tell: Tell, speaker: Speaker, reference: Reference, scratch: Path) -> Measured:
    """The weights along the reference's own tokens; template and tokens of chats beside it."""
    total = Measured(Distances(0, 0.0, 0), 0, 0, 0, (), 0, 0, 0.0, 0.0)
    for number, found in enumerate(reference.asked):
        tell(number / len(reference.asked), f"the export, {number + 1} of {len(reference.asked)}")
        total = _added(total, _one(speaker, found, reference, scratch, number))
    unnamed = [text for token, text in reference.closings.items() if token not in speaker.ends]
    speaker.close()
    gc.collect()
    return replace(total, unnamed=tuple(unnamed))


def _one(
    speaker: Speaker, found: Asked, reference: Reference, scratch: Path, number: int
) -> Measured:
    if speaker.vocabulary <= max([*found.prompt, *found.answer, *found.data]):
        raise UserError(
            "proof_other_vocabulary",
            "The export knows {count} tokens, fewer than the trained model uses: it is of another "
            "base model.",
            "Export the run again.",
            count=f"{speaker.vocabulary:,}",
        )
    own = _own_prompt(speaker, found.question)
    logits = speaker.logits(found.prompt + found.answer[:-1], len(found.answer))
    theirs = np.load(scratch / f"{number}-reference.npy")
    base = np.load(scratch / f"{number}-base.npy") if reference.has_base else None
    distances = proof_measures.distances(theirs, logits, base)
    ends_at = []
    if found.answer_ends:
        ends_at.append(_chance(logits[-1], found.answer[-1]))
    data_loss = 0.0
    if found.data:
        logits = speaker.logits(found.prompt + found.data[:-1], len(found.data))
        data_loss = proof_measures.surprise(logits, found.data)
        if found.data_ends:
            ends_at.append(_chance(logits[-1], found.data[-1]))
    return Measured(
        distances=distances,
        prompts=1,
        alike=int(own == found.prompt),
        begins_twice=int(_begins(own, reference.begin) > _begins(found.prompt, reference.begin)),
        unnamed=(),
        answers_alike=int(distances.same_choice == distances.places),
        data_places=len(found.data),
        data_loss=data_loss,
        data_loss_reference=found.data_loss,
        ends_at=ends_at,
    )


def _own_prompt(speaker: Speaker, question: Question) -> list[int]:
    """A question as the export's own program reads it; empty where its template refuses."""
    if not question.messages:
        return speaker.read(question.text, is_chat=False)
    try:
        text = speaker.prompt(question.messages)
    except UserError:
        return []
    return [] if text is None else speaker.read(text, is_chat=True)


def _begins(tokens: list[int], begin: int | None) -> int:
    """How many tokens for the beginning stand at the beginning."""
    return next((n for n, token in enumerate(tokens) if token != begin), len(tokens))


def _added(total: Any, one: Any) -> Any:
    """Field by field, also of what is in it."""
    if isinstance(total, Distances | Measured):
        names = type(total).__dataclass_fields__
        return type(total)(*(_added(getattr(total, n), getattr(one, n)) for n in names))
    return total + one
