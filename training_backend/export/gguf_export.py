"""A model folder as one GGUF file, for llama.cpp and the programs built on it.

f16, bf16 and q8_0 are written by llama.cpp's converter. The k-quants are made from a 16-bit file
that the converter writes first: its weights are the merged model's own, so nothing is rounded
twice. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend.errors import UserError
from training_backend.export import gguf_tools
from training_backend.export.child import ChildDied, in_child
from training_backend.job import GGUF_BITS, GgufQuantization
from training_backend.worker import Reporter

WRITTEN_BY_CONVERTER = ("f16", "bf16", "q8_0")
TOLD_SECONDS = 0.5


def check(model: Path, scratch: Path, quantization: GgufQuantization, reporter: Reporter) -> None:
    """Refuse what cannot become a GGUF file, before any weight is read.

    Args:
        model: everything of the model but its weights.
        scratch: a file name that is free; what is written there is removed.

    Raises `UserError` with the reason; `StopRequested`.
    """
    reporter.phase("converting", detail="looking whether the model can be a GGUF file")
    k_quant = quantization not in WRITTEN_BY_CONVERTER
    warning = in_tools_process(
        gguf_tools.check, str(model), str(scratch), k_quant, meanwhile=reporter.check_stop
    )
    scratch.unlink()
    if warning is not None:
        code, sentence = warning
        reporter.warn(code, "{sentence}", sentence=sentence)


def write(
    model: Path, target: Path, quantization: GgufQuantization, name: str, reporter: Reporter
) -> None:
    """Write a 16-bit or 32-bit model folder as `target`; the model's weights are removed.

    Room for it is checked by the caller, with `bytes_beside`. Raises `UserError`; `StopRequested`.
    """
    weights = sorted(model.glob("*.safetensors"))
    half = sum(path.stat().st_size for path in weights)
    if quantization in WRITTEN_BY_CONVERTER:
        meanwhile = _progress(target, _size(half, quantization), reporter)
        in_tools_process(
            gguf_tools.convert, str(model), str(target), quantization, name, meanwhile=meanwhile
        )
        return
    whole = target.with_name("16-bit.gguf")
    meanwhile = _progress(whole, half, reporter, until=0.5)
    in_tools_process(gguf_tools.convert, str(model), str(whole), "auto", name, meanwhile=meanwhile)
    for path in weights:  # room for what follows
        path.unlink()
    meanwhile = _progress(target, _size(half, quantization), reporter, begin=0.5)
    in_tools_process(
        gguf_tools.quantize, str(whole), str(target), quantization, meanwhile=meanwhile
    )
    whole.unlink()


def bytes_beside(weights: int, quantization: GgufQuantization) -> int:
    """The most that is on the disk beside merged weights of so many bytes, at any time."""
    return _size(weights, quantization) if quantization in WRITTEN_BY_CONVERTER else weights


def _size(half: int, quantization: GgufQuantization) -> int:
    return round(half * GGUF_BITS[quantization] / 16)


def _progress(
    target: Path, size: int, reporter: Reporter, *, begin: float = 0.0, until: float = 1.0
) -> Callable[[], None]:
    """Tells how much of a file is written. The tools report nothing that a program could read."""
    told = 0.0

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told < TOLD_SECONDS:
            reporter.check_stop()
            return
        told = time.monotonic()
        written = target.stat().st_size if target.exists() else 0
        reporter.phase("converting", begin + (until - begin) * min(1.0, written / size))

    return tell


def in_tools_process(
    work: Callable[..., Any], *arguments: Any, meanwhile: Callable[[], None]
) -> Any:
    """Have llama.cpp's tools do something; what `meanwhile` raises ends it at once.

    Raises `UserError` for what it refuses, and when its process dies; `OSError`.
    """
    try:
        return in_child(work, *arguments, name="gguf", meanwhile=meanwhile)
    except ChildDied as death:
        raise UserError(
            "gguf_tools_died",
            "The process that writes the GGUF file ended unexpectedly (exit code {exit_code}).",
            "Its last words are in the log. If memory ran out, close other programs and try again.",
            exit_code=death.exit_code,
        ) from None
