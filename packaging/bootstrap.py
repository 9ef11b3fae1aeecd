"""Sets Lorasmith up in `.venv` and starts it, the same on Linux, Windows and macOS.

    python3 packaging/bootstrap.py run [--demo]     open the window
    python3 packaging/bootstrap.py test [ARGS...]   run the test suite, ARGS go to pytest
    python3 packaging/bootstrap.py setup            only set up; looks at the graphics card again

Standard library only. The first start downloads what is needed; a stamp written at the
very end lets later ones go straight to the program. The environment variable
LORASMITH_TORCH picks the build of PyTorch: cpu, cuda, cu126, cu130, or default (whatever
pip itself would take).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "lorasmith-setup.json"
LOG = VENV / "setup.log"
REQUIREMENTS = ROOT / "packaging" / "requirements"

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
GB = 1_000_000_000


class SetupError(Exception):
    """What is wrong and what to do about it, in words for the person who started this."""


def say(text: str) -> None:
    print(text, flush=True)


# ------------------------------------------------------------------------ which Python, PyTorch


def python_problem(version: tuple[int, int], is_64_bit: bool = True) -> str:
    """Why this Python cannot be used and where to get one that can; empty if it can."""
    if OLDEST_PYTHON <= version <= NEWEST_PYTHON and is_64_bit:
        return ""
    found = f"{version[0]}.{version[1]}" + ("" if is_64_bit else " (32-bit)")
    return (
        f"Lorasmith needs Python 3.11, 3.12 or 3.13 (64-bit), and this is Python {found}. "
        "Get one from https://www.python.org/downloads/ "
        "(Debian and Ubuntu: apt install python3 python3-venv), then start this file with it."
    )


@dataclass(frozen=True)
class Machine:
    """All that the choice of a PyTorch build depends on."""

    system: str  # as platform.system(): Linux, Windows, Darwin
    architecture: str  # as platform.machine(): x86_64, AMD64, arm64, aarch64
    driver: int | None = None  # major version of the NVIDIA driver
    compute_capability: float | None = None  # of the newest NVIDIA card
    override: str = ""  # LORASMITH_TORCH


@dataclass(frozen=True)
class TorchBuild:
    name: str
    label: str
    index: str | None  # None: pip's own index
    download_mb: int
    disk_gb: float  # environment, downloads and unpacking together
    needs_cuda_packages: bool = False  # the lock leaves these out: they come with PyTorch
    note: str = ""


PYTORCH_INDEX = "https://download.pytorch.org/whl/"
CPU_DISK_GB, CUDA_DISK_GB = 3.0, 9.0
# What the CUDA builds of PyTorch 2.13 need (it is no longer published for CUDA 12.8). CUDA 13
# dropped the cards before Turing; CUDA 12.6 has those, but not yet Blackwell.
CUDA_13_DRIVER = 580
CUDA_12_DRIVER = {"Linux": 525, "Windows": 528}
OLDEST_CARD, TURING, BLACKWELL = 5.0, 7.5, 10.0


def choose_torch(machine: Machine) -> TorchBuild:
    choice = machine.override.strip().lower()
    if choice not in ("", "default", "cpu", "cuda", "cu126", "cu130"):
        raise SetupError(
            f"LORASMITH_TORCH is {machine.override!r}, which PyTorch 2.13 has no build for. "
            "Set it to cpu, cuda, cu126, cu130 or default, or leave it unset."
        )
    if choice == "default":
        return TorchBuild("default", "pip's default build", None, 900, CUDA_DISK_GB, True)
    if machine.system == "Darwin":
        if machine.architecture != "arm64":
            raise SetupError(
                "PyTorch has no current builds for Macs with an Intel processor (nor for a Python "
                "that runs under Rosetta): use an Apple silicon Mac with a native Python."
            )
        if choice.startswith("cu"):
            raise SetupError("There is no CUDA on macOS: unset LORASMITH_TORCH.")
        return TorchBuild("default", "Apple build", None, 90, CPU_DISK_GB)
    if choice in ("cu126", "cu130"):
        return cuda_build(machine, choice)
    if choice == "cpu" or (machine.driver is None and choice != "cuda"):
        return cpu_build()

    driver = CUDA_13_DRIVER if machine.driver is None else machine.driver
    card = TURING if machine.compute_capability is None else machine.compute_capability
    newest_cuda = driver >= CUDA_13_DRIVER
    if card < OLDEST_CARD:
        return cpu_build("The NVIDIA card is too old for PyTorch: the processor does the work.")
    if newest_cuda and card >= TURING:
        return cuda_build(machine, "cu130")
    if driver >= CUDA_12_DRIVER.get(machine.system, CUDA_13_DRIVER) and card < BLACKWELL:
        return cuda_build(machine, "cu126")
    return cpu_build(
        f"The NVIDIA driver ({driver}) is too old for this card: the processor does the work. "
        f"Install driver {CUDA_13_DRIVER} or newer, then run `{this_command('setup')}`."
    )


def cpu_build(note: str = "") -> TorchBuild:
    return TorchBuild("cpu", "CPU build", PYTORCH_INDEX + "cpu", 190, CPU_DISK_GB, note=note)


def cuda_build(machine: Machine, name: str) -> TorchBuild:
    # On 64-bit Intel and AMD Linux the build on PyPI is the CUDA 13 one; everywhere else
    # PyPI has no CUDA. On Windows the wheel carries CUDA itself.
    on_pypi = name == "cu130" and (machine.system, machine.architecture) == ("Linux", "x86_64")
    return TorchBuild(
        name=name,
        label=f"NVIDIA build, CUDA {name[2:4]}.{name[4:]}",
        index=None if on_pypi else PYTORCH_INDEX + name,
        download_mb=2500,
        disk_gb=CUDA_DISK_GB,
        needs_cuda_packages=machine.system == "Linux",
    )


def parse_nvidia_smi(output: str) -> tuple[int | None, float | None]:
    """Driver and newest card from lines such as `580.65.06, 8.9`."""
    rows = re.findall(r"^\s*(\d+)\.[\d.]+(?:\s*,\s*(\d+\.\d+))?\s*$", output, re.MULTILINE)
    if not rows:
        return None, None
    cards = [float(card) for _, card in rows if card]
    return int(rows[0][0]), max(cards, default=None)


def probe_machine() -> Machine:
    driver, card = None, None
    program = shutil.which("nvidia-smi") or shutil.which("/usr/lib/wsl/lib/nvidia-smi")
    # Old drivers refuse the whole query when they do not know one field.
    for fields in ("driver_version,compute_cap", "driver_version") if program else ():
        with suppress(OSError, subprocess.SubprocessError):
            query = [str(program), f"--query-gpu={fields}", "--format=csv,noheader"]
            answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
            driver, card = parse_nvidia_smi(answer.stdout)
            break
    return Machine(platform.system(), platform.machine(), driver, card, torch_override())


def torch_override() -> str:
    return os.environ.get("LORASMITH_TORCH", "")


# ------------------------------------------------------------- what is there already: the stamp


def lock_hash(*names: str) -> str:
    # Line ends are left out of it: git may have changed them.
    content = "\n".join((REQUIREMENTS / name).read_text(encoding="utf-8") for name in names)
    return hashlib.sha256(content.encode()).hexdigest()


def wanted_stamp(python: str, torch: str, override: str, with_dev: bool) -> dict[str, str]:
    return {
        "python": python,
        "torch": torch,
        "override": override,
        "runtime": lock_hash("torch.txt", "runtime.txt"),
        "dev": lock_hash("dev.txt") if with_dev else "",
    }


def stamp_serves(stamp: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a finished set-up has all that is wanted; test tools may be there unasked."""
    return all(stamp.get(key) == value for key, value in wanted.items() if key != "dev" or value)


