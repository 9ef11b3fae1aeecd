"""Errors of the libraries, the driver and the system, as a person reads them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from training_backend.errors import UserError
from training_backend.files import write_json_atomic
from training_backend.lifecycle.failures import explained

PLACE = Path("/")


class OutOfMemoryError(RuntimeError):
    """Named as PyTorch's."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("[enforce fail at inline_container.cc] unexpected pos 64 vs 0"), "disk_full"),
        (OSError(errno.EROFS, "Read-only file system", "/data/run/x.json"), "disk_read_only"),
        (OSError(errno.EIO, "Input/output error", "/data/run/x.json"), "disk_error"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/run/x.json"), "system_error"),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected", "/nas/x"), "disk_error"),
        (OSError(errno.ENODEV, "No such device", "/usb/x"), "disk_error"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_ram"),
        (
            RuntimeError("The paging file is too small for this operation to complete."),
            "out_of_ram",
        ),
        (RuntimeError("No CUDA GPUs are available"), "card_lost"),
        (
            RuntimeError(
                "CUDA unknown error - this may be due to an incorrectly set up environment"
            ),
            "card_lost",
        ),
        (RuntimeError("Triton Error [CUDA]: misaligned address"), "card_error"),
        (
            RuntimeError("Error an illegal memory access was met at line 90 in file /s/ops.cu"),
            "card_error",
        ),
        (MemoryError(), "out_of_ram"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 17179869184 bytes."
            ),
            "out_of_ram",
        ),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "out_of_vram"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), "out_of_vram"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
            "out_of_vram",
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "card_error"),
        (RuntimeError("CUDA error: device-side assert triggered"), "card_error"),
        (RuntimeError("CUDA error: no CUDA-capable device is detected"), "card_lost"),
        (
            RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"),
            "card_lost",
        ),
        (
            RuntimeError("CUDA error: no kernel image is available for execution on the device"),
            "card_not_supported",
        ),
        (ValueError("something else"), "unexpected"),
        (ValueError(), "unexpected"),
    ],
)
def test_an_error_is_told_by_what_it_means(error: Exception, code: str) -> None:
    told = explained(error, PLACE)
    assert told.code == code
    assert "\n" not in str(told) and "Traceback" not in str(told) and "Errno" not in str(told)
    assert told.message.endswith(".") and ".." not in told.message


@pytest.mark.parametrize(("number", "code"), [(1455, "out_of_ram"), (1167, "disk_error")])
def test_what_windows_says_in_numbers_of_its_own_is_told(number: int, code: str) -> None:
    error = OSError(errno.EINVAL, "as Windows says it")
    error.winerror = number
    assert explained(error, PLACE).code == code


def test_what_has_its_sentence_keeps_it() -> None:
    error = UserError("own", "A sentence.")
    assert explained(error, PLACE) is error


def test_a_temporary_file_is_named_as_what_it_was_to_become(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with pytest.raises(FileNotFoundError) as caught:
        write_json_atomic(folder / "state.json", {})
    refused = caught.value
    assert ".state.json." in str(refused.filename)
    told = explained(OSError(errno.EIO, "Input/output error", refused.filename), tmp_path)
    assert told.params["file"] == "state.json"
