"""The report on this computer in plain words: the same rows for the terminal and the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

_GIB = 2**30


@dataclass(frozen=True)
class Row:
    """A line: what it is about, and what is to say. `tone` adds to the words, never instead."""

    label: str
    text: str
    tone: Literal["", "good", "careful", "bad"] = ""


@dataclass(frozen=True)
class Section:
    title: str
    rows: tuple[Row, ...]


def sections(report: dict[str, Any]) -> list[Section]:
    """What `doctor.report` found, in the order of interest."""
    problems = [Row("Problem", text, "bad") for text in report["problems"]]
    problems += [Row("Note", text, "careful") for text in report["hints"]]
    works = [
        Row("Yes" if row["works"] else "No", f"{row['name']}: {row['note']}",
            "good" if row["works"] else "")
        for row in report["works"]
    ]  # fmt: skip
    ready = "ready" if report["demo_model_ready"] else "not prepared yet"
    packages = [Row(name, found or "missing") for name, found in report["packages"].items()]
    found = [
        Section("To look at", tuple(problems)),
        Section("Graphics card", tuple(_cards(report))),
        Section("Computer", tuple(_computer(report))),
        Section("What would work here", tuple(works)),
        Section(
            "Recommended",
            (Row("Size", _sentence(report["recommended"]["text"])), Row("Demo model", ready)),
        ),
        Section("Hugging Face Hub", (_hub(report["hub"]),)),
        Section("Packages", tuple(packages)),
    ]
    return [section for section in found if section.rows]


def as_text(report: dict[str, Any]) -> str:
    """The report as lines of text, some forty."""
    lines: list[str] = []
    for section in sections(report):
        width = max(len(row.label) for row in section.rows) + 2
        lines += ["", section.title]
        lines += [f"  {row.label:{width}}{row.text}" for row in section.rows]
    return "\n".join(lines[1:])


def _hub(found: dict[str, Any]) -> Row:
    if found["offline"]:
        return Row("Connection", "work offline is on: nothing is fetched or asked")
    asked = found["answers"] or "allowed; not asked now"
    return Row("Connection", f"{found['endpoint']}: {asked}")


def _cards(report: dict[str, Any]) -> list[Row]:
    hardware = report["hardware"]
    rows: list[Row] = []
    for gpu, verdict in zip(hardware["gpus"], report["cards"], strict=True):
        text = f"{gpu['name']}: {_gib(gpu['free_bytes'])} of {_gib(gpu['total_bytes'])} free"
        if verdict["chosen"]:
            text += "; training takes this one"
        elif verdict["problem"]:
            text += f"; not used, since {verdict['problem']}"
        rows += [Row(f"GPU {gpu['index']}", text), Row("", _abilities(gpu))]
        rows += [Row("", _use(process)) for process in gpu["processes"]]
    for other in hardware["other_gpus"]:
        size = f": {_gib(other['total_bytes'])}" if other["total_bytes"] else ""
        details = [part for part in (other["architecture"], _driver(other)) if part]
        rows.append(Row(other["maker"], f"{other['name']}{size} ({', '.join(details)})"))
    if hardware["apple_silicon"]:
        rows.append(Row("GPU", "of Apple silicon; it shares the computer's memory"))
    if not rows:
        rows.append(Row("GPU", f"none that can be used: {hardware['no_gpu_because']}"))
    if hardware["nvidia_driver"]:
        known = next((gpu["driver_cuda"] for gpu in hardware["gpus"]), None)
        newest = ", CUDA up to {}.{}".format(*known) if known else ""
        rows.append(Row("Driver", f"NVIDIA {hardware['nvidia_driver']}{newest}"))
    return rows


def _abilities(gpu: dict[str, Any]) -> str:
    parts = []
    if gpu["compute_capability"]:
        parts.append("compute capability {}.{}".format(*gpu["compute_capability"]))
    parts.append("computes in bf16" if gpu["bf16"] else "computes in fp16, not in bf16")
    if gpu["mig"]:
        parts.append("a part of a divided card (MIG)")
    return ", ".join(parts)


def _use(process: dict[str, Any]) -> str:
    name = process["name"] or "a program"
    used = "" if process["used_bytes"] is None else f": {_gib(process['used_bytes'])}"
    return f"in use by {name} (process {process['pid']}){used}"


def _driver(gpu: dict[str, Any]) -> str:
    return f"driver {gpu['driver']}" if gpu["driver"] else "no driver"


def _computer(report: dict[str, Any]) -> list[Row]:
    hardware = report["hardware"]
    limited = ", a container's limit" if hardware["ram_limited"] else ""
    swap = hardware["swap_total_bytes"]
    models = hardware["models_free_bytes"]
    return [
        Row("Processor", f"{hardware['cpu']}, {hardware['cores']} cores"),
        Row("Memory", f"{_free(hardware, 'ram_available_bytes', 'ram_total_bytes')}{limited}"),
        Row("Swap", _free(hardware, "swap_free_bytes", "swap_total_bytes") if swap else "none"),
        Row("Disk", f"{_gib(hardware['disk_free_bytes'])} free for {hardware['home']}"),
        Row(
            "Models",
            f"{'drive not there' if models is None else _gib(models) + ' free'} "
            f"for {hardware['models_folder']}",
        ),
        Row("System", hardware["system"]),
        Row("Program", f"Lorasmith {report['lorasmith']}, Python {report['python']}"),
    ]


def _free(hardware: dict[str, Any], free: str, total: str) -> str:
    return f"{_gib(hardware[free])} of {_gib(hardware[total])} free"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"