def read_stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def installed_python() -> str:
    """`3.11` for a `.venv` whose interpreter still starts and is one of ours, else empty."""
    script = "import sys; print(*sys.version_info[:2], sep='.')"
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            [str(VENV_PYTHON), "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
        version = answer.stdout.strip()
        major, _, minor = version.partition(".")
        if not python_problem((int(major), int(minor))):
            return version
    return ""


def is_ready(with_dev: bool) -> bool:
    """The quick look at every start: neither pip nor the graphics card is asked."""
    stamp = read_stamp()
    if not stamp:
        return False
    wanted = wanted_stamp(installed_python(), stamp.get("torch", ""), torch_override(), with_dev)
    return stamp_serves(stamp, wanted)


# --------------------------------------------------------------------------------- setting it up


def set_up(with_dev: bool, look_again: bool = False) -> None:
    if not look_again and is_ready(with_dev):
        return
    with only_one_setup():
        if not look_again and is_ready(with_dev):  # another set-up has just done it
            return
        build = choose_torch(probe_machine())
        wanted = wanted_stamp(installed_python(), build.name, torch_override(), with_dev)
        if stamp_serves(read_stamp(), wanted):
            say(f"Lorasmith is set up already ({build.label} of PyTorch).")
            return
        install_everything(build, with_dev)


def install_everything(build: TorchBuild, with_dev: bool) -> None:
    started = time.monotonic()
    say(f"Setting Lorasmith up in {VENV}")
    if build.note:
        say(build.note)
    problem = disk_problem(ROOT, build.disk_gb, free_bytes(ROOT), folder_bytes(VENV))
    if problem:
        raise SetupError(problem)

    steps = 5 if with_dev else 4
    say(f"[1/{steps}] Making the environment")
    STAMP.unlink(missing_ok=True)
    if not is_usable_environment(build):
        make_environment()
    LOG.unlink(missing_ok=True)
    discard_half_installed()
    ensure_pip()

    size = (
        f"{build.download_mb} MB" if build.download_mb < 1000 else f"{build.download_mb / 1000} GB"
    )
    say(f"[2/{steps}] Installing PyTorch ({build.label}, about {size})")
    install_torch(build)
    say(f"[3/{steps}] Installing the libraries and the window toolkit (about 300 MB)")
    install_locked("runtime.txt")
    if with_dev:
        say(f"[4/{steps}] Installing the test tools (about 40 MB)")
        install_locked("dev.txt")

    say(f"[{steps}/{steps}] Checking that PyTorch starts")
    say("      " + check_torch(build))
    stamp = wanted_stamp(installed_python(), build.name, torch_override(), with_dev)
    unfinished = STAMP.with_suffix(".tmp")
    unfinished.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(STAMP)
    LOG.unlink(missing_ok=True)  # tens of megabytes that only a failure needs
    say(f"Set up in {time.monotonic() - started:.0f} s")


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def disk_problem(folder: Path, needed_gb: float, free: int, already_there: int) -> str:
    """Which disk lacks how much; empty if there is room for what is still to come."""
    # Updating in place writes new files before old ones go, so some room is always needed.
    needed = max(needed_gb * GB - already_there, 0.5 * GB)
    if free >= needed:
        return ""
    return (
        f"Not enough free disk space on the disk that holds {folder}: {needed / GB:.1f} GB are "
        f"needed, {free / GB:.1f} GB are free. Free {(needed - free) / GB:.1f} GB there, or move "
        "this folder to a larger disk, and run this again."
    )


@contextmanager
def only_one_setup() -> Iterator[None]:
    """Makes a second set-up of this folder wait. The system frees the lock if one is killed."""
    user = os.getuid() if sys.platform != "win32" else 0
    key = hashlib.sha256(f"{ROOT} {user}".encode()).hexdigest()[:16]
    with open(Path(tempfile.gettempdir(), f"lorasmith-setup-{key}.lock"), "w") as file:
        told = False
        while not lock_file(file.fileno()):
            if not told:
                say("Another set-up of this folder is running: waiting for it to end")
                told = True
            time.sleep(0.5)
        yield


def lock_file(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_usable_environment(build: TorchBuild) -> bool:
    """Whether `.venv` can be gone on with: it starts, and holds no other build of PyTorch."""
    if not installed_python():
        return False
    others = {path.name for path in site_packages().glob("torch-*.dist-info")}
    return all(is_same_build(name, build) for name in others)


def is_same_build(dist_info: str, build: TorchBuild) -> bool:
    """`torch-2.12.0+cpu.dist-info` serves for `cpu`; PyPI's builds carry no such mark."""
    mark = dist_info.removesuffix(".dist-info").partition("+")[2]
    return mark == (build.name if build.index else "")


def make_environment() -> None:
    if VENV.exists():
        say(f"      Removing what is left in {VENV}")
        shutil.rmtree(VENV)
    # Started with a Python that lives in a virtual environment, the one beneath it is used:
    # the environment just removed may have been this very one.
    python = getattr(sys, "_base_executable", None) or sys.executable
    # Without pip, since Debian's Python cannot put it in by itself: see ensure_pip().
    made = subprocess.run(
        [python, "-m", "venv", "--without-pip", str(VENV)], capture_output=True, text=True
    )
    if made.returncode:
        reason = (made.stderr or made.stdout).strip().splitlines() or ["no reason given"]
        raise SetupError(
            f"Python could not make the environment {VENV}: {reason[-1]}. "
            "On Debian and Ubuntu: apt install python3-venv; then run this again."
        )


def ensure_pip() -> None:
    if put_pip_in():
        return
    is_systems_own = sys.base_prefix == "/usr"
    may_install = is_systems_own and is_root() and this_distribution() == "debian"
    if may_install and apt_install(["python3-venv"]) and put_pip_in():
        return
    raise SetupError(
        "This Python has neither ensurepip nor pip, so nothing can be installed. "
        "On Debian and Ubuntu: apt install python3-venv; then run this again."
    )


def put_pip_in() -> bool:
    outer = getattr(sys, "_base_executable", None) or sys.executable
    attempts = (
        [str(VENV_PYTHON), "-m", "pip", "--version"],
        [str(VENV_PYTHON), "-m", "ensurepip", "--default-pip"],
        [outer, "-m", "pip", "--python", str(VENV_PYTHON), "install", "--quiet", "pip"],
    )
    environment = clean_environment()
    return any(
        subprocess.run(attempt, capture_output=True, env=environment).returncode == 0
        for attempt in attempts
    )


def site_packages() -> Path:
    if os.name == "nt":
        return VENV / "Lib" / "site-packages"
    return VENV / "lib" / f"python{installed_python()}" / "site-packages"


def discard_half_installed() -> None:
    """Forgets packages that a killed pip left unfinished, so that pip installs them anew."""
    for leftover in (*VENV.glob("setup-*/"), *site_packages().glob("~*")):
        shutil.rmtree(leftover, ignore_errors=True)
    for record in site_packages().glob("*.dist-info"):
        if not (record / "RECORD").exists():  # pip writes this file last
            shutil.rmtree(record)


def install_torch(build: TorchBuild) -> None:
    requirement = ["-r", str(REQUIREMENTS / "torch.txt")]
    # What PyTorch depends on is in the lock, with hashes, apart from CUDA.
    arguments = requirement if build.needs_cuda_packages else ["--no-deps", *requirement]
    if build.index is None:
        pip_install(arguments)
        return
    # pip may be configured with a folder of wheels: then that is meant to be used.
    if build.name == "cpu" and run_pip(["--no-index", "--no-deps", *requirement]) == 0:
        return
    LOG.unlink(missing_ok=True)
    pip_install(["--index-url", build.index, *arguments])


def install_locked(name: str) -> None:
    pip_install(["--no-deps", "--require-hashes", "-r", str(REQUIREMENTS / name)])


def pip_install(arguments: Sequence[str]) -> None:
    if run_pip(arguments):
        log = LOG.read_text(encoding="utf-8", errors="replace") if LOG.exists() else ""
        raise SetupError(f"{pip_failure(log)} What pip said is in {LOG}.")


def run_pip(arguments: Sequence[str]) -> int:
    environment = clean_environment() | {"PIP_USER": "0", "PIP_NO_INPUT": "1"}
    how = ["--log", str(LOG), "--disable-pip-version-check"]
    how += [] if sys.stdout.isatty() else ["--quiet", "--progress-bar", "off"]
    # Wheels are unpacked beside their target, so that only this disk needs the room: /tmp is
    # often a small one in memory.
    with tempfile.TemporaryDirectory(prefix="setup-", dir=VENV) as temporary:
        environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), temporary)
        command = [str(VENV_PYTHON), "-m", "pip", "install", *how, *arguments]
        return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL).returncode


