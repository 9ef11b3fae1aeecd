"""NVIDIA cards, asked through NVML, NVIDIA's own library, which comes with the driver.

That it is not there is the normal case on many computers and never an exception here. Nor is a
single value that a card does not tell: it is None.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pynvml

from training_backend.protocol import Brake

_TOO_HOT = (
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown
    | pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
)
BUSY_PERCENT = 10  # of a card's processors


@dataclass(frozen=True)
class GpuProcess:
    """A program that uses a card; `used_bytes` is None where the driver does not say."""

    pid: int
    name: str
    used_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA card, or an instance of one that is divided by MIG.

    `index` is NVML's (by PCI slot), which need not be torch's. `driver_cuda` is the newest CUDA
    (major, minor) that the driver supports. `wddm`: on Windows, the card
    also draws the screen; then the driver does not tell what each program uses, and moves what
    does not fit into the computer's memory, which is very slow.
    """

    index: int
    name: str
    uuid: str
    total_bytes: int
    free_bytes: int
    used_bytes: int
    compute_capability: tuple[int, int] | None
    bf16: bool
    temperature_celsius: float | None
    power_watts: float | None
    processes: tuple[GpuProcess, ...]
    mig: bool = False
    wddm: bool = False
    driver_cuda: tuple[int, int] | None = None


@dataclass(frozen=True)
class Nvidia:
    """What NVML tells: the cards, the driver's version, and why there are no cards."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    no_gpu_because: str = ""


@dataclass(frozen=True)
class GpuSample:
    """One reading of a card: bytes, utilisation from 0 to 1, degrees Celsius, watts.

    `held_back_by`: what keeps it from its full speed, beyond what is normal under load;
    `clock_share`: the clock of its processors against the highest that it knows.
    """

    index: int
    name: str
    process_bytes: int | None
    used_bytes: int
    total_bytes: int
    utilization: float | None
    temperature_celsius: float | None
    power_watts: float | None
    held_back_by: Brake | None = None
    clock_share: float | None = None


def find_cards() -> Nvidia:
    """Asks once for everything; takes some ten milliseconds."""
    reason = _start_nvml()
    if reason is not None:
        return Nvidia(no_gpu_because=reason)
    try:
        gpus = tuple(_gpu(index, handle, mig) for index, handle, mig in _handles())
        return Nvidia(
            gpus,
            _ask(pynvml.nvmlSystemGetDriverVersion),
            "" if gpus else "there is an NVIDIA driver, but no card",
        )
    finally:
        _ask(pynvml.nvmlShutdown)


def visible(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    """Those that `CUDA_VISIBLE_DEVICES` leaves to CUDA, in its order; all where it is not set.

    By number (which this program lets CUDA count as NVML does) or by UUID, which may be cut short.
    As CUDA does, nothing behind a name that fits no card counts.
    """
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for name in (part.strip() for part in text.split(",")):
        if name.isdecimal():
            gpu = next((gpu for gpu in gpus if gpu.index == int(name)), None)
        elif name.startswith(("GPU-", "MIG-")):
            gpu = next((gpu for gpu in gpus if gpu.uuid.startswith(name)), None)
        else:
            gpu = None
        if gpu is None:
            break
        found.append(gpu)
    return tuple(found)


def process_gpu_bytes(handle: Any, pid: int) -> int | None:
    """Bytes of the card (an NVML handle) that process `pid` holds; None if not told.

    Windows usually does not tell, nor does a container with process ids of its own.
    """
    told = [used for owner, used in _processes(handle) if owner == pid and used is not None]
    return max(told, default=None)


def moves_memory(uuid: str | None = None) -> bool:
    """Whether the driver moves what does not fit on the card into the computer's memory.

    As it does on Windows, also for Linux within it (WSL); elsewhere a program is told instead.
    """
    if "microsoft" in platform.release().lower():
        return True
    return bool(_of_card(uuid, _is_wddm))


def others_computing(uuid: str | None = None, seconds: float = 20.0) -> tuple[str, ...]:
    """The names of other programs that kept the card's processors busy in the last seconds.

    Empty where the driver does not say, or numbers processes otherwise than we do, as in a
    container.
    """
    since = int((time.time() - seconds) * 1e6)

    def ask(handle: Any) -> set[int]:
        if os.getpid() not in (pid for pid, _ in _processes(handle)):
            return set()
        samples = _ask(pynvml.nvmlDeviceGetProcessUtilization, handle, since) or ()
        return {each.pid for each in samples if each.smUtil >= BUSY_PERCENT} - {os.getpid()}

    names = (_process_name(pid) for pid in sorted(_of_card(uuid, ask) or ()))
    return tuple(dict.fromkeys(name for name in names if name))


def _of_card(uuid: str | None, question: Callable[[Any], Any]) -> Any:
    """What a question about the card's handle is answered; None where there is no card."""
    if _start_nvml() is not None:
        return None
    try:
        handle = _find_card(uuid)
        return None if handle is None else question(handle)
    finally:
        _ask(pynvml.nvmlShutdown)


