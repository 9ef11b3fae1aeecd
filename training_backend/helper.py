"""The window's helper: a child process that does what needs a tokenizer, for as long as asked.

Light at module level: the parent imports this module as its spawn target. Requests come over
one pipe and answers go back over another, each with the number of its request:

    {"id": 3, "kind": "preview", "job": {…}, "start": 0}      a request
    {"id": 3, "kind": "cancel"}                               the request 3 is not wanted any more
    (3, "progress", {…})  (3, "done", {…})  (3, "failed", {…})  (3, "stopped", {})

Of the Hub: `search_models` with "query" (and "licence", "gated", "max_parameters", "limit");
`model_info`, `download_model` and `discard_download` with "model" (and "revision"); `check_token`.
Of an export: `hand_off` with "folder", `to_ollama` with "folder" and "name", `to_lm_studio` with
"file" and "name"; `push_account`, `push_draft` with "folder" (and "repo"), and `push` with all that
`push.push` takes.

Each kind has a thread of its own, so that a row is shown while all rows are gone through. The
helper ends when its pipe closes, so it never outlives the window.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_backend import preferences
from training_backend.catalog import resolve_model
from training_backend.errors import StopRequested, UserError, as_document
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.child_process import detach, redirect_output, set_environment
from training_backend.paths import home

if TYPE_CHECKING:
    from training_backend.models.demo_model import DemoProgress

SHOWN_TOKENS = 4_000  # of one row
SHOWN_CHARACTERS = 30_000
SHOWN_CUT_CHARACTERS = 2_000  # of what `max_length` cuts off
PROGRESS_SECONDS = 0.1

Answer = dict[str, Any]
_loading = threading.Lock()  # transformers imports its parts lazily, and not from two threads


class Request:
    """One request with its way back; stops when it is cancelled."""

    def __init__(self, document: Answer, send: Callable[[tuple[int, str, Answer]], None]) -> None:
        self.id: int = document["id"]
        self.document = document
        self.cancelled = threading.Event()
        self._send = send
        self._told = 0.0

    def job(self) -> TrainingJob:
        """The job that it is about. Raises `UserError`."""
        job = parse_job(self.document["job"])
        assert isinstance(job, TrainingJob)
        return job

    def check_stop(self) -> None:
        """Raises `StopRequested` once it is cancelled."""
        if self.cancelled.is_set():
            raise StopRequested

    def answer(self, kind: str, document: Answer) -> None:
        self._send((self.id, kind, document))

    def progress(self, document: Answer) -> None:
        """Say how far it is, now and then."""
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            self.answer("progress", document)


def main(commands: Connection, answers: Connection, needs_torch: bool) -> None:
    """Spawn target. Serves until `commands` closes.

    Args:
        needs_torch: whether what will be asked needs torch. Without it transformers is there
            in one second rather than in four, and takes a fourth of the memory.
    """
    detach()
    set_environment()
    log = home() / "logs" / "helper.log"
    log.parent.mkdir(exist_ok=True)
    redirect_output(log, append=True)
    if not needs_torch:
        sys.modules["torch"] = None  # type: ignore[assignment]  # makes importing it fail
        _import_ahead()
    with contextlib.suppress(EOFError, OSError):
        _Server(commands, answers).serve()
    # The threads are in the middle of things that nobody waits for any more.
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


class _Server:
    """Reads requests and hands each to the thread of its kind."""

    def __init__(self, commands: Connection, answers: Connection) -> None:
        self._commands = commands
        self._answers = answers
        self._sending = threading.Lock()
        self._requests: dict[int, Request] = {}
        self._queues: dict[str, queue.SimpleQueue[Request]] = {}

    def serve(self) -> None:
        """Returns never; raises `EOFError` when the parent has gone."""
        while True:
            document = self._commands.recv()
            if document["kind"] == "cancel":
                request = self._requests.get(document["id"])
                if request is not None:
                    request.cancelled.set()
                continue
            request = Request(document, self._send)
            self._requests[request.id] = request
            self._queue(document["kind"]).put(request)

    def _queue(self, kind: str) -> queue.SimpleQueue[Request]:
        if kind not in self._queues:
            self._queues[kind] = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(kind,), name=kind, daemon=True).start()
        return self._queues[kind]

    def _work(self, kind: str) -> None:
        tokenizers = Tokenizers()  # not shared: tokenizers do not bear several threads
        while True:
            request = self._queues[kind].get()
            try:
                if request.cancelled.is_set():
                    raise StopRequested
                preferences.apply_to_environment()  # the switch may have been flipped
                request.answer("done", HANDLERS[kind](request, tokenizers))
            except StopRequested:
                request.answer("stopped", {})
            except UserError as error:
                request.answer("failed", as_document(error))
            except Exception as error:
                traceback.print_exc()
                request.answer("failed", as_document(_unexpected(error)))
            finally:
                self._requests.pop(request.id, None)

    def _send(self, answer: tuple[int, str, Answer]) -> None:
        with self._sending:
            try:
                self._answers.send(answer)
            except OSError:  # the window has gone
                os._exit(0)


class Tokenizers:
    """Keeps the tokenizer that was asked for last."""

    def __init__(self) -> None:
        self._key: tuple[str, str | None] | None = None
        self._tokenizer: Any = None
        self._own_template: Any = None

    def of(self, job: TrainingJob) -> Any:
        """The tokenizer of a job's model, if that is on this computer. Raises `UserError`."""
        key = (job.model.id, job.model.revision)
        if key != self._key:
            self._key = None
            with _loading:
                self._tokenizer = _local_tokenizer(job)
            self._own_template = self._tokenizer.chat_template
            self._key = key
        self._tokenizer.chat_template = self._own_template  # a job may have set another
        return self._tokenizer


