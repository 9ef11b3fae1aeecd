"""Writing that leaves the old file or the new one, never half of either."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training_backend import files


def test_text_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text_atomic(path, "first")
    files.write_text_atomic(path, "zweitens: ü\n")
    assert path.read_bytes() == "zweitens: ü\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json_atomic(path, {"good": True})
    with pytest.raises(UnicodeEncodeError):
        files.write_text_atomic(path, "half \ud800")
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json_atomic(path, {"loss": float("nan")})
    assert json.loads(path.read_text()) == {"good": True}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_disk_that_is_full_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from training_backend.files import write_text_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "write_text_atomic(Path(sys.argv[1]), 'new' * 10_000)\n"
    )
    answer = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert "File too large" in answer.stderr
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_told_from_other_errors() -> None:
    assert files.is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    assert files.is_disk_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not files.is_disk_full(PermissionError(errno.EACCES, "Permission denied"))


def test_a_file_that_its_file_system_does_not_take_is_told_from_a_full_disk() -> None:
    for error in (
        OSError(errno.EFBIG, "File too large"),
        Exception("Error while serializing: I/O error: File too large (os error 27)"),
    ):
        assert files.is_too_large(error) and not files.is_disk_full(error)
    assert not files.is_too_large(OSError(errno.ENOSPC, "No space left on device"))


def test_fsync_tree_reaches_everything(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("x")
    files.fsync_tree(tmp_path)


def test_sha256_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"lora" * 1_000_000)
    assert files.sha256_file(path) == hashlib.sha256(b"lora" * 1_000_000).hexdigest()
