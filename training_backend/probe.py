"""The probe: one real step on the longest rows, before hours are spent on many.

It loads and builds everything as training does and takes two optimizer steps: the first makes
the optimizer's states, so the peak is in the second. What it measured is stored and replaces the
estimate. Running out of memory is a result like any other.
"""

from __future__ import annotations

import gc
import math
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from training_backend import train, vram
from training_backend.computer import devices
from training_backend.computer.devices import Device
from training_backend.computer.nvidia import GpuReader
from training_backend.data import longest
from training_backend.data.longest import LongestRow
from training_backend.errors import UserError
from training_backend.job import ProbeJob, TrainingJob
from training_backend.memory import memory_records
from training_backend.memory.trace_model import trace_job
from training_backend.memory.tracing.storages import StorageTracker
from training_backend.models import base_model
from training_backend.models.base_files import base_folder
from training_backend.models.tokenizer import load_tokenizer
from training_backend.protocol import MemoryMeasured, RunCompleted, RunStopped
from training_backend.worker import Reporter

STEPS = 2
SAMPLE_SECONDS = 0.01
OBEY_SECONDS = 0.25


def run(asked: ProbeJob, reporter: Reporter) -> RunCompleted:
    """Measure the job's memory. Raises `UserError` where it could not even begin to train.

    A request to stop is obeyed within a second, in the midst of a step too.
    """
    model = asked.job.model
    reporter.phase("loading", detail="the tokenizer and the data")
    base = base_folder(model.id, model.revision, reporter)  # stops by itself, keeping what arrived
    with _obeying_stop(reporter):
        reporter.emit(_Probe(asked.job, base, reporter).measure())
    return RunCompleted(folder=str(reporter.run.folder))


@contextmanager
def _obeying_stop(reporter: Reporter) -> Iterator[None]:
    """A step may take minutes and leaves nothing behind: the process just ends."""
    done = threading.Event()
    ending = threading.Lock()

    def watch() -> None:
        while not done.wait(OBEY_SECONDS):
            if reporter.stop_requested():
                with ending:
                    if not done.is_set():
                        reporter.end_now(RunStopped(), 3)

    threading.Thread(target=watch, name="stop-watch", daemon=True).start()
    try:
        yield
    finally:
        with ending:
            done.set()