# ------------------------------------------------------------------------- what can be asked


def _preview(request: Request, tokenizers: Tokenizers) -> Answer:
    """Row `start` as the model sees it, as much of it as can be shown."""
    from training_backend.data.preview import preview

    job = request.job()
    found = preview(job, tokenizers.of(job), 1, request.document["start"])
    found["rows"] = [_shown(row) for row in found["rows"]]
    return found


def _lengths(request: Request, tokenizers: Tokenizers) -> Answer:
    """Tokens of `rows` rows from `start` on."""
    from training_backend.data.preview import lengths

    job, asked = request.job(), request.document
    return {"lengths": lengths(job, tokenizers.of(job), asked["rows"], asked["start"])}


def _lint(request: Request, tokenizers: Tokenizers) -> Answer:
    from training_backend.data.lint import lint

    job = request.job()
    report = lint(
        job,
        tokenizers.of(job),
        near_duplicates=request.document.get("near_duplicates", False),
        on_progress=lambda rows: request.progress({"rows": rows}),
        should_stop=request.cancelled.is_set,
    )
    return report.document(job)


def _count(request: Request, tokenizers: Tokenizers) -> Answer:
    """The rows of every source; the progress tells so many so far."""
    from training_backend.data.reader import open_source

    counts: list[int] = []

    def tell(rows: int, share: float) -> None:
        request.progress({"rows": sum(counts) + rows, "share": share})

    for source in request.job().dataset.resolved_sources():
        counts.append(open_source(source).count(tell, request.cancelled.is_set))
    return {"counts": counts}


def _fetch_tokenizer(request: Request, tokenizers: Tokenizers) -> Answer:
    """Download the tokenizer of a model on the Hub; the weights stay where they are."""
    from training_backend.hub import downloads

    model = request.job().model
    id = resolve_model(model.id)
    if isinstance(id, str):
        downloads.fetch_tokenizer(id, model.revision, None, request.cancelled.is_set)
    return {}


def _prepare_demo(request: Request, tokenizers: Tokenizers) -> Answer:
    """Download and convert the demo model; needs torch."""
    from training_backend.models.demo_model import prepare_demo_model

    def report(progress: DemoProgress) -> None:
        if request.cancelled.is_set():
            raise StopRequested
        total = progress.total_bytes
        share = progress.done_bytes / total if total else None
        request.progress({"phase": progress.phase, "share": share})

    return {"folder": str(prepare_demo_model(report))}


