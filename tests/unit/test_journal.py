"""The journal: numbered over all attempts, read by whole lines, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from training_backend.lifecycle import journal
from training_backend.lifecycle.journal import FILE_NAME, JournalReader, JournalWriter
from training_backend.protocol import (
    Event,
    Heartbeat,
    LogLine,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    parse_event,
)


def write(folder: Path, *messages: str) -> None:
    writer = JournalWriter(folder)
    for message in messages:
        writer.append(LogLine(message=message))
    writer.close()


def said(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.seq, event.message) for event in events if isinstance(event, LogLine)]


def test_numbers_go_on_over_attempts(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    write(tmp_path, "c")
    assert said(JournalReader(tmp_path).read()) == [(0, "a"), (1, "b"), (2, "c")]


def test_a_line_is_what_was_written_with_its_number_and_time(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    line = writer.append(LogLine(message="ü\n\r\u2028"))
    writer.close()
    assert (tmp_path / FILE_NAME).read_bytes() == line.encode() + b"\n"
    event = parse_event(line)
    assert (event.seq, said([event])) == (0, [(0, "ü\n\r\u2028")])
    assert event.time > 1.7e9 and event.elapsed >= 0
    assert JournalReader(tmp_path).read() == [event]


def test_a_half_written_last_line_of_a_killed_worker_spoils_nothing_after_it(
    tmp_path: Path,
) -> None:
    write(tmp_path, "a")
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"type":"LogLine","seq":1,"mess')
    assert said(JournalReader(tmp_path).read()) == [(0, "a")]
    write(tmp_path, "b")
    assert said(JournalReader(tmp_path).read()) == [(0, "a"), (1, "b")]


def test_a_last_line_that_lacks_only_its_end_keeps_its_number(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-1])
    write(tmp_path, "c")
    assert said(JournalReader(tmp_path).read()) == [(0, "a"), (1, "b"), (2, "c")]


def test_a_reader_takes_whole_lines_only_and_each_once(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path)
    assert reader.read() == []  # no file yet
    lines = [LogLine(seq=n, message=f"{n} ü").model_dump_json().encode() + b"\n" for n in range(9)]
    data = b"".join(lines)
    got: list[Event] = []
    with (tmp_path / FILE_NAME).open("ab", buffering=0) as file:
        for start in range(0, len(data), 7):  # cuts within letters too
            file.write(data[start : start + 7])
            got += reader.read()
            assert len(got) == data[: start + 7].count(b"\n")
    assert said(got) == [(n, f"{n} ü") for n in range(9)]
    assert reader.read() == []


def test_several_threads_write_whole_lines_without_gap_or_repeat(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    barrier = threading.Barrier(8)

    def work(name: int) -> None:
        barrier.wait()
        for count in range(50):
            writer.append(LogLine(message=f"{name}/{count} " + "x" * 3_000))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    events = JournalReader(tmp_path).read()
    assert [event.seq for event in events] == list(range(400))
    for name in range(8):  # each thread's own are in the order that it wrote them
        mine = [text.split()[0] for _, text in said(events) if text.startswith(f"{name}/")]
        assert mine == [f"{name}/{count}" for count in range(50)]


def test_bad_lines_are_passed_over_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = [LogLine(seq=n, message=str(n)).model_dump_json().encode() for n in range(3)]
    bad = [b"", b"\xff\xfe\x00", b"{}", b'{"type":"Unheard","seq":1}', b"[" * 100_000]
    content = [good[0], *bad, good[1], b'{"type":"EvaluationLogged","loss":null}', good[2]]
    (tmp_path / FILE_NAME).write_bytes(b"\n".join(content) + b"\n")
    with caplog.at_level(logging.WARNING):
        assert said(JournalReader(tmp_path).read()) == [(0, "0"), (1, "1"), (2, "2")]
    assert len(caplog.records) == 6
    assert all(len(record.getMessage()) < 1_000 for record in caplog.records)


def test_the_tail_holds_the_last_events_whole(tmp_path: Path) -> None:
    assert journal.tail(tmp_path) == []
    write(tmp_path, *(str(n) for n in range(100)))
    size = (tmp_path / FILE_NAME).stat().st_size
    events = journal.tail(tmp_path, size // 2)
    assert events[-1].seq == 99
    assert [event.seq for event in events] == list(range(100 - len(events), 100))
    assert 45 <= len(events) <= 50
    assert len(journal.tail(tmp_path, size)) == len(journal.tail(tmp_path)) == 100
    assert journal.tail(tmp_path, 5) == []


def test_the_last_event_is_found_however_long_its_line(tmp_path: Path) -> None:
    assert journal.last_event(tmp_path) is None
    (tmp_path / FILE_NAME).touch()
    assert journal.last_event(tmp_path) is None
    write(tmp_path, "short", "x" * 3_000_000)
    last = journal.last_event(tmp_path)
    assert last is not None and last.seq == 1
    write(tmp_path, "next")
    assert [event.seq for event in JournalReader(tmp_path).read()] == [0, 1, 2]


def test_a_long_stretch_of_damage_does_not_start_the_numbers_anew(tmp_path: Path) -> None:
    write(tmp_path, "a", "b")
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b"\0" * 200_000)  # what a file system may leave after a power cut
    write(tmp_path, "c")
    assert said(JournalReader(tmp_path).read()) == [(0, "a"), (1, "b"), (2, "c")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_full_disk_takes_a_line_whole_or_not_at_all(tmp_path: Path) -> None:
    """And when there is room again, the next event has the next number."""
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from training_backend.lifecycle.journal import JournalWriter\n"
        "from training_backend.protocol import LogLine, RunFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "writer = JournalWriter(Path(sys.argv[1]))\n"
        "writer.append(LogLine(message='first'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, -1))\n"
        "try: writer.append(LogLine(message='x' * 5_000))\n"
        "except OSError as error: print(error.errno)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "writer.append(RunFailed(code='disk_full', message='m'))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "27"  # EFBIG: the limit was met
    events = JournalReader(tmp_path).read()
    assert [(event.seq, type(event)) for event in events] == [(0, LogLine), (1, RunFailed)]


def test_a_writer_shows_each_line_at_once(tmp_path: Path) -> None:
    writer, reader = JournalWriter(tmp_path), JournalReader(tmp_path)
    for event in (Heartbeat(), RunCompleted(folder="/a"), RunFailed(code="c", message="m")):
        writer.append(event)
        assert [type(found) for found in reader.read()] == [type(event)]
    writer.close()


def test_a_full_disk_is_told_at_the_cost_of_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(tmp_path)
    assert writer.has_reserve()
    write = JournalWriter._write

    def full(self: JournalWriter, data: bytes) -> None:
        if self.has_reserve():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(JournalWriter, "_write", full)
    writer.append(LogLine(message="the disk is full"))
    assert not writer.has_reserve()
    assert [e.message for e in JournalReader(tmp_path).read() if isinstance(e, LogLine)] == [
        "the disk is full"
    ]
    writer.make_room()
    assert writer.has_reserve()
    writer.close()
    assert not writer.has_reserve()


def test_a_new_phase_outlives_a_power_cut_and_how_far_it_is_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    with contextlib.closing(JournalWriter(tmp_path)) as writer:
        monkeypatch.setattr(os, "fsync", synced.append)
        counts = []
        for phase in ("merging", "merging", "merging", "saving", "merging"):
            writer.append(PhaseChanged(phase=phase, fraction=0.5))
            counts.append(len(synced))
    assert counts == [1, 1, 1, 2, 3]
