"""What tests of every kind share: a home of their own, patience, and the demo model, made once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from tests.hub_server import HubServer, hub_server
from training_backend import preferences

REPOSITORY = Path(__file__).parent.parent
# Of what is made up at random each example may take its time, and everybody gets the same ones.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

PATIENCE_MS = 90_000  # a helper process needs some seconds to start, on a busy computer many more

# Who starts the tests in the background, or by nohup, has these ignored, and every program that a
# test starts would inherit that. The tests are about programs that somebody started to use.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if os.name != "nt" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _home_of_nobody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test that has no home of its own never writes into that of the person who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORASMITH_HOME", str(tmp_path_factory.mktemp("home-of-nobody")))
        yield


class PatientBot(QtBot):
    """Waits for long unless told otherwise: a wait ends with what it is for, so this costs nothing.

    A test names a shorter time only where the time itself is its point.
    """

    def waitUntil(self, callback: Any, *, timeout: int = PATIENCE_MS) -> None:
        super().waitUntil(callback, timeout=timeout)

    def waitSignal(self, signal: Any, *, timeout: int = PATIENCE_MS, **rest: Any) -> Any:
        return super().waitSignal(signal, timeout=timeout, **rest)

    def waitActive(self, widget: Any, *, timeout: int = PATIENCE_MS) -> Any:
        return super().waitActive(widget, timeout=timeout)

    def waitExposed(self, widget: Any, *, timeout: int = PATIENCE_MS) -> Any:
        return super().waitExposed(widget, timeout=timeout)


@pytest.fixture
def qtbot(qapp: QApplication, request: pytest.FixtureRequest) -> QtBot:
    return PatientBot(request)


@pytest.fixture
def lorasmith_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for this test alone, also for the processes that it starts."""
    home = tmp_path / "home"
    monkeypatch.setenv("LORASMITH_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def demo_model_dir() -> Path:
    """The real demo model, prepared once per machine and kept in `LORASMITH_TEST_CACHE`.

    In a process of its own, so that torch does not come into the one that tests the window.
    """
    cache = os.environ.get("LORASMITH_TEST_CACHE") or Path.home() / ".cache" / "lorasmith-tests"
    prepare = "from training_backend.models.demo_model import *; print(prepare_demo_model())"
    answer = subprocess.run(
        [sys.executable, "-c", prepare],
        cwd=REPOSITORY,
        env={**os.environ, "LORASMITH_HOME": str(cache)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return Path(answer.stdout.strip())


@pytest.fixture
def home_with_demo_model(lorasmith_home: Path, demo_model_dir: Path) -> Path:
    """`lorasmith_home` with the demo model in it, ready."""
    target = lorasmith_home / "models" / demo_model_dir.name
    target.parent.mkdir(parents=True)
    try:
        target.symlink_to(demo_model_dir, target_is_directory=True)
    except OSError:  # Windows allows links to administrators only
        shutil.copytree(demo_model_dir, target)
    return lorasmith_home


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test never sees the keyring of the person who runs it."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")


@pytest.fixture
def hub(
    lorasmith_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    """An empty Hub of the test's own, and an empty cache; for child processes too."""
    for variable in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with hub_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        preferences.apply_to_environment()  # what was imported before may remember otherwise
        yield server
    preferences.save(preferences.Preferences())  # lets go of what “work offline” set
