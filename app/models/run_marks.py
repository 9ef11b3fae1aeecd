"""The steps of a run that its warnings speak of, for the charts to mark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from PySide6.QtCore import QCoreApplication

from training_backend.protocol import WarningRaised

_ENDS = {"as_fast_again": "slow", "card_cool": "card"}  # and how the codes begin that they end


@dataclass(frozen=True)
class Mark:
    """Steps `since` to `until`, None where it goes on; `text` is short, `message` whole."""

    code: str
    since: int
    until: int | None
    text: str
    message: str


class RunMarks:
    """Is told a run's warnings in order; `marks` are ordered as they came."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []

    def clear(self) -> None:
        self.marks = []

    def take(self, event: WarningRaised) -> None:
        """Note a warning about steps; any other says nothing here."""
        if event.since is None:
            return
        ended = _ENDS.get(event.code)
        if ended is not None:
            self._change_open(ended, lambda mark: replace(mark, until=event.until))
            return
        mark = Mark(event.code, event.since, event.until, _words(event), event.message)
        # What is told again of the same steps, since it became worse, is told better.
        told = (_kind(mark), mark.since)
        self.marks = [old for old in self.marks if (_kind(old), old.since) != told]
        self.marks.append(mark)

    def begin_attempt(self, step: int) -> None:
        """The run goes on from this step, in another process: what lasted has ended there."""
        self.marks = [
            replace(mark, until=min(step, step if mark.until is None else mark.until))
            for mark in self.marks
            if mark.since <= step
        ]

    def now(self) -> str:
        """What goes on now, in whole sentences; "" for nothing."""
        return " ".join(mark.message for mark in self.marks if mark.until is None)

    def _change_open(self, kind: str, change: Callable[[Mark], Mark]) -> None:
        self.marks = [
            change(mark) if mark.until is None and _kind(mark) == kind else mark
            for mark in self.marks
        ]


def _kind(mark: Mark) -> str:
    return mark.code.partition("_")[0]


def _words(event: WarningRaised) -> str:
    """A few words for the chart."""
    params = event.params
    cause = {
        "slow_memory_full": _tr("card full"),
        "slow_heat": _tr("card too hot"),
        "slow_power": _tr("too little power"),
        "slow_other_program": _tr("another program"),
        "slow_battery": _tr("on battery"),
        "slow_swapping": _tr("memory full"),
        "slow_processor": _tr("busy processor"),
        "slow_disk": _tr("slow save"),
        "card_hot": _tr("card too hot"),
        "card_overfull": _tr("card too full"),
    }.get(event.code, "")
    if "factor" in params:
        longer = _tr("{factor} × the time").format(factor=params["factor"])
        return f"{cause}, {longer}" if cause else longer
    if event.code == "slow_disk":
        return _tr("{what}, {seconds} s").format(what=cause, seconds=params.get("seconds", ""))
    return cause or _tr("see the log")


def _tr(text: str) -> str:
    return QCoreApplication.translate("run_marks", text)
