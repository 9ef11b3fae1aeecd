"""Does an export answer as what was trained? Asked of both, one after the other; told in words.

The reference is the 16-bit base with the adapter (or the model whose every weight was trained),
whatever the export is. Every model has a process of its own. The verdict is written into the
export's folder; one that is different stays, marked.
"""

from __future__ import annotations

import contextlib
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.computer import ram
from training_backend.errors import StopRequested, UserError
from training_backend.export import (
    gguf_tools,
    proof_files,
    proof_judge,
    proof_reading,
    proof_record,
)
from training_backend.export.child import ChildDied, ChildFailed, in_child
from training_backend.export.model_files import find_base
from training_backend.export.needs import proof_bytes
from training_backend.export.proof_judge import Judgement
from training_backend.export.proof_reading import Subject
from training_backend.job import ExportJob, VerifyJob
from training_backend.lifecycle import run_folders
from training_backend.models import adapters, weight_damage
from training_backend.models.adapters import Adapter
from training_backend.models.model_folder import count_parameters, weight_files
from training_backend.paths import export_runs_dir, gigabytes, require_free
from training_backend.protocol import ExportProved, ProofCheck, RunCompleted, Verdict
from training_backend.runs import Run
from training_backend.worker import Reporter

SCRATCH_BYTES = 1_000_000_000


def run(job: VerifyJob, reporter: Reporter) -> RunCompleted:
    """Prove an export of some time ago. Raises `UserError` for what is none."""
    folder = Path(job.folder).expanduser().absolute()
    format, quantization = proof_files.kind(folder)
    made = _made_by(folder)
    base = made.base if made else (proof_record.read(folder) or {}).get("base")
    asked = ExportJob(
        run=job.run,
        checkpoint=job.checkpoint or (made.checkpoint if made else None),
        format=format,
        quantization=quantization,
        base="4-bit" if base == "4-bit" else "16-bit",
        prompts=job.prompts,
        out=str(folder),
    )
    prove(asked, adapters.find_source(asked), reporter, may_fetch=True)
    return RunCompleted(folder=str(folder))


def _made_by(folder: Path) -> ExportJob | None:
    """What the export was asked for, where that is still known here."""
    for made in sorted(run_folders.listed(export_runs_dir()), reverse=True):
        with contextlib.suppress(UserError, OSError):
            job = Run(made).job()
            if isinstance(job, ExportJob) and _folder(job) == folder:
                return job
    return None


def prove(
    job: ExportJob, source: Adapter | Path, reporter: Reporter, *, may_fetch: bool = False
) -> ExportProved:
    """Ask an export that was written, measure, judge; write the verdict beside it, and say it.

    Whatever keeps it from being told ends in the verdict `not_proven`, never in an error: the
    export is whole. A request to stop ends the asking alone. What an earlier check found of the
    same files then stays.

    Args:
        source: what was exported, as `adapters.find_source` has it.
        may_fetch: the base model from the Hub, where it is not here.
    """
    folder, state = _folder(job), ""
    try:
        state = proof_record.state(folder)  # of what is asked, whatever becomes of it meanwhile
        judgement = _judged(job, source, reporter, may_fetch)
    except StopRequested:
        judgement = _not_proven("proof_stopped", "The check was stopped before its end.")
    except UserError as error:
        judgement = _of_error("not_proven", error, job, source)
    except MemoryError:
        judgement = _memory_ran_out()
    except ChildDied as death:
        traceback.print_exc()
        judgement = _memory_ran_out() if death.out_of_memory else _died(death)
    except (ChildFailed, OSError) as error:
        traceback.print_exc()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        judgement = _not_proven("proof_failed", "The check failed ({reason}).", reason=reason)
    proved = ExportProved(
        verdict=judgement.verdict,
        code=judgement.code,
        message=judgement.message,
        params={key: str(value) for key, value in judgement.params.items()},
        checks=judgement.checks,
    )
    try:
        kept = proof_record.standing(folder) if proved.verdict == "not_proven" else None
        if kept is None:
            proof_record.write(folder, job, proved, state)
        else:
            stays = f"{proved.message} What an earlier check found stays: {kept['message']}"
            proved = proved.model_copy(update={"message": stays, "kept": kept["verdict"]})
    except OSError as error:
        reporter.warn(
            "proof_not_written",
            "The verdict could not be written into the folder: {reason}.",
            reason=error.strerror or error,
        )
    reporter.emit(proved)
    return proved