PIP_FAILURES = (
    (r"No space left on device|not enough space on the disk",
     "The disk is full: free some space, then run this again to go on."),
    (r"Long Path support",
     "A file name became too long for Windows: move this folder to a short path such as "
     "C:\\lorasmith, then run this again."),
    (r"DO NOT MATCH THE HASHES",
     "A downloaded file is not the one that this version of Lorasmith was tested with. Run "
     "this again; if it happens once more, something on the way changes downloads."),
    (r"Permission denied|Access is denied",
     "A file in .venv cannot be written: close programs that use it, make sure that this "
     "folder is yours, then run this again."),
    (r"ConnectionError|NewConnectionError|Max retries|name resolution|getaddrinfo|ProxyError"
     r"|SSLError|CERTIFICATE_VERIFY|timed out|Connection broken|HTTPError: 5|unreachable",
     "The download failed: the network or the package server did not answer. Check the "
     "connection (behind a proxy, set HTTPS_PROXY), then run this again to go on."),
)  # fmt: skip


def pip_failure(log: str) -> str:
    # The log also lists every file that the index offers: only what went wrong is looked at.
    complaints = "\n".join(re.findall(r".*(?:ERROR|WARNING|Error|HINT).*", log))
    for pattern, sentence in PIP_FAILURES:
        if re.search(pattern, complaints):
            return sentence
    absent = re.search(r"No matching distribution found for (\S+)", complaints)
    if absent:
        return (
            f"{absent[1]} is not published for this system or this Python. Lorasmith needs Linux "
            "with glibc 2.34 or newer, Windows 10 or newer, or macOS 14 or newer."
        )
    errors = re.findall(r"ERROR: (.+)", log)
    return "pip could not install what is needed" + (f": {errors[-1].strip()}." if errors else ".")


