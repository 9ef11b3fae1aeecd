"""What the computer has. NVML's real answer, and where there is no card, recorded ones."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import psutil
import pynvml
import pytest

from tests.fake_nvml import GIB, FakeCard, FakeNvml
from training_backend.computer import nvidia, ram
from training_backend.computer.nvidia import GpuReader
from training_backend.computer.other_gpus import OtherGpu, find_other_gpus
from training_backend.hardware import probe


def test_the_probe_of_this_very_computer(lorasmith_home: Path) -> None:
    found = probe()
    assert found.home == str(lorasmith_home)
    assert found.ram_limited or found.ram_total_bytes == psutil.virtual_memory().total
    assert 0 < found.ram_available_bytes <= found.ram_total_bytes
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.cpu
    assert found.disk_free_bytes > 0
    assert bool(found.gpus) != bool(found.no_gpu_because)
    assert json.loads(json.dumps(found.to_json()))["cpu"] == found.cpu


def test_no_nvidia_library_is_a_normal_case(
    lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    found = probe()
    assert found.gpus == ()
    assert found.nvidia_driver is None
    assert found.no_gpu_because == "no NVIDIA driver is installed or running"
    reader = GpuReader()
    assert reader.read() is None
    reader.close()


@pytest.mark.gpu
def test_a_real_card_is_read(lorasmith_home: Path) -> None:
    cards = probe().gpus
    if not cards:
        pytest.skip("there is no NVIDIA card")
    card = cards[0]
    reader = GpuReader(card.uuid)
    sample = reader.read()
    assert sample is not None
    assert (sample.name, sample.total_bytes) == (card.name, card.total_bytes)
    assert 0 <= sample.used_bytes <= sample.total_bytes
    assert sample.utilization is None or 0 <= sample.utilization <= 1
    reader.close()
    assert reader.read() is None


def test_every_value_of_a_card(lorasmith_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(monkeypatch)
    found = probe()
    assert [card.uuid for card in found.gpus] == ["GPU-0", "GPU-1"]
    card = found.gpus[0]
    assert (found.nvidia_driver, card.driver_cuda) == ("580.65.06", (13, 0))
    assert card.bf16 and not card.mig
    assert (card.total_bytes, card.used_bytes, card.free_bytes) == (24 * GIB, 4 * GIB, 20 * GIB)
    assert (card.temperature_celsius, card.power_watts) == (61.0, 312.5)
    assert [(p.pid, p.used_bytes) for p in card.processes] == [(os.getpid(), 3 * GIB)]
    assert card.processes[0].name == psutil.Process().name()
    assert nvml.opened == 0
    json.dumps(found.to_json())


@pytest.mark.parametrize(
    ("reasons", "brake"),
    [
        (0, None),
        (pynvml.nvmlClocksThrottleReasonGpuIdle, None),
        (pynvml.nvmlClocksThrottleReasonSwPowerCap, None),  # normal at full load
        (pynvml.nvmlClocksThrottleReasonSwThermalSlowdown, "heat"),
        (pynvml.nvmlClocksThrottleReasonHwThermalSlowdown | 0x4, "heat"),
        (pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown, "power"),
    ],
)
@pytest.mark.parametrize("silent", [set(), {"nvmlDeviceGetCurrentClocksEventReasons"}])
def test_what_holds_a_card_back(
    monkeypatch: pytest.MonkeyPatch, reasons: int, brake: str | None, silent: set[str]
) -> None:
    FakeNvml(monkeypatch, FakeCard(reasons=reasons, clock=1260, silent=silent))
    sample = GpuReader().read()
    assert sample is not None
    assert (sample.held_back_by, sample.clock_share) == (brake, 0.5)


@pytest.mark.parametrize(
    ("name", "capability", "bf16"),
    [
        ("NVIDIA GeForce RTX 3060", (8, 6), True),
        ("NVIDIA H100", (9, 0), True),
        ("NVIDIA GeForce RTX 5090", (12, 0), True),
        ("Tesla T4", (7, 5), False),
        ("Tesla V100-SXM2-16GB", (7, 0), False),
    ],
)
def test_bf16_is_there_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], bf16: bool
) -> None:
    FakeNvml(monkeypatch, FakeCard(name=name, capability=capability))
    (card,) = nvidia.find_cards().gpus
    assert (card.compute_capability, card.bf16) == (capability, bf16)


def test_of_a_divided_card_the_instances_are_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "NVIDIA A100-SXM4-80GB"
    small = [FakeCard(f"MIG-{n}", f"{name} MIG 3g.40gb", 40 * GIB, 0, (8, 0)) for n in "ab"]
    FakeNvml(
        monkeypatch,
        FakeCard("GPU-0"),
        FakeCard("GPU-1", name, 80 * GIB, capability=(8, 0), instances=small),
    )
    cards = nvidia.find_cards().gpus
    assert [(card.uuid, card.index, card.mig) for card in cards] == [
        ("GPU-0", 0, False), ("MIG-a", 1, True), ("MIG-b", 1, True),
    ]  # fmt: skip
    assert cards[1].total_bytes == 40 * GIB
    reader = GpuReader("MIG-b")
    sample = reader.read()
    assert sample is not None and sample.name.endswith("MIG 3g.40gb")
    reader.close()


@pytest.mark.parametrize(("system", "wddm"), [("Windows", True), ("Linux", False)])
def test_on_windows_a_card_may_draw_the_screen_too(
    monkeypatch: pytest.MonkeyPatch, system: str, wddm: bool
) -> None:
    FakeNvml(monkeypatch, FakeCard())
    monkeypatch.setattr(platform, "system", lambda: system)
    assert nvidia.find_cards().gpus[0].wddm is wddm


@pytest.mark.parametrize(
    ("text", "uuids"),
    [
        ("0", ["GPU-0"]),
        ("1,0", ["GPU-1", "GPU-0"]),
        ("GPU-1", ["GPU-1"]),
        ("1,7,0", ["GPU-1"]),  # what follows a wrong number does not count
        ("", []),
        ("-1", []),
    ],
)
def test_the_cards_that_the_environment_leaves(
    monkeypatch: pytest.MonkeyPatch, text: str, uuids: list[str]
) -> None:
    FakeNvml(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert [card.uuid for card in nvidia.visible(nvidia.find_cards().gpus)] == uuids


def test_the_sampler_reads_the_card_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(monkeypatch)
    for visible, index in (("1,0", 1), ("GPU-1", 1), ("0", 0)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        reader = GpuReader()
        sample = reader.read()
        assert sample is not None
        assert sample.index == index
        assert sample.process_bytes == 3 * GIB
        assert sample.utilization == 0.97
        reader.close()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    reader = GpuReader()
    assert reader.read() is None
    reader.close()
    assert nvml.opened == 0


def test_what_a_card_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMigMode",
    }
    FakeNvml(monkeypatch, FakeCard(silent=silent))
    sample = GpuReader("GPU-0").read()
    assert sample is not None
    assert sample.total_bytes == psutil.virtual_memory().total  # shared with the computer
    told = (sample.utilization, sample.temperature_celsius, sample.power_watts)
    assert (*told, sample.process_bytes) == (None, None, None, None)
    assert nvidia.find_cards().gpus[0].uuid == "GPU-0"


# ------------------------------------------------------------------------ memory in containers


def cgroup(root: Path, line: str, folder: str, files: dict[str, str]) -> Path:
    """A computer whose kernel says that this process is in a control group with these files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(line + "\n")
    group = root / "sys/fs/cgroup" / folder
    group.mkdir(parents=True)
    for name, text in files.items():
        (group / name).write_text(text + "\n")
    return root