def _judged(
    job: ExportJob, source: Adapter | Path, reporter: Reporter, may_fetch: bool
) -> Judgement:
    folder = _folder(job)
    reporter.phase("verifying", 0.0, detail="whether the files are whole")
    damage = weight_damage.find(folder)
    if damage is not None:
        return _damaged(damage, job, source)
    subject = _subject(job, source, reporter, may_fetch)
    parameters = count_parameters(weight_files(Path(subject.base or subject.trained))) or 0
    subject = _within_memory(subject, parameters)
    with _scratch(reporter) as scratch:
        work = partial(_in_child, reporter=reporter)
        reference = work(proof_reading.read_reference, subject, str(scratch), span=(0.02, 0.5))
        if _trained_in_four_bits(subject):
            four_bit = (subject, reference, str(scratch))
            found = work(proof_reading.read_four_bit, *four_bit, span=(0.5, 0.7))
            reference = replace(reference, four_bit=found)
        if job.format == "gguf_adapter":
            _write_base(subject, scratch, reporter)
        candidate = (subject, reference, str(scratch))
        try:
            measured = work(proof_reading.read_candidate, *candidate, span=(0.7, 1.0))
        except UserError as error:
            if error.code == proof_reading.BEYOND_ENGINE:
                raise
            return _damaged(error, job, source)
    if reference.unread:
        reporter.log(f"General questions were asked, since the data cannot be: {reference.unread}")
    kind = proof_judge.kind_of(subject.format, subject.quantization)
    return proof_judge.judge(reference, measured, kind, parameters)


def _write_base(subject: Subject, scratch: Path, reporter: Reporter) -> None:
    """The base model as GGUF, which llama.cpp puts the adapter on."""
    assert subject.base is not None
    size = sum(path.stat().st_size for path in weight_files(Path(subject.base)))
    require_free(scratch, size + SCRATCH_BYTES, "the base model as GGUF, to check the adapter")
    reporter.phase("verifying", 0.7, detail="writing the base model as GGUF")
    target = scratch / proof_reading.BASE_GGUF
    work = (gguf_tools.convert, subject.base, str(target), "auto", "base")
    in_child(*work, name="gguf", meanwhile=reporter.check_stop)


def _subject(
    job: ExportJob, source: Adapter | Path, reporter: Reporter, may_fetch: bool
) -> Subject:
    known: dict[str, Any] = {
        "folder": str(_folder(job)),
        "format": job.format,
        "quantization": job.quantization,
        "prompts": job.prompts,
    }
    if isinstance(source, Path):
        return Subject(base=None, trained=str(source), run=str(runs.find(job.run).folder), **known)
    return Subject(
        base=str(find_base(source, reporter, may_fetch=may_fetch)),
        trained=str(source.folder),
        run=None if source.run is None else str(source.run.folder),
        base_bits=job.base,
        **known,
    )


def _in_child(work: Any, *arguments: Any, reporter: Reporter, span: tuple[float, float]) -> Any:
    begin, end = span

    def tell(fraction: float | None, detail: str) -> None:
        reporter.phase("verifying", begin + (end - begin) * (fraction or 0.0), detail=detail)

    return in_child(work, *arguments, name="proof", meanwhile=reporter.check_stop, tell=tell)


@contextlib.contextmanager
def _scratch(reporter: Reporter) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = reporter.run.folder / "proof"
    shutil.rmtree(folder, ignore_errors=True)
    require_free(folder, SCRATCH_BYTES, "the check's own files")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trained_in_four_bits(subject: Subject) -> bool:
    job = subject.job()
    return bool(
        job is not None
        and subject.base is not None
        and subject.base_bits == "16-bit"
        and job.quantization.load_in_4bit
    )


def _within_memory(subject: Subject, parameters: int) -> Subject:
    """With as many bits as fit into memory. Raises `UserError` where not even 16 do."""
    free = ram.read().available_bytes
    for bits in (32, 16):
        needed = proof_bytes(parameters, bits)
        if needed <= free:
            return replace(subject, bits=bits)
    raise UserError(
        "proof_no_memory",
        "The check needs {needed_gb} GB of memory for the model in 16 bits; {free_gb} GB are free.",
        "Close other programs and check again, or check it on a computer with more memory.",
        needed_gb=gigabytes(needed),
        free_gb=gigabytes(free, round_up=False),
    )


def _damaged(error: UserError, job: ExportJob, source: Adapter | Path) -> Judgement:
    found = _of_error("different", error, job, source)
    check = ProofCheck(
        name="files", message=found.message, params=found.params, value=0.0, limit=1.0, passed=False
    )
    return replace(found, checks=(check,))


def _of_error(
    verdict: Verdict, error: UserError, job: ExportJob, source: Adapter | Path
) -> Judgement:
    """What is written beside an export names files and folders, not where they lie."""
    places = [str(value) for value in error.params.values() if isinstance(value, str | Path)]
    places = [place for place in places if "\n" not in place and Path(place).is_absolute()]
    places += [str(_folder(job)), str(source if isinstance(source, Path) else source.folder)]
    places.sort(key=len, reverse=True)

    def without(text: str) -> str:
        for place in places:
            text = text.replace(place, Path(place).name)
        return text

    params = {key: without(str(value)) for key, value in error.params.items()}
    return Judgement(verdict, error.code, without(str(error)), params)


def _memory_ran_out() -> Judgement:
    return _not_proven(
        "proof_memory_ran_out",
        "Memory ran out while it was checked. Close other programs and check again.",
    )


def _died(death: ChildDied) -> Judgement:
    return _not_proven(
        "proof_died",
        "The process that checks ended unexpectedly (exit code {exit_code}).",
        exit_code=death.exit_code,
    )


def _not_proven(code: str, template: str, **params: Any) -> Judgement:
    return Judgement("not_proven", code, template.format(**params), params)


def _folder(job: ExportJob) -> Path:
    return Path(job.out).expanduser().absolute()