def check_torch(build: TorchBuild) -> str:
    script = "import torch; print(torch.__version__, torch.cuda.is_available())"
    answer = subprocess.run(
        [str(VENV_PYTHON), "-c", script], capture_output=True, text=True, env=clean_environment()
    )
    if answer.returncode:
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(answer.stdout + answer.stderr)
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(
            f"PyTorch is installed but does not start: {reason}. Delete {VENV} and run this again."
        )
    version, has_cuda = answer.stdout.split()[-2:]
    if has_cuda == "True":
        return f"PyTorch {version} sees the NVIDIA card"
    if build.name.startswith("cu"):
        return f"PyTorch {version} does not see the NVIDIA card: is its driver working?"
    return f"PyTorch {version}"


def clean_environment() -> dict[str, str]:
    """Ours without the variables that would bring other people's packages in."""
    strangers = ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in strangers}


# ------------------------------------------------------- what the system must have for a window

# Library: its package on Debian and Ubuntu, on Fedora, on Arch.
WINDOW_LIBRARIES = {
    "libGL.so.1": ("libgl1", "mesa-libGL", "libglvnd"),
    "libEGL.so.1": ("libegl1", "mesa-libEGL", "libglvnd"),
    "libglib-2.0.so.0": ("libglib2.0-0", "glib2", "glib2"),
    "libdbus-1.so.3": ("libdbus-1-3", "dbus-libs", "dbus"),
    "libfontconfig.so.1": ("libfontconfig1", "fontconfig", "fontconfig"),
    "libxkbcommon.so.0": ("libxkbcommon0", "libxkbcommon", "libxkbcommon"),
    "libxkbcommon-x11.so.0": ("libxkbcommon-x11-0", "libxkbcommon-x11", "libxkbcommon-x11"),
    "libxcb-cursor.so.0": ("libxcb-cursor0", "xcb-util-cursor", "xcb-util-cursor"),
    "libxcb-icccm.so.4": ("libxcb-icccm4", "xcb-util-wm", "xcb-util-wm"),
    "libxcb-keysyms.so.1": ("libxcb-keysyms1", "xcb-util-keysyms", "xcb-util-keysyms"),
    "libxcb-shape.so.0": ("libxcb-shape0", "libxcb", "libxcb"),
}
INSTALL_COMMANDS = {
    "debian": "apt install",
    "fedora": "dnf install",
    "arch": "pacman -S",
}


