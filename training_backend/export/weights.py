"""The weight files of an export: laid out, room found, written or kept from the last attempt."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from training_backend import __version__
from training_backend.export import shards
from training_backend.export.partial import Partial
from training_backend.export.shards import OutTensor
from training_backend.job import ExportJob
from training_backend.paths import GB, require_free
from training_backend.protocol import Phase
from training_backend.worker import Reporter

BESIDE_BYTES = 50_000_000  # tokenizer, configuration and the like
PROGRESS_SECONDS = 0.1


class Weights:
    """What is to be written into a folder.

    `size` is what all files take together, `kept` what of it an interrupted export left there;
    both in bytes.

    Args:
        sources: the files that the model is made of; when one of them is another than at the
            last attempt, what that left is not kept.
        out: the partial folder, or one in it.

    Raises `UserError` when there is no room; `StopRequested`.
    """

    def __init__(
        self,
        tensors: list[OutTensor],
        sources: list[Path],
        job: ExportJob,
        out: Path,
        partial: Partial,
        reporter: Reporter,
    ) -> None:
        most = None if job.max_shard_gb is None else round(job.max_shard_gb * GB)
        self._shards = shards.plan(tensors, most)
        self._out = out
        self._partial = partial
        self._reporter = reporter
        self.size = sum(shard.size for shard in self._shards)
        self.kept = partial.begin(self._key(sources, job), reporter)
        require_free(out, self.size - self.kept + BESIDE_BYTES, "the model")

    @property
    def tensors(self) -> list[OutTensor]:
        return [tensor for shard in self._shards for tensor in shard.tensors]

    @property
    def paths(self) -> list[Path]:
        return [self._out / shard.name for shard in self._shards]

    def write(self, phase: Phase, detail: str = "") -> None:
        """Write what is not there yet, and the index; each file is on the disk, and read again.

        Raises what making a tensor raises, `OSError` when the disk is full, `StopRequested`.
        """
        self._reporter.phase(phase, 0.0, detail=detail)
        done = 0
        told = time.monotonic()

        def on_piece(size: int) -> None:
            nonlocal done, told
            done += size
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                self._reporter.phase(phase, min(1.0, done / self.size), detail=detail)

        for shard, path in zip(self._shards, self.paths, strict=True):
            if self._partial.has(path):
                done += shard.size
                continue
            self._partial.note(path, shards.write(shard, path, on_piece))
        shards.write_index(self._shards, self._out)

    def _key(self, sources: list[Path], job: ExportJob) -> str:
        """A hash of all that the files' bytes depend on, as far as it is quickly told."""
        stats = [(str(path), path.stat()) for path in sources]
        known = {
            "version": __version__,
            "merge": [job.base, job.dtype],
            "sources": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
            "files": [
                [str(path.relative_to(self._partial.folder)), hashlib.sha256(head).hexdigest()]
                for path, head in zip(self.paths, [s.head() for s in self._shards], strict=True)
            ],
        }
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()