V1 = {
    "memory.limit_in_bytes": str(2 * GIB),
    "memory.usage_in_bytes": str(GIB + 300),
    "memory.stat": "cache 5\ntotal_inactive_file 300",
}
V2 = {
    "memory.max": str(2 * GIB),
    "memory.current": str(GIB + 300),
    "memory.stat": "anon 7\ninactive_file 300",
}


@pytest.mark.parametrize(
    ("line", "folder", "files"),
    [
        pytest.param("0::/", "", V2, id="inside a container"),
        pytest.param("0::/user.slice/a.scope", "user.slice/a.scope", V2, id="a group"),
        pytest.param("0::/user.slice/a.scope", "user.slice", V2, id="the group above"),
        pytest.param("4:memory:/docker/0123", "memory", V1, id="first version, container"),
        pytest.param("4:cpu,memory:/a", "memory/a", V1, id="first version, a group"),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, line: str, folder: str, files: dict[str, str]
) -> None:
    found = ram.read(cgroup(tmp_path, line, folder, files))
    assert found.limited
    assert (found.total_bytes, found.available_bytes) == (2 * GIB, GIB)  # file caches give way
    assert found.used_bytes == GIB


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096), "", "?"])
def test_no_limit_is_the_computers_memory(tmp_path: Path, limit: str) -> None:
    files = {**V2, "memory.max": limit, "memory.current": "4096"}
    found = ram.read(cgroup(tmp_path, "0::/", "", files))
    assert not found.limited
    assert found.total_bytes == psutil.virtual_memory().total
    assert ram.read(tmp_path / "not linux").total_bytes == found.total_bytes


