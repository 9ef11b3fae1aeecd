"""The end of a worker that died without a word, by its name. Light.

What a worker says itself of its end is in `failures.py`. Here it could not: a crash, a signal, the
system's killer, a power cut. Nothing is guessed as if it were known: where the cause is likely
only, the sentence says so.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Any

from training_backend.computer import devices, nvidia
from training_backend.errors import UserError
from training_backend.lifecycle import failures
from training_backend.protocol import Cause, MemorySampled, RunInterrupted

# Signals by which the system answers a program's own mistake.
_CRASHES = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGTRAP", "SIGSYS"}
# https://learn.microsoft.com/en-us/openspecs/windows_protocols/ms-erref (NTSTATUS values)
_WINDOWS_CRASHES = {
    0xC0000005: "access violation",
    0xC000001D: "illegal instruction",
    0xC0000094: "division by zero",
    0xC00000FD: "stack overflow",
    0xC0000374: "damaged heap",
    0xC0000409: "aborted",
}
_WINDOWS_NO_MEMORY = (0xC0000017, 0xC000012D)
_NEARLY_FULL = 0.95

# What faulthandler writes of a crash: the innermost call first.
_REPORT = re.compile(r"Fatal Python error: (?P<name>[^\n]+)")
_FRAME = re.compile(r'^ +File "(?P<file>[^"\n]+)", line (?P<line>\d+)', re.MULTILINE)

BY_US = frozenset({"hung", "ended_by_force"})  # whose signal was our own

_ONCE_MORE_ON_A_CARD = (
    "If it comes again at the same place, update the card's driver and undo any overclocking."
)
_ONCE_MORE = "If it comes again at the same place, a report on the run tells others where."


@dataclass(frozen=True)
class Circumstances:
    """What is known of how a worker died.

    Attributes:
        exit_code: as of `multiprocessing`: negative for a signal; None where nobody could ask.
        log: the end of what it wrote itself.
        memory: the last that it said of memory, a second before.
        oom_killed: whether the system ended a process for want of memory meanwhile; None where
            that cannot be told.
        restarted: whether the computer was started since its last word.
        by_force: whether somebody had it ended through this program.
        still_seconds: for how long it had stood still by then, if that was why.
        halted: whether it stood still because somebody had halted its process.
    """

    exit_code: int | None = None
    log: str = ""
    memory: MemorySampled | None = None
    oom_killed: bool | None = None
    restarted: bool = False
    by_force: bool = False
    still_seconds: float | None = None
    halted: bool = False


def named(known: Circumstances) -> RunInterrupted:
    """The run's last word, written for its worker."""
    error = _named(known)
    return RunInterrupted(
        cause=_cause(known.exit_code),
        code=error.code,
        detail=error.message,
        remedy=error.remedy,
        params={key: str(value) for key, value in error.params.items()},
        exit_code=known.exit_code,
        log_tail=known.log,
    )


def _cause(exit_code: int | None) -> Cause:
    if exit_code is None:
        return "vanished"
    return "signal" if exit_code < 0 else "exit_code"


def _named(known: Circumstances) -> UserError:
    code = known.exit_code
    if known.still_seconds is not None and known.halted:
        return UserError(
            "hung",
            "A person or another program had halted it; it was ended after {time}.",
            time=_minutes(known.still_seconds),
        )
    if known.still_seconds is not None:
        return UserError(
            "hung",
            "It was ended after it had stood still for {time}{place}.",
            _once_more(known.memory),
            time=_minutes(known.still_seconds),
            place=_place(known.log, known.log.find("Current thread")),
        )
    if known.by_force:
        return UserError("ended_by_force", "It was ended by force, without saving.")
    signal_name = _signal_name(code)
    windows = code % 2**32 if code is not None else 0
    killed = signal_name == "SIGKILL" or code is None
    report = _REPORT.search(known.log)
    crashed = signal_name in _CRASHES or windows in _WINDOWS_CRASHES or bool(report)
    if windows in _WINDOWS_NO_MEMORY or (killed and known.oom_killed):
        return UserError(
            "out_of_ram",
            "The system ended the worker, since the computer ran out of memory.",
            failures.LESS_RAM,
        )
    if not killed and (told := failures.of_words(known.log)):
        return told
    if (crashed or code is None) and _card_is_gone(known.memory):
        return failures.card_lost("the worker ended, and the driver no longer lists it")
    if crashed and (code is None or not killed):
        how = signal_name or _WINDOWS_CRASHES.get(windows, "")
        return _crash(how or (report["name"] if report else ""), known.log, known.memory)
    if killed and (short := _short_of_memory(known.memory)):
        return UserError(
            "out_of_ram_likely",
            "The worker was ended when {used} of {total} GB of memory were in use. Most likely the "
            "computer ran out of memory.",
            failures.LESS_RAM,
            **short,
        )
    if signal_name == "SIGKILL":
        if known.oom_killed is False:
            return UserError(
                "killed",
                "The worker was ended by SIGKILL, by a person or another program: the system "
                "counts no lack of memory.",
            )
        return UserError(
            "killed", "The worker was ended by SIGKILL. Often the system ran out of memory."
        )
    if signal_name:
        return UserError("ended_by_signal", "The worker was ended by {name}.", name=signal_name)
    if code is not None:
        return UserError("exit_code", "The worker ended with exit code {number}.", number=code)
    if known.restarted:
        return UserError(
            "computer_restarted",
            "The computer was started anew since its last word: it was switched off, or lost its "
            "power.",
        )
    return UserError("vanished", "The worker is gone; how it ended is not known.")


def _crash(how: str, log: str, memory: MemorySampled | None) -> UserError:
    report = _REPORT.search(log)
    place = _place(log, report.end() if report else -1)
    return UserError(
        "crashed", "The worker crashed ({how}){place}.", _once_more(memory), how=how, place=place
    )


def _once_more(memory: MemorySampled | None) -> str:
    on_card = memory is not None and memory.device.startswith("cuda")
    return _ONCE_MORE_ON_A_CARD if on_card else _ONCE_MORE


def _place(log: str, at: int) -> str:
    """The innermost call that faulthandler tells after this position, as part of a sentence."""
    frame = _FRAME.search(log, at) if at >= 0 else None
    return f" in {module_of(frame['file'])}, line {frame['line']}" if frame else ""


def module_of(file: str) -> str:
    """The part of a source file's path that says whose code it is."""
    parts = re.split(r"[/\\]", file)
    if "site-packages" in parts:
        return "/".join(parts[parts.index("site-packages") + 1 :])
    return "/".join(parts[-2:])


def _signal_name(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return ""
    known = {int(one): one.name for one in signal.Signals}
    return known.get(-exit_code, f"signal {-exit_code}")


def _short_of_memory(memory: MemorySampled | None) -> dict[str, Any]:
    """How full the computer's memory was, where it was nearly full."""
    if memory is None or memory.device != "cpu":  # a card's says nothing of it
        return {}
    if memory.device_used_bytes < _NEARLY_FULL * memory.device_total_bytes:
        return {}
    return {
        "used": devices.gigabytes(memory.device_used_bytes),
        "total": devices.gigabytes(memory.device_total_bytes),
    }


def _card_is_gone(memory: MemorySampled | None) -> bool:
    """Whether the card that it trained on is no longer there."""
    if memory is None or not memory.device.startswith("cuda"):
        return False
    return devices.chosen_gpu(nvidia.find_cards().gpus) is None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"