def _search_models(request: Request, tokenizers: Tokenizers) -> Answer:
    from training_backend.hub import hub_models

    asked = request.document
    found = hub_models.search(
        asked["query"],
        licence=asked.get("licence") or "",
        gated=asked.get("gated"),
        max_parameters=asked.get("max_parameters"),
        limit=asked.get("limit", 30),
    )
    return {"models": [entry.to_json() for entry in found.models], "left_out": found.left_out}


def _model_info(request: Request, tokenizers: Tokenizers) -> Answer:
    """What a model on the Hub is, its files, and how much of them is here already."""
    from training_backend.hub import downloads, hub_models

    asked = request.document
    found = hub_models.info(asked["model"], asked.get("revision"))
    return {
        "entry": found.entry.to_json(),
        "total_bytes": found.total_bytes,
        "files": [{"name": file.name, "bytes": file.bytes} for file in found.files],
        "on_disk_bytes": downloads.on_disk_bytes(found),
        "problem": found.entry.problem,
    }


def _download_model(request: Request, tokenizers: Tokenizers) -> Answer:
    """Cancelling is a pause: what has arrived stays."""
    from training_backend.hub import downloads

    asked = request.document
    folder = downloads.fetch_model(
        asked["model"],
        asked.get("revision"),
        lambda progress: request.progress(asdict(progress)),
        request.cancelled.is_set,
    )
    return {"folder": str(folder)}


def _discard_download(request: Request, tokenizers: Tokenizers) -> Answer:
    from training_backend.hub import downloads

    downloads.discard(request.document["model"])
    return {}


def _check_token(request: Request, tokenizers: Tokenizers) -> Answer:
    """Whom the Hub takes the token for."""
    from training_backend.hub import hub_models

    return {"name": hub_models.token_owner()}


def _push_account(request: Request, tokenizers: Tokenizers) -> Answer:
    """Under which names the kept token may write."""
    from training_backend.hub import push_repo

    return asdict(push_repo.account())


def _push_draft(request: Request, tokenizers: Tokenizers) -> Answer:
    """What would be sent of the folder, and its card for `repo`."""
    from training_backend.summaries import push_draft

    asked = request.document
    folder = Path(asked["folder"])
    repo = asked.get("repo") or push_draft.name_for(folder)
    found = push_draft.draft(folder, repo)
    return {
        "repo": repo,
        "form": found.found.form,
        "files": [{"name": file.name, "bytes": file.bytes} for file in found.found.files],
        "left_out": list(found.found.left_out),
        "card": found.card.text,
        "picture": found.card.picture,
        "is_own": found.is_own,
        "verdict": found.verdict,
    }


def _push(request: Request, tokenizers: Tokenizers) -> Answer:
    """Cancelling is a pause: what has arrived stays there."""
    from training_backend.hub import push

    asked = request.document
    done = push.push(
        Path(asked["folder"]),
        asked["repo"],
        asked["card"],
        asked["picture"],
        private=asked["private"],
        renew=asked["renew"],
        on_progress=lambda progress: request.progress(asdict(progress)),
        should_stop=request.cancelled.is_set,
    )
    return asdict(done)


def _trace(request: Request, tokenizers: Tokenizers) -> Answer:
    """Find out what a step of the job's model allocates here, and keep it; needs torch."""
    from training_backend.computer.devices import this_device
    from training_backend.memory.trace_model import trace_job

    def report(share: float) -> None:
        if request.cancelled.is_set():
            raise StopRequested
        request.progress({"share": share})

    with _loading:
        found = trace_job(request.job(), this_device().kind != "cpu", report)
    return {"fingerprint": found.fingerprint, "parameters": found.parameters}


def _layers(request: Request, tokenizers: Tokenizers) -> Answer:
    """The linear layers of the job's model, which an adapter can be put on; needs torch."""
    from training_backend.models.model_layers import layers_of

    with _loading:
        return {"layers": [asdict(layer) for layer in layers_of(request.job())]}