class GpuReader:
    """Reads one card again and again; opened once, since opening takes a while.

    Args:
        uuid: the card; by default the first that this process may use.
        pid: whose share `process_bytes` is; by default this process.
    """

    def __init__(self, uuid: str | None = None, pid: int | None = None) -> None:
        self._pid = pid or os.getpid()
        self._open = _start_nvml() is None
        self._handle = _find_card(uuid) if self._open else None

    def read(self) -> GpuSample | None:
        """None when there is no card."""
        if self._handle is None:
            return None
        handle = self._handle
        total, used, _ = _memory(handle)
        rates = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
        return GpuSample(
            index=_ask(pynvml.nvmlDeviceGetIndex, handle) or 0,
            name=_ask(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
            process_bytes=process_gpu_bytes(handle, self._pid),
            used_bytes=used,
            total_bytes=total,
            utilization=None if rates is None else rates.gpu / 100,
            temperature_celsius=_temperature(handle),
            power_watts=_power(handle),
            held_back_by=_held_back_by(handle),
            clock_share=_clock_share(handle),
        )

    def close(self) -> None:
        """Lets go of NVML; `read` gives None from now on."""
        self._handle = None
        if self._open:
            self._open = False
            _ask(pynvml.nvmlShutdown)


def _ask(question: Callable[..., Any], *args: Any) -> Any:
    """The answer, or None where the card, the driver or our rights do not give one."""
    try:
        return question(*args)
    except pynvml.NVMLError:
        return None


def _start_nvml() -> str | None:
    """Opens NVML; says why if that is not possible. Each success needs an nvmlShutdown."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in (
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        ):
            return "no NVIDIA driver is installed or running"
        return f"the NVIDIA driver does not answer ({error})"
    return None


def _handles() -> Iterator[tuple[int, Any, bool]]:
    """The index of each card, its handle, and whether that is an instance (MIG) of the card.

    CUDA cannot use a card that is divided, only its instances.
    """
    for index in range(_ask(pynvml.nvmlDeviceGetCount) or 0):
        card = _ask(pynvml.nvmlDeviceGetHandleByIndex, index)
        if card is None:
            continue
        modes = _ask(pynvml.nvmlDeviceGetMigMode, card)  # the current one and the pending one
        if not modes or modes[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            yield index, card, False
            continue
        for number in range(_ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, card) or 0):
            instance = _ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, number)
            if instance is not None:
                yield index, instance, True


def _cuda_of_driver() -> tuple[int, int] | None:
    version = _ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)  # 13000 is CUDA 13.0
    return None if version is None else (version // 1000, version % 1000 // 10)


def _gpu(index: int, handle: Any, mig: bool) -> Gpu:
    total, used, free = _memory(handle)
    capability = _ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    return Gpu(
        index=index,
        name=_ask(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        uuid=_ask(pynvml.nvmlDeviceGetUUID, handle) or "",
        total_bytes=total,
        free_bytes=free,
        used_bytes=used,
        compute_capability=None if capability is None else (capability[0], capability[1]),
        bf16=capability is not None and capability[0] >= 8,
        temperature_celsius=_temperature(handle),
        power_watts=_power(handle),
        processes=tuple(
            GpuProcess(pid, _process_name(pid), used) for pid, used in _processes(handle)
        ),
        mig=mig,
        wddm=_is_wddm(handle),
        driver_cuda=_cuda_of_driver(),
    )


def _is_wddm(handle: Any) -> bool:
    if platform.system() != "Windows":
        return False
    models = _ask(pynvml.nvmlDeviceGetDriverModel, handle)  # the current one and the pending one
    return bool(models) and models[0] == pynvml.NVML_DRIVER_WDDM


def _find_card(uuid: str | None) -> Any:
    """The NVML handle of the card with this UUID, else of the first one that CUDA may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    chosen = uuid or visible
    if chosen.startswith(("GPU-", "MIG-")):
        return _ask(pynvml.nvmlDeviceGetHandleByUUID, chosen)
    return _ask(pynvml.nvmlDeviceGetHandleByIndex, int(chosen)) if chosen.isdecimal() else None


def _memory(handle: Any) -> tuple[int, int, int]:
    """Total, used and free bytes of the card."""
    # The second version leaves out what the driver keeps for itself, as nvidia-smi does.
    info = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    info = info or _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    if info is None:  # a chip without memory of its own, such as the GB10, shares the computer's
        ram = psutil.virtual_memory()
        return ram.total, ram.total - ram.available, ram.available
    return int(info.total), int(info.used), int(info.free)


def _processes(handle: Any) -> list[tuple[int, int | None]]:
    """Process ids with their bytes; a program that computes and draws is listed once."""
    found: dict[int, int | None] = {}
    for question in (
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
        pynvml.nvmlDeviceGetComputeRunningProcesses,
    ):
        for process in _ask(question, handle) or ():
            found[process.pid] = process.usedGpuMemory or found.get(process.pid)
    return sorted(found.items())


def _temperature(handle: Any) -> float | None:
    value = _ask(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    return None if value is None else float(value)


def _power(handle: Any) -> float | None:
    milliwatts = _ask(pynvml.nvmlDeviceGetPowerUsage, handle)
    return None if milliwatts is None else milliwatts / 1000


def _held_back_by(handle: Any) -> Brake | None:
    """Heat or too little power; that it keeps to its power limit is normal under load."""
    reasons = _ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:  # a driver from before that name
        reasons = _ask(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    if reasons & _TOO_HOT:
        return "heat"
    return "power" if reasons & pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown else None


def _clock_share(handle: Any) -> float | None:
    now = _ask(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)
    most = _ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM)
    return now / most if now and most else None


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""