@dataclass
class _Probe:
    """One measurement, and how far it has come."""

    job: TrainingJob
    base: Path
    reporter: Reporter
    doing: str = "while the model was loaded"
    device: Device = field(default_factory=devices.this_device)
    row: LongestRow = field(default_factory=lambda: LongestRow([], [], (), False))
    meter: _Meter = field(default_factory=lambda: _Meter())

    def measure(self) -> MemoryMeasured:
        try:
            return self._measure()
        except (MemoryError, RuntimeError, UserError) as error:
            if not _out_of_memory(error):
                raise
            traceback.print_exc()
        gc.collect()  # what the failed step held goes with the traceback
        return self._result(fits=False, ran_out=self.doing)

    def _measure(self) -> MemoryMeasured:
        job, reporter = self.job, self.reporter
        start = train.start_of(job, str(self.base))
        tokenizer = load_tokenizer(self.base)
        reporter.phase("tokenising", detail="the longest row")
        self.row = longest.longest_row(job, tokenizer, reporter.stop_requested)
        model = base_model.load_model(job, self.base, reporter)
        # A second batch meets the gradients of the first; more change nothing.
        batches = min(2, job.training.gradient_accumulation_steps)
        short = _shortened(job, batches)
        rows = longest.batches(self.row, short, STEPS * batches)
        staging = reporter.run.folder / "staging"
        trainer = train.make_trainer(short, model, tokenizer, rows, None, start, staging)
        trainer.args.save_strategy = SaveStrategy.NO
        trainer.args.train_sampling_strategy = "sequential"
        steps = _Steps(self, batches)
        trainer.add_callback(steps)
        self.doing = "in the first step"
        with self.meter.running(), steps.tracked:
            trainer.train()
        self.doing = "after the last step"
        parts, paged = _parts(trainer)
        seconds = steps.seconds / batches * job.training.gradient_accumulation_steps
        return self._result(fits=True, parts=parts, paged=paged, seconds_per_step=seconds)

    def _result(
        self,
        *,
        fits: bool,
        ran_out: str = "",
        parts: dict[str, int] | None = None,
        paged: int = 0,
        seconds_per_step: float | None = None,
    ) -> MemoryMeasured:
        meter, tokens = self.meter, len(self.row.input_ids)
        meter.read()
        known = dict(parts or {})
        if parts is not None and meter.allocated is not None:
            known["activations"] = max(0, meter.allocated + paged - sum(parts.values()))
            known["overhead"] = max(0, meter.held - meter.allocated)
        # Where the driver lends the computer's RAM instead of failing, too much is no error.
        fits = fits and meter.held <= self.device.available_bytes + meter.before
        estimate = self._estimate(tokens)
        if fits and estimate is not None:
            memory_records.remember(
                self.job, self.device, estimate, meter.held, longest_tokens=tokens
            )
        return MemoryMeasured(
            device=self.device.kind,
            device_name=self.device.name,
            device_total_bytes=self.device.total_bytes,
            fits=fits,
            ran_out=ran_out,
            measured_bytes=meter.held,
            allocated_bytes=meter.allocated,
            reserved_bytes=meter.reserved,
            estimate_bytes=estimate,
            parts=known,
            longest_tokens=tokens,
            full_length=tokens >= self.job.training.max_length or self.job.training.packing,
            seconds_per_step=seconds_per_step,
            run_seconds=None if seconds_per_step is None else self._run_seconds(seconds_per_step),
        )

    def _estimate(self, tokens: int) -> int | None:
        """What is estimated for rows as long as those that were measured."""
        training = self.job.training
        length = training.max_length if training.packing else max(8, tokens)
        job = _with(self.job, max_length=length)
        try:
            try:
                return self._uncorrected(job)
            except vram.TraceNeeded:
                trace_job(job, self.device.kind != "cpu")
                return self._uncorrected(job)
        except UserError:  # a model that cannot be traced can still be measured
            return None

    def _uncorrected(self, job: TrainingJob) -> int:
        return vram.estimate_job(job, self.device, corrected=False).total_bytes

    def _run_seconds(self, seconds_per_step: float) -> float | None:
        """The whole run at the speed of the measured step; usual batches are shorter."""
        training = self.job.training
        share = 1.0 if training.packing else longest.usual_share(self.row, self.job)
        steps = self._steps()
        return None if steps is None else steps * seconds_per_step * share

    def _steps(self) -> int | None:
        """Steps of the whole run; None when the data is longer than there was time to count."""
        training = self.job.training
        if training.max_steps > 0:
            return training.max_steps
        if not self.row.lengths or not self.row.complete:
            return None
        rows = len(self.row.lengths) * (1 - self.job.evaluation.held_out_fraction)
        if training.packing:
            rows = sum(self.row.lengths) / training.max_length
        batches = math.ceil(rows / training.per_device_train_batch_size)
        per_epoch = math.ceil(batches / training.gradient_accumulation_steps)
        return math.ceil(per_epoch * training.num_train_epochs)


class _Steps(TrainerCallback):  # type: ignore[misc]
    """Times the steps and says how far they are."""

    def __init__(self, probe: _Probe, batches: int) -> None:
        self._probe = probe
        self._batches = batches
        self._done = 0
        self._began = self._step_began = time.monotonic()
        self.seconds = 0.0
        self.tracked = ExitStack()  # entered for the second step

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()
        self._tell()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_began = time.monotonic()
        if state.global_step == STEPS - 1:
            there = _storages(kwargs["model"].parameters()) + _states(kwargs["optimizer"])
            self.tracked.enter_context(self._probe.meter.tracking(there))

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._done += 1
        self._tell()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        # The first step warms a card up; on the CPU, tracking slows the second one.
        if state.global_step == STEPS or (not torch.cuda.is_available() and not self.seconds):
            self.seconds = time.monotonic() - self._step_began
        self._probe.doing = "in the second step"
        self._done += 1
        self._tell()

    def _tell(self) -> None:
        total = STEPS * self._batches
        took = time.monotonic() - self._began
        self._probe.reporter.phase(
            "measuring",
            fraction=self._done / total,
            detail=f"{len(self._probe.row.input_ids):,} tokens a row",
            seconds_left=took / self._done * (total - self._done) if self._done else None,
        )