def _script(request: Request, tokenizers: Tokenizers) -> Answer:
    """The job as a script; with "out", a folder, also its files. Needs torch."""
    from training_backend.script import folder

    job, out = request.job(), request.document.get("out")
    if out is None:
        with _loading:
            return {"text": folder.show(job)}
    written = folder.write(
        job,
        tokenizers.of(job),
        Path(out),
        lambda rows: request.progress({"rows": rows}),
        request.cancelled.is_set,
    )
    return {"files": written}


def _hand_off(request: Request, tokenizers: Tokenizers) -> Answer:
    """What the programs that run an export need of it."""
    from training_backend.export import hand_off

    return hand_off.look(Path(request.document["folder"])).document()


def _to_ollama(request: Request, tokenizers: Tokenizers) -> Answer:
    from training_backend.export import ollama

    asked = request.document
    ollama.create(
        Path(asked["folder"]),
        asked["name"],
        lambda share, words: request.progress({"share": share, "words": words}),
        request.check_stop,
    )
    return {}


def _to_lm_studio(request: Request, tokenizers: Tokenizers) -> Answer:
    from training_backend.export import lm_studio

    asked = request.document
    target = lm_studio.add(
        Path(asked["file"]),
        asked["name"],
        lambda share: request.progress({"share": share, "words": ""}),
        request.check_stop,
    )
    return {"file": str(target)}


HANDLERS: dict[str, Callable[[Request, Tokenizers], Answer]] = {
    "preview": _preview,
    "lengths": _lengths,
    "lint": _lint,
    "count": _count,
    "fetch_tokenizer": _fetch_tokenizer,
    "prepare_demo": _prepare_demo,
    "search_models": _search_models,
    "model_info": _model_info,
    "download_model": _download_model,
    "discard_download": _discard_download,
    "check_token": _check_token,
    "push_account": _push_account,
    "push_draft": _push_draft,
    "push": _push,
    "trace": _trace,
    "layers": _layers,
    "script": _script,
    "hand_off": _hand_off,
    "to_ollama": _to_ollama,
    "to_lm_studio": _to_lm_studio,
}
NEED_TORCH = frozenset({"prepare_demo", "trace", "layers", "script"})


def _local_tokenizer(job: TrainingJob) -> Any:
    from training_backend.hub.downloads import tokenizer_folder
    from training_backend.models.tokenizer import load_tokenizer

    found = resolve_model(job.model.id)
    folder = tokenizer_folder(found, job.model.revision) if isinstance(found, str) else found
    if folder is None:
        raise UserError(
            "model_not_here",
            "The model {model} is not on this computer yet.",
            "Download its tokenizer to see the rows as tokens.",
            field="model.id",
            model=job.model.id,
        )
    return load_tokenizer(folder)


def _shown(row: Answer) -> Answer:
    """A row without what no screen holds: the first tokens, and some of what is cut off."""
    text, tokens = row.pop("text"), row["tokens"]
    if row["truncated"]:
        kept = sum(len(token["text"]) for token in tokens)
        row["cut_text"] = text[kept : kept + SHOWN_CUT_CHARACTERS]
    shown, characters = [], 0
    for token in tokens[:SHOWN_TOKENS]:
        characters += len(token["text"])
        if characters > SHOWN_CHARACTERS:
            break
        shown.append(token)
    row["tokens"] = shown
    return row


def _unexpected(error: Exception) -> UserError:
    return UserError(
        "helper_unexpected",
        "Something unexpected went wrong ({kind}: {reason}).",
        "The details are in {log}.",
        kind=type(error).__name__,
        reason=(str(error).splitlines() or ["no reason given"])[0][:300],
        log=home() / "logs" / "helper.log",
    )


def _import_ahead() -> None:
    """Do the slow imports before the first request, in the one thread there is by then."""
    with contextlib.suppress(Exception):  # the request that needs them will tell
        from transformers import AutoTokenizer  # noqa: F401