def distribution(os_release: Mapping[str, str]) -> str:
    names = [os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()]
    aliases = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora"}
    families = (aliases.get(name, name) for name in names)
    return next((family for family in families if family in INSTALL_COMMANDS), "")


def this_distribution() -> str:
    try:
        return distribution(platform.freedesktop_os_release())
    except OSError:
        return ""


def missing_libraries() -> list[str]:
    missing = []
    for library in WINDOW_LIBRARIES if platform.system() == "Linux" else ():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    return missing


def packages_for(libraries: Iterable[str], family: str) -> list[str]:
    column = list(INSTALL_COMMANDS).index(family)
    return list(dict.fromkeys(WINDOW_LIBRARIES[library][column] for library in libraries))


def library_advice(missing: Sequence[str], family: str) -> str:
    what = f"The window needs system libraries that are missing: {', '.join(missing)}."
    if not family:
        return f"{what} Install them with your system's package manager, then run this again."
    command = f"sudo {INSTALL_COMMANDS[family]} {' '.join(packages_for(missing, family))}"
    return f"{what} Install them with\n\n    {command}\n\nthen run this again."


def ensure_window_libraries() -> None:
    missing = missing_libraries()
    if not missing:
        return
    family = this_distribution()
    if family == "debian" and is_root() and apt_install(packages_for(missing, family)):
        missing = missing_libraries()
    if missing:
        raise SetupError(library_advice(missing, family))


