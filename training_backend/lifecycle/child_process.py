"""What every child process of the program does first. Light."""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from training_backend import preferences
from training_backend.computer import devices, nvidia


def detach() -> None:
    """Leave the terminal, so that its Ctrl+C and its closing do not end a training, and yield
    the processor to the window."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.setsid()
        process.nice(10)


@contextlib.contextmanager
def stop_when_told(ask_to_stop: Callable[[], None]) -> Iterator[None]:
    """Meanwhile take SIGTERM, by which a system ends its programs, for a wish to stop.

    The second one ends the process at once, and so does one that cannot be noted down. Windows
    has no such signal.

    Args:
        ask_to_stop: called between any two instructions of the main thread.
    """
    me = os.getpid()

    def on_told(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        try:
            if os.getpid() == me:  # not a child that loads data
                ask_to_stop()
                return
        except OSError:  # a full disk: what is saved is saved
            pass
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, on_told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def choose_card() -> None:
    """Show torch the card that training is to take, and no other; before torch is imported.

    A card that the person chose and that is no longer there counts as none chosen.
    """
    gpu = devices.chosen_gpu(nvidia.find_cards().gpus)
    if gpu is None:
        return
    if gpu.mig or os.environ.get("CUDA_VISIBLE_DEVICES", "0") != str(gpu.index):
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid


def set_environment() -> None:
    """What the libraries read from the environment when they are imported."""
    preferences.apply_to_environment()
    # Idle threads sleep instead of spinning: on few cores they would take the window's turn.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # No code from the Hub, whatever a model asks for: where the package that fetches it happens to
    # be installed, transformers uses it, and bitsandbytes already when it is imported. To them it
    # is not there.
    os.environ["USE_HUB_KERNELS"] = "NO"
    sys.modules["kernels"] = None  # type: ignore[assignment]
    # Progress bars would fill the log, whose last lines are evidence when a worker dies.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Memory given back in pieces is joined again, so that long rows find room. PyTorch has it on
    # Linux only. Whoever set either name has chosen.
    if sys.platform == "linux" and "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    # TRL refuses several cards in one process; count them as NVML does.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def numpy_without_threads() -> None:
    """Import numpy so that its products take no threads of their own; if it is not there yet.

    Where several threads of ours each compute a product, those of OpenBLAS spin while they wait
    for one another: fifteen times the processor time in a merge on two cores. It reads the
    environment once, and the children of this process are not to see it.
    """
    settings = {"OPENBLAS_NUM_THREADS": "1"}
    if "OPENBLAS_CORETYPE" not in os.environ and _is_avx512_of_amd():
        settings["OPENBLAS_CORETYPE"] = "SkylakeX"
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    importlib.import_module("numpy")
    for name, value in before.items():
        del os.environ[name]
        if value is not None:
            os.environ[name] = value


def _is_avx512_of_amd() -> bool:
    """Processors that OpenBLAS, as numpy brings it, takes for ones that have no AVX-512.

    With it a product of float32 takes 0.6 of the time.
    """
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    first = known.partition("\n\n")[0]
    flags = next((line for line in first.splitlines() if line.startswith("flags")), "").split()
    wanted = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
    return "AuthenticAMD" in first and wanted <= set(flags)


def redirect_output(path: Path, *, append: bool) -> None:
    """Send stdout, stderr and crash dumps, also those of C libraries, to a file."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
    handle = os.open(path, flags, 0o600)
    for standard in (1, 2):
        os.dup2(handle, standard)
    os.close(handle)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    faulthandler.enable(sys.stderr)
    if sys.platform != "win32":  # asked so of one that stands still; see `launch.kill`
        faulthandler.register(signal.SIGUSR1, sys.stderr)
