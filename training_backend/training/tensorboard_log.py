"""A run's curves as TensorBoard reads them, in `<run>/tensorboard/`: one file an attempt. Light.

A file is a row of TFRecords: the length and its checksum, the data and its checksum. tensorboardX
knows the messages and the checksum. Its SummaryWriter is not used: that one writes from a thread,
and when the disk is full the thread dies and whoever has more to say waits for it for ever. Here
every record is written whole and at once, so that a killed run leaves what it said.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend.job import TrainingJob
from training_backend.protocol import (
    TERMINAL_TYPES,
    AnswersScored,
    CheckpointSaved,
    EvaluationLogged,
    Event,
    MemorySampled,
    MetricsLogged,
    SampleGenerated,
)
from training_backend.worker import Reporter

FOLDER = "tensorboard"
GIB = 2**30


def follow(job: TrainingJob, reporter: Reporter, resumed_from_step: int | None) -> None:
    """Write what is reported from now on, if the job asks for it.

    No failure of it ends the run: the person is told once, and that was it.
    """
    if not job.training.tensorboard:
        return

    def give_up(error: Exception) -> None:
        with contextlib.suppress(OSError):  # the journal's disk is full too: training will say so
            reporter.warn(
                "tensorboard_failed",
                "TensorBoard logs are no longer written ({reason}); the training goes on.",
                reason=getattr(error, "strerror", None) or error,
            )

    try:
        log = TensorBoardLog(reporter.run.folder / FOLDER, job, resumed_from_step, give_up)
    except Exception as error:
        give_up(error)
    else:
        reporter.listen(log.take)


class TensorBoardLog:
    """Turns events into records; safe to use from several threads.

    Args:
        resumed_from_step: what an earlier attempt said of later steps is void.
        on_failure: called once, when nothing more can be written.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        job: TrainingJob,
        resumed_from_step: int | None,
        on_failure: Callable[[Exception], None],
    ) -> None:
        # Only now, since its package imports torch.
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.proto.plugin_text_pb2 import TextPluginData
        from tensorboardX.proto.tensor_pb2 import TensorProto
        from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboardX.record_writer import masked_crc32c

        self._event, self._summary, self._checksum = event_pb2, summary_pb2, masked_crc32c
        self._tensor, self._shape, self._text = TensorProto, TensorShapeProto, TextPluginData
        self._prompts = job.evaluation.prompts
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._step = resumed_from_step or 0
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{os.getpid()}"
        self._file = (folder / name).open("ab", buffering=0)
        self._write(0, file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(0 if resumed_from_step is None else resumed_from_step + 1, session_log=start)
        indented = job.model_dump_json(indent=2).replace("\n", "\n    ")
        self._write_text(self._step, "job", f"    {indented}")

    def take(self, event: Event) -> None:
        """Write down an event, if it says something that TensorBoard shows."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._take(event)
            except Exception as error:
                failure = error
                with contextlib.suppress(OSError):
                    self._file.close()
            else:
                return
        self._on_failure(failure)

    def _take(self, event: Event) -> None:
        match event:
            case MetricsLogged():
                self._step = event.step
                self._write_scalars(
                    event.step,
                    {
                        "loss/train": event.loss,
                        "learning_rate": event.learning_rate,
                        "gradient_norm": event.grad_norm,
                        "tokens_per_second": event.tokens_per_second,
                        "reward/margin": event.reward_margin,
                        "reward/accuracy": event.reward_accuracy,
                    },
                )
            case EvaluationLogged():
                self._write_scalars(
                    event.step,
                    {
                        "loss/held_out": event.loss,
                        "perplexity/held_out": event.perplexity,
                        "reward/held_out_margin": event.reward_margin,
                        "reward/held_out_accuracy": event.reward_accuracy,
                    },
                )
            case MemorySampled(process_bytes=own, device_used_bytes=used):
                memory = {"memory/run_GiB": own and own / GIB, "memory/device_GiB": used / GIB}
                self._write_scalars(self._step, memory)
            case SampleGenerated(step=step, prompt=prompt, answer=answer):
                known = prompt in self._prompts
                tag = f"answers/{self._prompts.index(prompt) + 1 if known else 'own'}"
                tag += "_base" if event.base else ""
                self._write_text(step, tag, f"> {prompt}\n\n{answer}")
            case AnswersScored(step=step, scores=scores):
                before = {f"scores/{score.name}_base": score.before for score in scores}
                after = {f"scores/{score.name}": score.after for score in scores}
                self._write_scalars(step, {**before, **after})
            case CheckpointSaved():
                os.fsync(self._file.fileno())
            case _ if isinstance(event, TERMINAL_TYPES):
                self._file.close()

    def _write_scalars(self, step: int, values: dict[str, float | None]) -> None:
        known = [
            self._summary.Summary.Value(tag=tag, simple_value=value)
            for tag, value in values.items()
            if value is not None
        ]
        self._write(step, summary=self._summary.Summary(value=known))

    def _write_text(self, step: int, tag: str, text: str) -> None:
        """As TensorBoard's text plug-in has it; it shows Markdown, without any HTML."""
        about = self._summary.SummaryMetadata(
            plugin_data=self._summary.SummaryMetadata.PluginData(
                plugin_name="text", content=self._text(version=0).SerializeToString()
            )
        )
        tensor = self._tensor(
            dtype="DT_STRING",
            string_val=[text.encode("utf-8", "replace")],
            tensor_shape=self._shape(dim=[self._shape.Dim(size=1)]),
        )
        value = self._summary.Summary.Value(
            tag=f"{tag}/text_summary", metadata=about, tensor=tensor
        )
        self._write(step, summary=self._summary.Summary(value=[value]))

    def _write(self, step: int, **content: Any) -> None:
        """One record, by one call: what is cut off by a full disk or a kill is the last one."""
        event = self._event.Event(wall_time=time.time(), step=step, **content)
        data: bytes = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = [struct.pack("<I", self._checksum(part)) for part in (length, data)]
        record = length + checksums[0] + data + checksums[1]
        if self._file.write(record) != len(record):
            raise OSError("the disk is full")
