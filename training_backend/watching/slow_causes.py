"""Why a training is slower than it was, by what else goes on in the computer. Light.

Readings are taken once a second; those since it is slow are held against those before.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from training_backend.computer.devices import gigabytes
from training_backend.protocol import Brake
from training_backend.watching.step_times import Slower

NEARLY_FULL = 0.95  # of a card's memory
GROWN = 0.05  # of a card's memory, by what others hold of it
BUSY_PROCESSOR = 0.9  # of all cores
TAKEN_PROCESSOR = 0.25  # by other programs, more than before
LEFT_OF_OWN = 0.75  # of what the run had of it before: they have taken the rest
LITTLE_RAM = 0.1
SWAPPED_BYTES_A_SECOND = 5e6
MOST_OF_THE_TIME = 0.5

SLOW_SAVE_SECONDS = 5.0  # more than so long and so many bytes a second: a drive that slept, or slow
SLOW_SAVE_BYTES_A_SECOND = 30e6


@dataclass(frozen=True)
class Reading:
    """One moment; None where it cannot be told.

    Attributes:
        seconds: on a monotonic clock.
        card_used, card_total: bytes of the card; `own` what this process holds of it.
        processor, own_processor: share of all cores in use, and by this process.
        ram_free: share of the computer's memory.
        swapped: bytes read back from the swap file since the computer was started.
    """

    seconds: float
    card_used: int | None = None
    card_total: int | None = None
    own: int | None = None
    held_back_by: Brake | None = None
    temperature: float | None = None
    clock_share: float | None = None
    processor: float | None = None
    own_processor: float | None = None
    ram_free: float | None = None
    swapped: int | None = None
    on_battery: bool | None = None


class Cause(NamedTuple):
    """What to tell the person: a warning's code, its template and its values."""

    code: str
    template: str
    params: dict[str, Any]


def explain(
    slower: Slower,
    before: Sequence[Reading],
    now: Sequence[Reading],
    *,
    moves_memory: bool = False,
    programs: Sequence[str] = (),
) -> Cause:
    """The warning about slower steps, with the cause that the readings speak for.

    Args:
        before, now: readings from before the steps became slower, and since.
        moves_memory: whether the card's driver moves what does not fit into the computer's
            memory, as on Windows, where no error tells of it.
        programs: names of others that compute on the card now.
    """
    times = {
        "factor": f"{slower.factor:.1f}",
        "before": _seconds(slower.before),
        "now": _seconds(slower.now),
    }
    found = (
        (_memory_full(now) if moves_memory else None)
        or _braked(now)
        or _other_program(before, now, programs)
        or _battery(before, now)
        or _swapping(now)
        or _busy_processor(before, now)
        or _UNKNOWN
    )
    template = (
        "Since step {since} a step takes {factor} times as long ({now} s instead of {before} s). "
    )
    return Cause(found.code, template + found.template, {**times, **found.params})


_UNKNOWN = Cause(
    "slow_unknown",
    "Neither the card nor the computer shows a cause. Look at what else runs, and at the "
    "computer's power settings.",
    {},
)


def _memory_full(now: Sequence[Reading]) -> Cause | None:
    used, total = (now[-1].card_used, now[-1].card_total) if now else (None, None)
    if not used or not total or used < NEARLY_FULL * total:
        return None
    return Cause(
        "slow_memory_full",
        "The card's memory is full ({used} of {total} GB), and its driver moves what does not fit "
        "into the computer's memory, which is slow. Close other programs that use the card, or "
        "stop and choose a smaller batch or shorter rows.",
        {"used": gigabytes(used), "total": gigabytes(total)},
    )


def _braked(now: Sequence[Reading]) -> Cause | None:
    if _share(now, lambda each: each.held_back_by == "heat") >= MOST_OF_THE_TIME:
        return hot(now)._replace(code="slow_heat")
    if _share(now, lambda each: each.held_back_by == "power") >= MOST_OF_THE_TIME:
        return Cause(
            "slow_power",
            "The card gets too little power and slows itself down{to}. Look at its power cables "
            "and the power supply.",
            {"to": _clock(now)},
        )
    return None


def _other_program(
    before: Sequence[Reading], now: Sequence[Reading], programs: Sequence[str]
) -> Cause | None:
    then, here = _median(before, _others_bytes), _median(now, _others_bytes)
    total = now[-1].card_total if now else None
    grew = total and then is not None and here is not None and here - then >= GROWN * total
    if not programs and not grew:
        return None
    return Cause(
        "slow_other_program",
        "Another program uses the card{names}. Close it, or wait until it is done.",
        {"names": f" ({', '.join(programs)})" if programs else ""},
    )


def _battery(before: Sequence[Reading], now: Sequence[Reading]) -> Cause | None:
    if not now or not now[-1].on_battery or (before and before[-1].on_battery):
        return None
    return Cause(
        "slow_battery", "The computer runs on its battery and saves power. Plug it in.", {}
    )


