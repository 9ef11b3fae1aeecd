"""The look-up of the lock: what it asks about, what it makes of the answers, no network."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "packaging" / "audit.py"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_of_the_lock_is_asked_about_also_those_of_other_systems(
    audit: ModuleType,
) -> None:
    pins = dict(audit.pins())
    for name in ("torch", "transformers", "pyside6-essentials", "pytest", "keyring"):
        assert pins[name] == metadata.version(name).partition("+")[0]
    assert "pywin32-ctypes" in pins  # of Windows alone
    twice = [version for name, version in audit.pins() if name == "numpy"]
    assert len(twice) > 1  # one for each Python
    for lot in audit._lots(audit.pins()):
        assert len({name for name, _ in lot}) == len(lot)


def package(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [], **more}


def test_what_is_known_is_told_and_what_could_not_be_asked_is_no_all_clear(
    audit: ModuleType,
) -> None:
    weak = package("weak", vulns=[{"id": "CVE-1", "fix_versions": ["1.1"]}])
    hopeless = package("hopeless", vulns=[{"id": "CVE-2", "fix_versions": []}])
    assert audit.summary([package("sound")]) == (
        ["No weakness is known in any of the 1 packages of the lock."], 0,
    )  # fmt: skip
    assert audit.summary([package("sound"), weak, hopeless]) == (
        ["weak 1.0: CVE-1, mended in 1.1", "hopeless 1.0: CVE-2, not mended"], 1,
    )  # fmt: skip
    lines, code = audit.summary([weak, {"name": "own", "skip_reason": "not found"}])
    assert code == 2 and lines[0].startswith("weak 1.0")
    assert lines[1] == "1 of 2 packages could not be looked up on PyPI (own)."


def test_without_a_network_it_says_so_in_one_sentence() -> None:
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, SCRIPT],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr == "pip-audit could not be fetched. Check the network and try again.\n"
    assert ended.stdout == ""
