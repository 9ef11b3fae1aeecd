"""What went wrong with a job, in a sentence: exceptions by what they mean for a person. Light.

PyTorch and the card's driver tell most of their errors in words only, so the words are what we
go by.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from training_backend.errors import UserError
from training_backend.files import is_disk_full, is_too_large, meant_name
from training_backend.paths import drive_of

OUT_OF_MEMORY = ("out_of_vram", "out_of_ram", "out_of_ram_likely")  # ends that less memory mends
LESS_RAM = "Close other programs, or choose a smaller batch, a shorter length or a smaller model."

TRAINING_GOES_ON = "A training goes on with Resume."
_RESUME = "Go on from the newest checkpoint with Resume."
_NO_CARD = re.compile(
    r"GPU is lost|device (is )?lost|no CUDA-capable device|unknown error.*cudaErrorUnknown"
    r"|CUDA unknown error|No CUDA GPUs are available|Found no NVIDIA driver"
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
_NO_RAM = re.compile(
    r"DefaultCPUAllocator|not enough memory: you tried to allocate|bad_alloc"
    r"|Cannot allocate memory|paging file is too small"
)
_OF_THE_CARD = re.compile(
    r"CUDA error|CUBLAS_STATUS|CUDNN_STATUS|cudaError|HIP error|Triton Error \[CUDA\]"
    r"|at line \d+ in file \S+\.cu\b"  # as bitsandbytes says it
)
# A drive that fails, or was taken out, a network drive included. Windows has numbers of its own:
# not ready, an error of the device, not connected.
# https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes
_DISK_ERRORS = (errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN)
_DISK_ERRORS_OF_WINDOWS = (21, 1117, 1167)
_NO_RAM_OF_WINDOWS = (8, 14, 1455)


def explained(error: BaseException, place: Path, goes_on: str = TRAINING_GOES_ON) -> UserError:
    """The error as a person should read it.

    Args:
        place: where the job was writing.
        goes_on: what to do about the job once a drive that failed is mended.
    """
    if isinstance(error, UserError):
        return error
    if is_disk_full(error):
        return UserError(
            "disk_full",
            "There is no room left on {drive}.",
            "Free some and start again; what was saved before is whole.",
            drive=drive_of(place),
        )
    if is_too_large(error):
        return UserError(
            "file_too_large",
            "The drive {drive} does not take a file as large as was to be saved.",
            "One formatted as FAT32 takes files of up to 4 GB. Choose another drive; what was "
            "saved before is whole.",
            drive=drive_of(place),
        )
    windows = getattr(error, "winerror", None)
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM or windows in _NO_RAM_OF_WINDOWS:
            return out_of_ram()
        return _of_the_system(error, place, goes_on, windows)
    if isinstance(error, MemoryError):
        return out_of_ram()
    if type(error).__name__ == "OutOfMemoryError":
        return out_of_vram()
    return of_words(str(error)) or UserError(
        "unexpected",
        "Something unexpected went wrong ({kind}: {reason}).",
        "The details are in worker.log in the run's folder.",
        kind=type(error).__name__,
        reason=_reason(str(error).partition("\n")[0]),
    )


def of_words(words: str) -> UserError | None:
    """What memory, the card or its driver say in an error's text or at the end of a log.

    None where they say nothing of the kind.
    """

    def line_of(kind: re.Pattern[str]) -> str:
        return next((_reason(line) for line in words.splitlines() if kind.search(line)), "")

    if _NO_RAM.search(words):
        return out_of_ram()
    if _NO_VRAM.search(words):
        return out_of_vram()
    if reason := line_of(_NO_CARD):
        return card_lost(reason)
    if reason := line_of(_TOO_OLD):
        return UserError(
            "card_not_supported",
            "The card's driver and this PyTorch do not go together ({reason}).",
            "Update the driver; `doctor` says which build of PyTorch the card needs.",
            reason=reason,
        )
    if reason := line_of(_OF_THE_CARD):
        return UserError(
            "card_error",
            "The card reported an error ({reason}).",
            f"{_RESUME} If it comes again, update the driver, and undo any overclocking.",
            reason=reason,
        )
    return None


def out_of_ram() -> UserError:
    return UserError("out_of_ram", "The computer ran out of memory.", LESS_RAM)


def card_lost(reason: str) -> UserError:
    return UserError(
        "card_lost",
        "The card is no longer there ({reason}).",
        f"Restart the computer, look at the card's power and heat. {_RESUME}",
        reason=reason,
    )


def out_of_vram() -> UserError:
    return UserError(
        "out_of_vram",
        "The card ran out of memory.",
        "Choose a smaller batch size or a shorter longest row, and turn on 4-bit loading and "
        "activation checkpointing.",
        field="training.per_device_train_batch_size",
    )


def _of_the_system(error: OSError, place: Path, goes_on: str, windows: int | None) -> UserError:
    at = Path(str(error.filename)) if error.filename else place
    if error.errno == errno.EROFS:
        return UserError(
            "disk_read_only",
            "The drive {drive} can no longer be written to.",
            "A drive with errors turns read-only: have it checked. {goes_on}",
            drive=drive_of(at),
            goes_on=goes_on,
        )
    if error.errno in _DISK_ERRORS or windows in _DISK_ERRORS_OF_WINDOWS:
        return UserError(
            "disk_error",
            "The drive {drive} failed to read or write {file}.",
            "Save what is on it elsewhere and have it checked. {goes_on}",
            drive=drive_of(at),
            goes_on=goes_on,
            file=meant_name(at),
        )
    return UserError(
        "system_error",
        "The system refused {file}: {reason}.",
        file=at,
        reason=(error.strerror or str(error) or type(error).__name__).rstrip("."),
    )


def _reason(line: str) -> str:
    """A line of an error as part of a sentence."""
    line = line.strip().removeprefix("what():").strip()
    return line[:300].rstrip(".") or "no reason given"
