"""The run store: one folder a run, made before it starts and kept for good.

    <run id>/
      job.json          what was asked for; before it was revised: job.1.json, job.2.json ...
      queued.json       that it waits for its turn, or did (see run_queue.py)
      events.jsonl      what happened (see journal.py); the truth about the run
      events.reserve    room for its last words, while a worker lives
      worker.log        the worker's own output, tracebacks included
      worker.json       pid of the worker that runs it, or ran it last
      worker.lock       held by that worker while it lives; the system frees it
      requests/         what the person asks of a live run (see run_requests.py)
      checkpoints/      finished checkpoint-<step>/ folders, each with COMPLETE.json
      adapter/          the result

Exports and probes are jobs too, with folders of the same kind, elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

from training_backend.computer import ram
from training_backend.errors import UserError
from training_backend.files import fsync_folder, write_json_atomic, write_text_atomic
from training_backend.job import ExportJob, Job, ProbeJob, TrainingJob, VerifyJob, load_job
from training_backend.lifecycle import checkpoints, ends, journal, run_folders
from training_backend.lifecycle.ends import Circumstances
from training_backend.lifecycle.run_requests import Request, Requests
from training_backend.paths import export_runs_dir, probe_runs_dir, runs_dir
from training_backend.protocol import (
    TERMINAL_TYPES,
    Event,
    MemorySampled,
    MetricsLogged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
    parse_event,
)
from training_backend.summaries.losses import RecentLoss

State = Literal["queued", "running", "completed", "stopped", "failed", "interrupted"]

logger = logging.getLogger(__name__)

LOG_TAIL_BYTES = 4_000
# A crash's report names every loaded library at its end, which says nothing.
_CRASH = "Fatal Python error"
_CRASH_BYTES = 32_000
# Whoever asks whether a run lives holds its lock for an instant; that is not a worker.
PROBE_SECONDS = 0.5
UNBEGUN_SECONDS = 600.0  # for a worker to start in
ENDING_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """A run's folder and the questions one can ask of it. Nothing is cached."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def log_path(self) -> Path:
        return self.folder / "worker.log"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def model(self) -> Path:
        """Where a run that trained every weight leaves the model."""
        return self.folder / "model"

    def job(self) -> Job:
        """Raises `UserError` when the file is missing or damaged."""
        return load_job(self.folder / "job.json")

    def revisions(self) -> int:
        """How often the job was revised: the run extended, or made to need less memory."""
        return sum(1 for _ in self.folder.glob("job.*.json"))

    def training_job(self) -> TrainingJob:
        job = self.job()
        if not isinstance(job, TrainingJob):
            raise UserError("not_a_training_run", "{run} is not a training run.", run=self.id)
        return job

    def events(self) -> list[Event]:
        """The whole journal, oldest first."""
        return journal.JournalReader(self.folder).read()

    def state(self) -> State:
        return _state(self, journal.last_event(self.folder))

    def is_alive(self) -> bool:
        """Whether a worker holds the run, told by its file lock, which dies with it."""
        if not (self.folder / run_folders.LOCK_NAME).exists():
            return False
        lock = self.worker_lock()
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if self.claimant() is not None:
                return True
            try:
                lock.acquire(timeout=PROBE_SECONDS, poll_interval=0.005)
            except Timeout:
                return True
        except OSError:  # its disk turned read-only, so that no lock can be tried
            return self.claimant() is not None
        lock.release()
        return False

    def worker_lock(self) -> FileLock:
        return FileLock(self.folder / run_folders.LOCK_NAME)

    @property
    def requests(self) -> Requests:
        return Requests(self.folder / "requests")

    def request(self, what: Request) -> None:
        """Ask a live worker for something; it looks at the end of every step."""
        self.requests.ask(what)

    def requested(self, what: Request) -> bool:
        return self.requests.is_asked(what)

    def claim(self) -> None:
        """Note down that the calling process is the run's worker, and what to tell its end by."""
        me = psutil.Process()
        known = {
            "pid": me.pid,
            "created": me.create_time(),
            "log_bytes": self.log_path.stat().st_size if self.log_path.exists() else 0,
            "oom_kills": ram.oom_kills(),
        }
        write_json_atomic(self.folder / "worker.json", known)

    def clear_requests(self) -> None:
        self.requests.clear()

    def worker(self) -> psutil.Process | None:
        """The live worker's process, or None."""
        process = self.claimant()
        return process if process is not None and self.is_alive() else None

    def claimant(self) -> psutil.Process | None:
        """The process that last claimed the run. A recycled pid is not mistaken for it."""
        known = self.claimed()
        with contextlib.suppress(LookupError, TypeError, ValueError, psutil.Error):
            process = psutil.Process(known["pid"])
            if abs(process.create_time() - known["created"]) < 1.0:
                return process
        return None

    def claimed(self) -> dict[str, Any]:
        """What the newest worker noted down; empty where that cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            known = json.loads((self.folder / "worker.json").read_text(encoding="utf-8"))
            if isinstance(known, dict):
                return known
        return {}

    def log_tail(self) -> str:
        """The end of the newest worker's own output; of a crash the beginning of its report."""
        began = self.claimed().get("log_bytes", 0)
        try:
            with self.log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                began = began if isinstance(began, int) and 0 <= began <= size else 0
                file.seek(max(began, size - _CRASH_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        crash = text.rfind(_CRASH)
        if crash >= 0:
            return _of_crash(text[crash:])
        asked = text.rfind("Current thread 0x")  # where it stood when it was ended; see `launch`
        return text[asked:][:LOG_TAIL_BYTES] if asked >= 0 else text[-LOG_TAIL_BYTES:]

    def circumstances(self, exit_code: int | None) -> Circumstances:
        """What is known of how its newest worker died."""
        events = journal.tail(self.folder)
        before, now = self.claimed().get("oom_kills"), ram.oom_kills()
        still_seconds, halted = self.requests.stood_still()
        return Circumstances(
            exit_code=exit_code,
            log=self.log_tail(),
            memory=next((e for e in reversed(events) if isinstance(e, MemorySampled)), None),
            oom_killed=None if before is None or now is None else now > before,
            restarted=bool(events) and psutil.boot_time() > events[-1].time,
            by_force=self.requested("end"),
            still_seconds=still_seconds,
            halted=halted,
        )


@dataclass(frozen=True)
class RunSummary:
    """One row of the runs table, read from the job and the journal's end."""

    run: Run
    name: str
    state: State
    created: float  # Unix seconds
    model: str
    dataset: str
    step: int | None
    total_steps: int | None
    loss: float | None


def create(job: Job) -> Run:
    """Make the folder of a new run; its name is unique and made of plain letters."""
    parent = _parent(job)
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{_slug(job.name)}"
    folder = parent / stem
    count = 1
    while True:
        try:
            folder.mkdir()
            break
        except FileExistsError:
            count += 1
            folder = parent / f"{stem}-{count}"
    (folder / "requests").mkdir()
    write_text_atomic(folder / "job.json", job.model_dump_json(indent=2) + "\n")
    fsync_folder(parent)
    return Run(folder)


def revise(run: Run, job: Job, *, known: int | None = None) -> bool:
    """Let an ended run ask for something else when it goes on; what it asked before is kept.

    Args:
        known: how many revisions the caller knows of. Where there are more, somebody was faster:
            nothing is done, and the answer is False.

    Raises `UserError` while a worker has the run.
    """
    lock = run.worker_lock()
    try:
        lock.acquire(timeout=PROBE_SECONDS)
    except Timeout:
        raise UserError(
            "run_is_taken", "Another process is working on run {run}.", "Wait until it ends.",
            run=run.id,
        ) from None  # fmt: skip
    try:
        if known is not None and run.revisions() > known:
            return False
        path = run.folder / "job.json"
        made = path.stat()
        earlier = run.folder / f"job.{run.revisions() + 1}.json"
        write_text_atomic(earlier, path.read_text(encoding="utf-8"))
        write_text_atomic(path, job.model_dump_json(indent=2) + "\n")
        os.utime(path, ns=(made.st_atime_ns, made.st_mtime_ns))  # it says when the run was made
        return True
    finally:
        lock.release()


def _parent(job: Job) -> Path:
    match job:
        case TrainingJob():
            return runs_dir()
        case ExportJob():
            return export_runs_dir()
        case ProbeJob() | VerifyJob():  # what they find is told elsewhere
            return probe_runs_dir()


def clear_probes() -> None:
    """Remove what ended probes left behind, also those of a window that was killed.

    One that has just said its last word is given a moment to end, and one that has said none yet
    the time in which its worker may come.
    """
    for folder in probe_runs_dir().iterdir():
        if _waits_for_worker(folder):
            continue
        lock = Run(folder).worker_lock()
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=ENDING_SECONDS)
            lock.release()
            shutil.rmtree(folder, ignore_errors=True)


def _waits_for_worker(folder: Path) -> bool:
    if (folder / journal.FILE_NAME).exists():
        return False
    with contextlib.suppress(OSError):  # somebody else removes it
        return time.time() - folder.stat().st_mtime < UNBEGUN_SECONDS
    return True


def find(reference: str) -> Run:
    """The run with this id or in this folder. Raises `UserError` when there is none."""
    # os.path answers False where Path raises: a name too long, an unknown user's home.
    for folder in (os.path.join(runs_dir(), reference), os.path.expanduser(reference)):
        run_folders.put_back(Path(folder))
        if os.path.isfile(os.path.join(folder, "job.json")):
            return Run(Path(os.path.abspath(folder)))
    raise UserError(
        "run_missing",
        "There is no run {reference}.",
        "`python -m training_backend runs` lists the runs.",
        reference=reference,
    )


def list_runs() -> list[RunSummary]:
    """All readable runs, newest first. A damaged one is left out, not fatal."""
    found = []
    for folder in sorted(run_folders.listed(runs_dir()), reverse=True):
        if (folder / "job.json").is_file():
            with contextlib.suppress(UserError, OSError):
                found.append(summary(Run(folder)))
    return found


def summary(run: Run) -> RunSummary:
    """Raises `UserError` when the job file is damaged."""
    job = run.training_job()
    events = journal.tail(run.folder)
    metrics: MetricsLogged | None = None
    loss = RecentLoss()
    for event in events:
        if isinstance(event, MetricsLogged):
            metrics = event
            loss.add(event.step, event.loss)
    return RunSummary(
        run=run,
        name=job.name,
        state=_state(run, events[-1] if events else None),
        created=(run.folder / "job.json").stat().st_mtime,
        model=job.model.id,
        dataset=job.dataset.title,
        step=metrics.step if metrics else None,
        total_steps=metrics.total_steps if metrics else None,
        loss=loss.value,
    )


def settle(run: Run, exit_code: int | None = None, pid: int | None = None) -> Event | None:
    """Give a run whose worker died without a word its terminal event.

    Returns that event; None when the run needs none: it ended properly, lives, or is still
    waiting for its first worker. Whoever notices first writes it, guarded by the lock.

    Args:
        exit_code, pid: of the worker, where the caller is its parent.
    """
    lock = run.worker_lock()
    try:
        lock.acquire(timeout=PROBE_SECONDS)
    except Timeout:
        return None
    except OSError:  # its disk turned read-only: the person is told all the same
        missing = [] if run.is_alive() else _missing_end(run, exit_code, pid)
        return missing[-1] if missing else None
    try:
        missing = _missing_end(run, exit_code, pid)
        if not missing:
            return None
        try:
            writer = journal.JournalWriter(run.folder)
            lines = [writer.append(event) for event in missing]
            writer.close()
        except OSError:  # the disk is full: the person is told all the same
            logger.exception("the end of %s could not be written down", run.id)
            return missing[-1]
        return parse_event(lines[-1])
    finally:
        lock.release()


def _missing_end(run: Run, exit_code: int | None, pid: int | None) -> list[Event]:
    last = journal.last_event(run.folder)
    if last is None and exit_code is None:
        return []
    if not isinstance(last, TERMINAL_TYPES):
        return [ends.named(run.circumstances(exit_code))]
    if pid is None or not _died_unheard(run, exit_code, pid):
        return []
    known = replace(run.circumstances(exit_code), log="", memory=None)  # those are of another one
    saved = checkpoints.finished(run.checkpoints)
    started = RunStarted(
        run_id=run.id,
        folder=str(run.folder),
        attempt=1 + attempts(run.events()),
        resumed_from_step=saved[-1].step if saved else None,
        pid=pid,
    )
    return [started, ends.named(known)]


def _died_unheard(run: Run, exit_code: int | None, pid: int) -> bool:
    """Whether a worker that was to go on with an ended run died before its first word."""
    if exit_code in (0, 3) or run.claimed().get("pid") == pid:
        return False
    return f"process {pid} leaves it alone" not in run.log_tail()


def _state(run: Run, last: Event | None) -> State:
    match last:
        case RunCompleted():
            return "completed"
        case RunStopped():
            return "stopped"
        case RunFailed():
            return "failed"
        case RunInterrupted():
            return "interrupted"
    if run.is_alive():
        return "running"
    return "queued" if last is None else "interrupted"


def _of_crash(report: str) -> str:
    """What the thread that crashed was at; the other ones are told before it, libraries after."""
    report = report.partition("\nExtension modules:")[0]
    at = report.find("Current thread")
    if at > 0:
        report = f"{report.splitlines()[0]}\n\n{report[at:]}"
    return report[:LOG_TAIL_BYTES]


def attempts(events: list[Event]) -> int:
    """How many attempts a journal holds."""
    return sum(isinstance(event, RunStarted) for event in events)


def job_before(run: Run, events: list[Event]) -> TrainingJob | None:
    """The job of the last attempt in a journal, where the run was revised since; else None."""
    known = max((e.revision for e in events if isinstance(e, RunStarted)), default=None)
    earlier = None if known is None else run.folder / f"job.{known + 1}.json"
    if earlier is None or not earlier.exists():
        return None
    job = load_job(earlier)
    return job if isinstance(job, TrainingJob) else None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "run"