def is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def apt_install(packages: Sequence[str]) -> bool:
    say(f"Installing with apt-get: {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    with suppress(OSError), open(LOG, "a", encoding="utf-8") as log:
        for command in (["apt-get", "update"], install):
            done = subprocess.run(command, env=environment, stdout=log, stderr=log)
        return done.returncode == 0
    return False


def has_display(system: str, environment: Mapping[str, str]) -> bool:
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return system != "Linux" or any(environment.get(name) for name in names)


# ---------------------------------------------------------------------------------- the commands


def run(arguments: Sequence[str]) -> int:
    set_up(with_dev=False)
    if has_display(platform.system(), os.environ):
        ensure_window_libraries()
        return hand_over([str(VENV_PYTHON), "-m", "app", *arguments])
    say(
        "There is no display (neither DISPLAY nor WAYLAND_DISPLAY is set), so no window can open: "
        "this is the demo in the terminal."
    )
    return hand_over([str(VENV_PYTHON), "-m", "training_backend", "demo"])


def test(arguments: Sequence[str]) -> int:
    set_up(with_dev=True)
    ensure_window_libraries()
    environment = clean_environment()
    prefix: list[str] = []
    if not has_display(platform.system(), environment):
        if not has_virtual_screen() and is_root() and this_distribution() == "debian":
            apt_install(["xvfb", "xauth"])
        if has_virtual_screen():
            prefix = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]
        else:
            say("There is no display and no xvfb-run: the windows under test stay off screen.")
            environment["QT_QPA_PLATFORM"] = "offscreen"
    if all(argument.startswith("--") for argument in arguments) and (os.cpu_count() or 1) > 1:
        # The whole suite: most tests wait for one core. A file's tests share what they prepare.
        arguments = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", *arguments]
    return hand_over([*prefix, str(VENV_PYTHON), "-m", "pytest", *arguments], environment)


def has_virtual_screen() -> bool:
    return all(shutil.which(program) for program in ("xvfb-run", "xauth"))


def setup(arguments: Sequence[str]) -> int:
    if arguments:
        raise SetupError(f"setup takes no arguments, but was given: {' '.join(arguments)}")
    set_up(with_dev=bool(read_stamp().get("dev")), look_again=True)
    missing = missing_libraries()
    if missing:
        say(library_advice(missing, this_distribution()))
    say(f"Start it with: {this_command('run')}")
    return 0


def hand_over(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Becomes the command, or on Windows, which cannot do that, waits for it."""
    environment = clean_environment() if environment is None else environment
    os.chdir(ROOT)
    sys.stdout.flush()
    if sys.platform != "win32":
        os.execvpe(command[0], list(command), dict(environment))
    return subprocess.run(list(command), env=environment).returncode


def this_command(name: str) -> str:
    python = "py" if platform.system() == "Windows" else "python3"
    return f"{python} {os.path.join('packaging', 'bootstrap.py')} {name}"


def main(arguments: Sequence[str]) -> int:
    problem = python_problem(sys.version_info[:2], sys.maxsize > 2**32)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    commands = {"run": run, "test": test, "setup": setup}
    if not arguments or arguments[0] not in commands:
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help", "help") else 2
    # Leaves through Python, so that a pip at work is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return commands[arguments[0]](arguments[1:])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = this_command(arguments[0])
        print(f"\nStopped. Run `{again}` again to go on where it was.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
