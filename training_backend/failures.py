"""What went wrong with a job, in a sentence: exceptions by what they mean for a person. Light.

PyTorch and the card's driver tell most of their errors in words only, so the words are what we
go by.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from training_backend.errors import UserError
from training_backend.files import is_disk_full
from training_backend.paths import drive_of

_RESUME = "Go on from the newest checkpoint with Resume."
_NO_CARD = re.compile(
    r"GPU is lost|device (is )?lost|no CUDA-capable device|unknown error.*cudaErrorUnknown"
    r"|devices? (are|is) busy or unavailable|fallen off the bus",
    re.IGNORECASE,
)
_TOO_OLD = re.compile(
    r"no kernel image is available|driver version is insufficient|PTX was compiled", re.IGNORECASE
)
_NO_VRAM = re.compile(
    r"CUDA out of memory|CUDA error: out of memory|STATUS_ALLOC_FAILED|out of memory at line",
    re.IGNORECASE,
)
_NO_RAM = re.compile(r"DefaultCPUAllocator|not enough memory: you tried to allocate|bad_alloc")
_OF_THE_CARD = re.compile(r"CUDA error|CUBLAS_STATUS|CUDNN_STATUS|cudaError|HIP error")


def explained(error: BaseException, place: Path) -> UserError:
    """The error as a person should read it.

    Args:
        place: where the job was writing.
    """
    if isinstance(error, UserError):
        return error
    words = str(error)
    if is_disk_full(error):
        return UserError(
            "disk_full",
            "There is no room left on {drive}.",
            "Free some and start again; what was saved before is whole.",
            drive=drive_of(place),
        )
    if isinstance(error, OSError):
        return _of_the_system(error, place)
    if isinstance(error, MemoryError) or _NO_RAM.search(words):
        return UserError(
            "out_of_ram",
            "The computer ran out of memory.",
            "Close other programs, or choose a smaller batch, a shorter length or a smaller model.",
        )
    if type(error).__name__ == "OutOfMemoryError" or _NO_VRAM.search(words):
        return out_of_vram()
    if _NO_CARD.search(words):
        return UserError(
            "card_lost",
            "The card is no longer there ({reason}).",
            f"Restart the computer, look at the card's power and heat. {_RESUME}",
            reason=_first_line(words),
        )
    if _TOO_OLD.search(words):
        return UserError(
            "card_not_supported",
            "The card's driver and this PyTorch do not go together ({reason}).",
            "Update the driver; `doctor` says which build of PyTorch the card needs.",
            reason=_first_line(words),
        )
    if _OF_THE_CARD.search(words):
        return UserError(
            "card_error",
            "The card reported an error ({reason}).",
            f"{_RESUME} If it comes again, update the driver, and undo any overclocking.",
            reason=_first_line(words),
        )
    return UserError(
        "unexpected",
        "Something unexpected went wrong ({kind}: {reason}).",
        "The details are in worker.log in the run's folder.",
        kind=type(error).__name__,
        reason=_first_line(words),
    )


def out_of_vram() -> UserError:
    return UserError(
        "out_of_vram",
        "The card ran out of memory.",
        "Choose a smaller batch size or a shorter longest row, and turn on 4-bit loading and "
        "activation checkpointing.",
        field="training.per_device_train_batch_size",
    )


def _of_the_system(error: OSError, place: Path) -> UserError:
    at = Path(str(error.filename)) if error.filename else place
    if error.errno == errno.EROFS:
        return UserError(
            "disk_read_only",
            "The drive {drive} can no longer be written to.",
            "A drive with errors turns read-only: have it checked, and go on with Resume.",
            drive=drive_of(at),
        )
    if error.errno == errno.EIO:
        return UserError(
            "disk_error",
            "The drive {drive} failed to read or write {file}.",
            "Save what is on it elsewhere and have it checked, then go on with Resume.",
            drive=drive_of(at),
            file=at.name,
        )
    return UserError(
        "system_error",
        "The system refused {file}: {reason}.",
        file=at,
        reason=(error.strerror or str(error) or type(error).__name__).rstrip("."),
    )


def _first_line(words: str) -> str:
    return words.splitlines()[0][:300].rstrip(".") if words.strip() else "no reason given"