# ----------------------------------------------------------------------------- other cards


def drm_card(root: Path, number: int, vendor: str, device: str, driver: str, **files: str) -> None:
    folder = root / f"sys/class/drm/card{number}/device"
    folder.mkdir(parents=True)
    (root / f"sys/class/drm/card{number}-HDMI-A-1/device").mkdir(parents=True)
    for name, text in {"vendor": vendor, "device": device, **files}.items():
        (folder / name).write_text(text + "\n")
    (root / "drivers" / driver).mkdir(parents=True, exist_ok=True)
    (folder / "driver").symlink_to(root / "drivers" / driver)


def test_cards_of_amd_and_intel_are_found_with_what_their_drivers_tell(tmp_path: Path) -> None:
    memory = {"mem_info_vram_total": str(24 * GIB), "mem_info_vram_used": str(GIB)}
    drm_card(tmp_path, 0, "0x1002", "0x744c", "amdgpu", **memory)
    drm_card(tmp_path, 1, "0x8086", "0xe20b", "xe")
    drm_card(tmp_path, 2, "0x1a03", "0x2000", "ast")  # a server's picture for its keeper
    node = tmp_path / "sys/class/kfd/kfd/topology/nodes/1"
    node.mkdir(parents=True)
    (node / "properties").write_text("gfx_target_version 110000\nvendor_id 4098\ndevice_id 29772\n")
    names = tmp_path / "usr/share/misc/pci.ids"
    names.parent.mkdir(parents=True)
    names.write_text(
        "1002  Advanced Micro Devices\n\t744c  Navi 31 [Radeon RX 7900 XTX]\n"
        "\t\t1002 0e3b  A board\n8086  Intel\n\te20b  Battlemage [Arc B580]\n"
    )
    amd, intel = find_other_gpus(tmp_path)
    assert amd == OtherGpu(
        "AMD", "Navi 31 [Radeon RX 7900 XTX]", 24 * GIB, GIB, "gfx1100", "amdgpu"
    )
    assert intel == OtherGpu("Intel", "Battlemage [Arc B580]", None, None, "", "xe")


@pytest.mark.parametrize(("number", "name"), [("90010", "gfx90a"), ("90402", "gfx942")])
def test_chips_of_amd_have_hexadecimal_names(tmp_path: Path, number: str, name: str) -> None:
    drm_card(tmp_path, 0, "0x1002", "0x740f", "amdgpu", product_name="AMD Instinct MI210")
    node = tmp_path / "sys/class/kfd/kfd/topology/nodes/0"
    node.mkdir(parents=True)
    (node / "properties").write_text(f"gfx_target_version {number}\ndevice_id {0x740F}\n")
    (found,) = find_other_gpus(tmp_path)
    assert (found.architecture, found.name) == (name, "AMD Instinct MI210")


def test_an_nvidia_card_without_its_driver_is_seen(tmp_path: Path) -> None:
    drm_card(tmp_path, 0, "0x10de", "0x2684", "nouveau")
    (found,) = find_other_gpus(tmp_path)
    assert (found.maker, found.name, found.driver) == ("NVIDIA", "NVIDIA graphics", "nouveau")
    assert find_other_gpus(tmp_path / "nothing here") == ()