class _Meter:
    """What the process holds of the device: now, and at most while steps are `running`.

    `held` counts everything, the driver's context or the libraries included; `allocated` are
    tensors alone, `reserved` what torch's allocator keeps; `before` was held when the device was
    looked at. Bytes.
    """

    def __init__(self) -> None:
        self.held = 0
        self.allocated: int | None = None
        self.reserved: int | None = None
        self._gpu = GpuReader() if torch.cuda.is_available() else None
        self._process = psutil.Process()
        sample = self._gpu.read() if self._gpu else None
        self._used_before = sample.used_bytes if sample else 0
        self.before = 0 if self._gpu else self._process.memory_info().rss

    def read(self) -> None:
        if self._gpu is None:
            self.held = max(self.held, self._process.memory_info().rss)
            return
        self.allocated = torch.cuda.max_memory_allocated()
        self.reserved = torch.cuda.max_memory_reserved()
        sample = self._gpu.read()
        if sample is None:
            self.held = self.reserved
            return
        # Not told on Windows and in containers: then what the card holds more than before.
        beyond = sample.used_bytes - self._used_before - torch.cuda.memory_reserved()
        told = sample.process_bytes or torch.cuda.memory_reserved() + max(0, beyond)
        self.held = max(self.held, told, self.reserved)

    @contextmanager
    def running(self) -> Iterator[None]:
        if self._gpu is not None:
            torch.cuda.reset_peak_memory_stats()
            yield
            self.read()
            return
        done = threading.Event()

        def sample() -> None:
            while not done.wait(SAMPLE_SECONDS):
                self.read()

        thread = threading.Thread(target=sample, name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    @contextmanager
    def tracking(self, there: list[torch.Tensor]) -> Iterator[None]:
        """Count tensors on the CPU, where torch does not; it slows what goes on by half.

        Args:
            there: the tensors that exist already.
        """
        if self._gpu is not None:
            yield
            return
        tracker = StorageTracker()
        tracker.ignore(there)
        try:
            with tracker:
                yield
        finally:
            self.allocated = tracker.peak_bytes + _bytes(there)


def _parts(trainer: Any) -> tuple[dict[str, int], int]:
    """Bytes of what stays from step to step, by the names of `vram.Part`; and of the optimizer's
    those that are paged, which torch's allocator knows nothing of."""
    model = trainer.model
    trained = [p for p in model.parameters() if p.requires_grad]
    states = _states(trainer.optimizer)
    paged = sum(value.nbytes for value in states if getattr(value, "is_paged", False))
    parts = {
        "weights": _bytes(_storages(p for p in model.parameters() if not p.requires_grad)),
        "adapter": sum(p.nbytes for p in trained),
        # Freed by now; they are as large as what is trained.
        "gradients": sum(p.nbytes for p in trained),
        "optimizer": sum(value.nbytes for value in states),
    }
    return parts, paged


def _storages(parameters: Iterable[Any]) -> list[torch.Tensor]:
    """One tensor for each storage that the parameters lie in: tied weights share theirs."""
    found = {
        tensor.untyped_storage()._cdata: tensor
        for parameter in parameters
        for tensor in (parameter, *_constants(parameter))
    }
    return list(found.values())


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def _states(optimizer: Any) -> list[torch.Tensor]:
    """What the optimizer keeps; accelerate wraps it."""
    return [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    ]


def _constants(parameter: Any) -> list[torch.Tensor]:
    """What a 4-bit weight needs to be unpacked: scales, and with double quantisation theirs."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return []
    nested = getattr(state, "state2", None)
    found = [state.absmax, state.code, *([nested.absmax, nested.code] if nested else [])]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]


def _shortened(job: TrainingJob, batches: int) -> TrainingJob:
    """The job with as many steps as are measured, and nothing else to do."""
    return _with(job, max_steps=STEPS, gradient_accumulation_steps=batches, logging_steps=STEPS)


def _with(job: TrainingJob, **training: Any) -> TrainingJob:
    return job.model_copy(update={"training": job.training.model_copy(update=training)})


def _out_of_memory(error: BaseException) -> bool:
    """Torch says so in words where it has no type for it: on the CPU, and in some of CUDA."""
    if isinstance(error, UserError):  # what came of loading the model
        return error.__cause__ is not None and _out_of_memory(error.__cause__)
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
    )
