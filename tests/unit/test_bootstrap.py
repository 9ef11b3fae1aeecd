"""What `packaging/bootstrap.py` decides, for every platform, without installing anything."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BOOTSTRAP = Path(__file__).resolve().parents[2] / "packaging" / "bootstrap.py"


@pytest.fixture
def bootstrap() -> ModuleType:
    """A fresh copy of the script: it is no package, and tests point it at other folders."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", BOOTSTRAP)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script at work in a project of its own, with a lock and no environment."""
    venv = tmp_path / ".venv"
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", venv)
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(bootstrap, "STAMP", venv / "lorasmith-setup.json")
    monkeypatch.setattr(bootstrap, "LOG", venv / "setup.log")
    monkeypatch.setattr(bootstrap, "REQUIREMENTS", tmp_path / "requirements")
    monkeypatch.setattr(bootstrap, "installed_python", lambda: "3.11")
    monkeypatch.delenv("LORASMITH_TORCH", raising=False)
    (tmp_path / "requirements").mkdir()
    for name in ("torch.txt", "runtime.txt", "dev.txt"):
        (tmp_path / "requirements" / name).write_text(f"{name}==1\n")
    venv.mkdir()
    return tmp_path


def stamp_project(bootstrap: ModuleType, **changes: str) -> None:
    stamp = bootstrap.wanted_stamp("3.11", "cpu", "", with_dev=False) | changes
    bootstrap.STAMP.write_text(json.dumps(stamp))


# ------------------------------------------------------------------------------ which PyTorch

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CU126_INDEX = "https://download.pytorch.org/whl/cu126"
CU130_INDEX = "https://download.pytorch.org/whl/cu130"


@pytest.mark.parametrize(
    ("machine", "name", "index"),
    [
        pytest.param(("Linux", "x86_64"), "cpu", CPU_INDEX, id="linux without a card"),
        pytest.param(("Windows", "AMD64"), "cpu", CPU_INDEX, id="windows without a card"),
        pytest.param(("Darwin", "arm64"), "default", None, id="apple"),
        pytest.param(("Linux", "x86_64", 580, 8.9), "cu130", None, id="linux, RTX 4090: PyPI"),
        pytest.param(("Windows", "AMD64", 581, 8.9), "cu130", CU130_INDEX, id="windows, RTX 4090"),
        pytest.param(("Linux", "aarch64", 590, 12.1), "cu130", CU130_INDEX, id="linux on arm"),
        pytest.param(("Linux", "x86_64", 550, 8.6), "cu126", CU126_INDEX, id="older driver"),
        pytest.param(("Windows", "AMD64", 572, 8.6), "cu126", CU126_INDEX, id="older, windows"),
        pytest.param(("Linux", "x86_64", 580, 7.0), "cu126", CU126_INDEX, id="Volta, new driver"),
        pytest.param(("Linux", "x86_64", 580, None), "cu130", None, id="card not told"),
        pytest.param(("Linux", "x86_64", 575, 12.0), "cpu", CPU_INDEX, id="Blackwell, old driver"),
        pytest.param(("Linux", "x86_64", 470, 7.5), "cpu", CPU_INDEX, id="driver before CUDA 12"),
        pytest.param(("Windows", "AMD64", 527, 7.5), "cpu", CPU_INDEX, id="the same, windows"),
        pytest.param(("Linux", "x86_64", 580, 3.7), "cpu", CPU_INDEX, id="card too old"),
    ],
)
def test_build_of_pytorch_fits_the_machine(
    bootstrap: ModuleType, machine: tuple[object, ...], name: str, index: str | None
) -> None:
    build = bootstrap.choose_torch(bootstrap.Machine(*machine))

    assert (build.name, build.index) == (name, index)


@pytest.mark.parametrize(
    ("override", "machine", "name", "index"),
    [
        ("cpu", ("Linux", "x86_64", 580, 8.9), "cpu", CPU_INDEX),
        (" CPU ", ("Windows", "AMD64", 580, 8.9), "cpu", CPU_INDEX),
        ("cpu", ("Darwin", "arm64"), "default", None),
        ("cuda", ("Linux", "x86_64"), "cu130", None),
        ("cuda", ("Windows", "AMD64", 550, 8.9), "cu126", CU126_INDEX),
        ("cu126", ("Linux", "x86_64", 580, 8.9), "cu126", CU126_INDEX),
        ("cu130", ("Windows", "AMD64"), "cu130", CU130_INDEX),
        ("default", ("Linux", "x86_64", 470, 3.5), "default", None),
    ],
)
def test_environment_variable_overrides_the_choice(
    bootstrap: ModuleType,
    override: str,
    machine: tuple[object, ...],
    name: str,
    index: str | None,
) -> None:
    build = bootstrap.choose_torch(
        bootstrap.Machine(*(*machine, None, None)[:4], override=override)
    )

    assert (build.name, build.index) == (name, index)


@pytest.mark.parametrize("override", ["cu128", "rocm", "gpu"])
def test_override_without_a_build_is_refused_with_the_choices(
    bootstrap: ModuleType, override: str
) -> None:
    with pytest.raises(bootstrap.SetupError, match=f"{override}.*cpu, cuda, cu126, cu130"):
        bootstrap.choose_torch(bootstrap.Machine("Linux", "x86_64", override=override))


def test_intel_mac_is_told_that_there_is_no_build(bootstrap: ModuleType) -> None:
    with pytest.raises(bootstrap.SetupError, match="Apple silicon"):
        bootstrap.choose_torch(bootstrap.Machine("Darwin", "x86_64"))


def test_cuda_on_a_mac_is_refused(bootstrap: ModuleType) -> None:
    with pytest.raises(bootstrap.SetupError, match="no CUDA on macOS"):
        bootstrap.choose_torch(bootstrap.Machine("Darwin", "arm64", override="cu130"))


def test_old_driver_is_told_which_one_to_install(bootstrap: ModuleType) -> None:
    build = bootstrap.choose_torch(bootstrap.Machine("Windows", "AMD64", 572, 12.0))

    assert "Install driver 580 or newer" in build.note
    assert "setup" in build.note


def test_cuda_packages_are_left_to_pip_only_where_pytorch_does_not_carry_them(
    bootstrap: ModuleType,
) -> None:
    def build(*machine: object) -> bool:
        return bool(bootstrap.choose_torch(bootstrap.Machine(*machine)).needs_cuda_packages)

    assert build("Linux", "x86_64", 580, 8.9)
    assert not build("Windows", "AMD64", 580, 8.9)
    assert not build("Linux", "x86_64")
    assert not build("Darwin", "arm64")


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("580.65.06, 8.9\n", (580, 8.9)),
        ("581.42, 7.5\n581.42, 12.0\n", (581, 12.0)),
        ("470.256.02\n", (470, None)),
        ("580.65.06, [N/A]\n", (None, None)),
        ("NVIDIA-SMI has failed because it couldn't communicate with the driver.\n", (None, None)),
        ("", (None, None)),
    ],
)
def test_nvidia_smi_is_read_for_driver_and_newest_card(
    bootstrap: ModuleType, output: str, expected: tuple[int | None, float | None]
) -> None:
    assert bootstrap.parse_nvidia_smi(output) == expected


# ------------------------------------------------------------------------------- which Python


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_supported_python_is_taken(bootstrap: ModuleType, version: tuple[int, int]) -> None:
    assert bootstrap.python_problem(version) == ""


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (4, 0)])
def test_other_python_is_named_with_a_place_to_get_a_fitting_one(
    bootstrap: ModuleType, version: tuple[int, int]
) -> None:
    problem = bootstrap.python_problem(version)

    assert f"{version[0]}.{version[1]}" in problem
    assert "3.11, 3.12 or 3.13" in problem
    assert "https://www.python.org/downloads/" in problem


def test_32_bit_python_is_refused(bootstrap: ModuleType) -> None:
    assert "32-bit" in bootstrap.python_problem((3, 12), is_64_bit=False)


# ----------------------------------------------------------------------------------- the disk


def test_enough_disk_is_no_problem(bootstrap: ModuleType) -> None:
    assert bootstrap.disk_problem(Path("/p"), 3.0, 3_000_000_000, 0) == ""


def test_missing_disk_is_told_by_place_and_amount(bootstrap: ModuleType) -> None:
    problem = bootstrap.disk_problem(Path("/some/where"), 9.0, 7_500_000_000, 0)

    assert "/some/where" in problem
    assert "9.0 GB are needed" in problem
    assert "Free 1.5 GB" in problem


def test_what_an_interrupted_setup_left_counts_towards_the_disk_needed(
    bootstrap: ModuleType,
) -> None:
    assert bootstrap.disk_problem(Path("/p"), 3.0, 1_000_000_000, 2_200_000_000) == ""
    assert bootstrap.disk_problem(Path("/p"), 3.0, 100_000_000, 5_000_000_000) != ""


# ---------------------------------------------------------------------------------- the stamp


def test_finished_setup_is_ready(bootstrap: ModuleType, project: Path) -> None:
    stamp_project(bootstrap)

    assert bootstrap.is_ready(with_dev=False)


def test_setup_without_a_stamp_is_not_ready(bootstrap: ModuleType, project: Path) -> None:
    assert not bootstrap.is_ready(with_dev=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_damaged_stamp_is_not_ready(bootstrap: ModuleType, project: Path, text: str) -> None:
    bootstrap.STAMP.write_text(text)

    assert not bootstrap.is_ready(with_dev=False)


@pytest.mark.parametrize("name", ["torch.txt", "runtime.txt"])
def test_changed_lock_asks_for_setup(bootstrap: ModuleType, project: Path, name: str) -> None:
    stamp_project(bootstrap)
    (project / "requirements" / name).write_text("other==2\n")

    assert not bootstrap.is_ready(with_dev=False)


def test_line_ends_of_the_lock_do_not_matter(bootstrap: ModuleType, project: Path) -> None:
    stamp_project(bootstrap)
    (project / "requirements" / "runtime.txt").write_bytes(b"runtime.txt==1\r\n")

    assert bootstrap.is_ready(with_dev=False)


def test_other_python_in_the_environment_asks_for_setup(
    bootstrap: ModuleType, project: Path
) -> None:
    stamp_project(bootstrap, python="3.12")

    assert not bootstrap.is_ready(with_dev=False)


def test_changed_override_asks_for_setup(
    bootstrap: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp_project(bootstrap)
    monkeypatch.setenv("LORASMITH_TORCH", "cu130")

    assert not bootstrap.is_ready(with_dev=False)


def test_test_tools_are_asked_for_only_by_the_tests(bootstrap: ModuleType, project: Path) -> None:
    stamp_project(bootstrap)
    assert not bootstrap.is_ready(with_dev=True)

    stamp_project(bootstrap, dev=bootstrap.lock_hash("dev.txt"))
    assert bootstrap.is_ready(with_dev=True)
    assert bootstrap.is_ready(with_dev=False)


def test_second_start_asks_neither_pip_nor_the_graphics_card(
    bootstrap: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp_project(bootstrap)
    for name in ("probe_machine", "run_pip", "only_one_setup"):
        monkeypatch.setattr(bootstrap, name, lambda *_: pytest.fail("must not be called"))

    bootstrap.set_up(with_dev=False)


# -------------------------------------------------------------- going on after an interruption


def site_packages(project: Path) -> Path:
    folder = project / ".venv" / "lib" / "python3.11" / "site-packages"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="the folders have other names there")
def test_half_installed_packages_are_forgotten_and_whole_ones_kept(
    bootstrap: ModuleType, project: Path
) -> None:
    packages = site_packages(project)
    (packages / "half-1.dist-info").mkdir()
    (packages / "whole-1.dist-info").mkdir()
    (packages / "whole-1.dist-info" / "RECORD").touch()
    (packages / "~orch").mkdir()
    (project / ".venv" / "setup-abc").mkdir()

    bootstrap.discard_half_installed()

    assert [path.name for path in packages.iterdir()] == ["whole-1.dist-info"]
    assert not (project / ".venv" / "setup-abc").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the folders have other names there")
@pytest.mark.parametrize(
    ("installed", "usable"),
    [
        ("torch-2.13.0+cpu.dist-info", True),
        ("torch-2.12.0+cpu.dist-info", True),  # pip updates it in place
        ("torch-2.13.0+cu130.dist-info", False),  # to pip, the same version
        ("torch-2.13.0.dist-info", False),
        ("torchvision-0.28.0.dist-info", True),
    ],
)
def test_environment_is_made_anew_for_another_build_of_pytorch(
    bootstrap: ModuleType, project: Path, installed: str, usable: bool
) -> None:
    (site_packages(project) / installed).mkdir()

    assert bootstrap.is_usable_environment(bootstrap.cpu_build()) is usable


def test_environment_whose_python_is_gone_is_not_usable(
    bootstrap: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(bootstrap, "VENV_PYTHON", project / "no" / "python")

    assert bootstrap.installed_python() == ""
    assert not bootstrap.is_usable_environment(bootstrap.cpu_build())


def test_second_setup_cannot_take_the_lock_before_the_first_lets_go(
    bootstrap: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    with open(path, "w") as first, open(path, "w") as second:
        assert bootstrap.lock_file(first.fileno())
        assert not bootstrap.lock_file(second.fileno())
        first.close()
        assert bootstrap.lock_file(second.fileno())


# ------------------------------------------------------------------------------ pip's failures


@pytest.mark.parametrize(
    ("log", "sentence"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
            "Name or service not known)': /simple/x/\n"
            "ERROR: No matching distribution found for x==1\n",
            "The download failed",
        ),
        (
            "ERROR: Could not install packages: OSError: [Errno 28] No space left on device",
            "The disk is full",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "not the one that this version",
        ),
        ("HINT: ... Windows Long Path support enabled.", "short path"),
        ("ERROR: No matching distribution found for pyside6-essentials==6.11.3", "glibc 2.34"),
        ("ERROR: something new\n", "something new"),
        ("", "could not install"),
        ("Link: https://host/unreachable-1.0.whl timed out\nERROR: other", "other"),
    ],
)
def test_failure_of_pip_is_told_in_one_sentence(
    bootstrap: ModuleType, log: str, sentence: str
) -> None:
    assert sentence in bootstrap.pip_failure(log)
    assert "\n" not in bootstrap.pip_failure(log)


def failing_programs(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, working: str | None
) -> list[str]:
    """Lets every program fail but one that has `working` among its arguments."""
    started: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        started.append(" ".join(command))
        return subprocess.CompletedProcess(command, 0 if working in command else 1)

    monkeypatch.setattr(bootstrap.subprocess, "run", run)
    return started


@pytest.mark.parametrize("working", ["--version", "ensurepip", "--python"])
def test_pip_comes_from_the_first_place_that_has_it(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, working: str
) -> None:
    started = failing_programs(bootstrap, monkeypatch, working)

    bootstrap.ensure_pip()

    assert working in started[-1]
    assert len(started) == ["--version", "ensurepip", "--python"].index(working) + 1


def test_python_with_neither_ensurepip_nor_pip_names_the_package_to_install(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_programs(bootstrap, monkeypatch, None)
    monkeypatch.setattr(bootstrap, "is_root", lambda: False)

    with pytest.raises(bootstrap.SetupError, match="apt install python3-venv"):
        bootstrap.ensure_pip()


@pytest.mark.parametrize(("prefix", "asked"), [("/usr", [["python3-venv"]]), ("/opt/py", [])])
def test_root_on_debian_gets_pip_installed_for_the_systems_own_python_only(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, prefix: str, asked: list[list[str]]
) -> None:
    installed: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "put_pip_in", lambda: bool(installed))
    monkeypatch.setattr(bootstrap, "is_root", lambda: True)
    monkeypatch.setattr(bootstrap, "this_distribution", lambda: "debian")
    monkeypatch.setattr(bootstrap, "apt_install", lambda names: installed.append(names) or True)
    monkeypatch.setattr(bootstrap.sys, "base_prefix", prefix)

    if asked:
        bootstrap.ensure_pip()
    else:
        with pytest.raises(bootstrap.SetupError, match="apt install python3-venv"):
            bootstrap.ensure_pip()

    assert installed == asked


def test_local_wheel_of_pytorch_is_preferred_to_the_download(
    bootstrap: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "run_pip", lambda arguments: calls.append(arguments) or 0)

    bootstrap.install_torch(bootstrap.cpu_build())

    assert len(calls) == 1
    assert "--no-index" in calls[0]


def test_pytorch_is_downloaded_from_its_own_index_without_a_local_wheel(
    bootstrap: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run_pip(arguments: list[str]) -> int:
        calls.append(arguments)
        return 1 if "--no-index" in arguments else 0

    monkeypatch.setattr(bootstrap, "run_pip", run_pip)

    bootstrap.install_torch(bootstrap.cpu_build())

    assert calls[-1][:3] == ["--index-url", CPU_INDEX, "--no-deps"]


def test_lock_is_installed_by_hash_without_touching_pytorch(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "run_pip", lambda arguments: calls.append(arguments) or 0)

    bootstrap.install_locked("runtime.txt")

    assert {"--no-deps", "--require-hashes"} < set(calls[0])


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_lock_names_no_package_index_and_leaves_pytorch_out(
    bootstrap: ModuleType, name: str
) -> None:
    text = (bootstrap.REQUIREMENTS / name).read_text(encoding="utf-8")

    assert "://" not in text
    assert "index" not in text
    assert "find-links" not in text
    assert not [
        line for line in text.splitlines() if line.startswith(("torch==", "nvidia-c", "triton"))
    ]


# -------------------------------------------------------------------------------- the display


@pytest.mark.parametrize(
    ("system", "environment", "expected"),
    [
        ("Linux", {}, False),
        ("Linux", {"DISPLAY": ""}, False),
        ("Linux", {"DISPLAY": ":0"}, True),
        ("Linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("Linux", {"QT_QPA_PLATFORM": "offscreen"}, True),
        ("Windows", {}, True),
        ("Darwin", {}, True),
    ],
)
def test_display_is_looked_for_on_linux_only(
    bootstrap: ModuleType, system: str, environment: dict[str, str], expected: bool
) -> None:
    assert bootstrap.has_display(system, environment) is expected


def started_by(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str
) -> tuple[list[str], dict[str, str]]:
    """The program that a command hands over to on a machine that is all set up."""
    handed: list[tuple[list[str], dict[str, str]]] = []

    def hand_over(program: list[str], environment: dict[str, str] | None = None) -> int:
        handed.append((program, environment or {}))
        return 0

    monkeypatch.setattr(bootstrap, "set_up", lambda with_dev: None)
    monkeypatch.setattr(bootstrap, "ensure_window_libraries", lambda: None)
    monkeypatch.setattr(bootstrap, "hand_over", hand_over)
    assert getattr(bootstrap, command)(arguments) == 0
    return handed[0]


def pretend_linux(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, **environment: str
) -> None:
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_run_opens_the_window_with_the_arguments_given(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_linux(bootstrap, monkeypatch, DISPLAY=":0")

    program, _ = started_by(bootstrap, monkeypatch, "run", "--demo")

    assert program[1:] == ["-m", "app", "--demo"]


def test_run_without_a_display_says_so_and_runs_the_demo_in_the_terminal(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_linux(bootstrap, monkeypatch)

    program, _ = started_by(bootstrap, monkeypatch, "run", "--demo")

    assert program[1:] == ["-m", "training_backend", "demo"]
    assert "no display" in capsys.readouterr().out


def test_tests_run_on_a_virtual_screen_where_there_is_no_display(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_linux(bootstrap, monkeypatch)
    monkeypatch.setattr(bootstrap, "has_virtual_screen", lambda: True)

    program, _ = started_by(bootstrap, monkeypatch, "test", "-k", "chart")

    assert program[:2] == ["xvfb-run", "-a"]
    assert program[-4:] == ["-m", "pytest", "-k", "chart"]


def test_tests_stay_off_screen_where_no_virtual_screen_can_be_had(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_linux(bootstrap, monkeypatch)
    monkeypatch.setattr(bootstrap, "has_virtual_screen", lambda: False)
    monkeypatch.setattr(bootstrap, "is_root", lambda: False)

    program, environment = started_by(bootstrap, monkeypatch, "test")

    assert program[1:3] == ["-m", "pytest"]
    assert environment["QT_QPA_PLATFORM"] == "offscreen"


@pytest.mark.parametrize(
    ("arguments", "cores", "in_two"),
    [
        pytest.param((), 2, True, id="all"),
        pytest.param(("--color=no",), 8, True, id="all, with an option"),
        pytest.param((), 1, False, id="all on one core"),
        pytest.param(("tests/unit",), 8, False, id="some"),
        pytest.param(("-m", "not slow"), 8, False, id="a choice"),
    ],
)
def test_the_whole_suite_runs_in_two_processes(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    cores: int,
    in_two: bool,
) -> None:
    pretend_linux(bootstrap, monkeypatch, DISPLAY=":0")
    monkeypatch.setattr(bootstrap.os, "cpu_count", lambda: cores)
    program, _ = started_by(bootstrap, monkeypatch, "test", *arguments)
    assert ("-n" in program) is in_two
    assert program[len(program) - len(arguments) :] == list(arguments)


# -------------------------------------------------------------------------- missing libraries


@pytest.mark.parametrize(
    ("os_release", "family"),
    [
        ({"ID": "debian"}, "debian"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "debian"),
        ({"ID": "fedora"}, "fedora"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "fedora"),
        ({"ID": "endeavouros", "ID_LIKE": "arch"}, "arch"),
        ({"ID": "nixos"}, ""),
        ({}, ""),
    ],
)
def test_distribution_is_known_by_its_family(
    bootstrap: ModuleType, os_release: dict[str, str], family: str
) -> None:
    assert bootstrap.distribution(os_release) == family


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("debian", "sudo apt install libgl1 libxcb-cursor0"),
        ("fedora", "sudo dnf install mesa-libGL xcb-util-cursor"),
        ("arch", "sudo pacman -S libglvnd xcb-util-cursor"),
    ],
)
def test_missing_libraries_come_with_the_line_to_type(
    bootstrap: ModuleType, family: str, command: str
) -> None:
    advice = bootstrap.library_advice(["libGL.so.1", "libxcb-cursor.so.0"], family)

    assert "libGL.so.1, libxcb-cursor.so.0" in advice
    assert f"    {command}\n" in advice


def test_missing_libraries_are_named_on_an_unknown_system(bootstrap: ModuleType) -> None:
    advice = bootstrap.library_advice(["libEGL.so.1"], "")

    assert "libEGL.so.1" in advice
    assert "package manager" in advice


def test_package_that_holds_two_libraries_is_named_once(bootstrap: ModuleType) -> None:
    assert bootstrap.packages_for(["libGL.so.1", "libEGL.so.1"], "arch") == ["libglvnd"]


def test_person_who_is_not_root_is_told_what_to_install(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "missing_libraries", lambda: ["libEGL.so.1"])
    monkeypatch.setattr(bootstrap, "this_distribution", lambda: "debian")
    monkeypatch.setattr(bootstrap, "is_root", lambda: False)
    monkeypatch.setattr(bootstrap, "apt_install", lambda _: pytest.fail("must not be called"))

    with pytest.raises(bootstrap.SetupError, match="sudo apt install libegl1"):
        bootstrap.ensure_window_libraries()


def test_root_on_debian_gets_the_missing_libraries_installed(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ["libEGL.so.1", "libGL.so.1"]
    installed: list[str] = []

    def apt_install(packages: list[str]) -> bool:
        installed.extend(packages)
        missing.clear()
        return True

    monkeypatch.setattr(bootstrap, "missing_libraries", lambda: list(missing))
    monkeypatch.setattr(bootstrap, "this_distribution", lambda: "debian")
    monkeypatch.setattr(bootstrap, "is_root", lambda: True)
    monkeypatch.setattr(bootstrap, "apt_install", apt_install)

    bootstrap.ensure_window_libraries()

    assert installed == ["libegl1", "libgl1"]


# ------------------------------------------------------------------------------- the commands


def test_foreign_python_settings_do_not_reach_the_environment(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("HTTPS_PROXY", "proxy")

    assert "PYTHONPATH" not in bootstrap.clean_environment()
    assert bootstrap.clean_environment()["HTTPS_PROXY"] == "proxy"


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["fly"], 2), (["--help"], 0)])
def test_without_a_command_the_usage_is_shown(
    bootstrap: ModuleType,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
) -> None:
    assert bootstrap.main(arguments) == status
    assert "packaging/bootstrap.py run" in capsys.readouterr().out


def test_ctrl_c_says_that_running_again_goes_on(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bootstrap, "set_up", interrupted)
    monkeypatch.setattr(bootstrap.signal, "signal", lambda *_: None)

    assert bootstrap.main(["run"]) == 130
    assert "again to go on" in capsys.readouterr().err


def test_problem_is_printed_as_a_sentence_with_status_1(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise bootstrap.SetupError("The disk is full: free some space.")

    monkeypatch.setattr(bootstrap, "set_up", fails)
    monkeypatch.setattr(bootstrap.signal, "signal", lambda *_: None)

    assert bootstrap.main(["run"]) == 1
    error = capsys.readouterr().err
    assert "The disk is full" in error
    assert "Traceback" not in error