def _swapping(now: Sequence[Reading]) -> Cause | None:
    known = [(each.seconds, each.swapped) for each in now if each.swapped is not None]
    if len(known) < 2 or known[-1][0] <= known[0][0]:
        return None
    speed = (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0])
    free = _median(now, lambda each: each.ram_free)
    if speed < SWAPPED_BYTES_A_SECOND or free is None or free > LITTLE_RAM:
        return None
    return Cause(
        "slow_swapping",
        "The computer's memory is full, and it reads from its drive what it had put there. Close "
        "other programs.",
        {},
    )


def _busy_processor(before: Sequence[Reading], now: Sequence[Reading]) -> Cause | None:
    taken, in_use = _median(now, _others_processor), _median(now, lambda each: each.processor)
    if taken is None or in_use is None or in_use < BUSY_PROCESSOR or taken < TAKEN_PROCESSOR:
        return None
    more = taken - (_median(before, _others_processor) or 0.0)
    own, own_before = (
        _median(each, lambda one: one.own_processor) or 0.0 for each in (now, before)
    )
    if more < TAKEN_PROCESSOR and own > LEFT_OF_OWN * own_before:
        return None
    return Cause(
        "slow_processor",
        "Other programs use {share} % of the processor. Close them, or wait until they are done.",
        {"share": round(100 * taken)},
    )


def hot(readings: Sequence[Reading]) -> Cause:
    """The warning about a card that brakes itself for heat, whatever the steps take."""
    hottest = max((r.temperature for r in readings if r.temperature is not None), default=None)
    return Cause(
        "card_hot",
        "The card is too hot{degrees} and slows itself down{to}. See to its fans, to dust and to "
        "the air around it.",
        {
            "degrees": "" if hottest is None else f" ({round(hottest)} °C)",
            "to": _clock(readings),
        },
    )


def overfull(reserved: int, used: int, total: int) -> Cause | None:
    """The warning about a run that holds more than the whole card has in use: it is elsewhere.

    Only where the driver moves memory; there it is certain, and it needs no step to compare with.

    Args:
        reserved: bytes that PyTorch believes to hold of the card.
        used, total: bytes of the card as its driver counts them, those of all programs.
    """
    over = reserved - used
    if over < GROWN * total or used < 0.8 * total:
        return None
    return Cause(
        "card_overfull",
        "The run holds {over} GB more than the card's memory; its driver keeps that in the "
        "computer's memory, which makes each step several times slower. Close other programs that "
        "use the card, or stop and choose a smaller batch or shorter rows.",
        {"over": gigabytes(over)},
    )


def slow_save(seconds: float, size_bytes: int, drive: str) -> Cause | None:
    """The warning about a save that took longer than its size explains."""
    if seconds < SLOW_SAVE_SECONDS + size_bytes / SLOW_SAVE_BYTES_A_SECOND:
        return None
    return Cause(
        "slow_disk",
        "To save the checkpoint of step {since} took {seconds} s for {size} MB: the drive {drive} "
        "was asleep, or is slow. The training waits that long at each such save.",
        {"seconds": round(seconds), "size": round(size_bytes / 1e6), "drive": drive},
    )


class Lasting:
    """Whether something is so most of the time, and when that begins and ends.

    Args:
        window: how many of the newest answers count.
    """

    def __init__(self, window: int = 60) -> None:
        self._newest: deque[bool] = deque(maxlen=window)
        self.on = False

    def add(self, so: bool) -> bool | None:
        """True when it has begun, False when it has ended, None when nothing changed."""
        self._newest.append(so)
        if len(self._newest) < (self._newest.maxlen or 0):
            return None
        share = sum(self._newest) / len(self._newest)
        if self.on and share <= MOST_OF_THE_TIME / 5:
            self.on = False
            return False
        if not self.on and share >= MOST_OF_THE_TIME:
            self.on = True
            return True
        return None


def _others_bytes(reading: Reading) -> float | None:
    if reading.card_used is None or reading.own is None:
        return None
    return max(0, reading.card_used - reading.own)


def _others_processor(reading: Reading) -> float | None:
    if reading.processor is None or reading.own_processor is None:
        return None
    return max(0.0, reading.processor - reading.own_processor)


def _share(readings: Sequence[Reading], so: Callable[[Reading], bool]) -> float:
    return sum(map(so, readings)) / len(readings) if readings else 0.0


def _median(readings: Sequence[Reading], value: Callable[[Reading], float | None]) -> float | None:
    known = [found for found in map(value, readings) if found is not None]
    return statistics.median(known) if known else None


def _clock(readings: Sequence[Reading]) -> str:
    share = _median(readings, lambda each: each.clock_share)
    return "" if share is None else f" to {round(100 * share)} % of its speed"


def _seconds(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
