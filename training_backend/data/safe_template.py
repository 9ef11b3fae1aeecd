"""The first rendering of a chat template, where it can do no harm.

A chat template is a program that comes with a model. jinja2's sandbox keeps it from files and
from Python, yet not from running for ever or filling the memory. So each template first
renders a few short conversations in a child process with limits, once; only one that behaves
there is used in this process. Light: the child imports neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import psutil

from training_backend.errors import UserError

MAX_SECONDS = 20.0  # for all renderings; a sound template takes milliseconds
MAX_START_SECONDS = 60.0  # of the process itself, on a busy machine
ORPHAN_CPU_SECONDS = 40
MAX_BYTES = 1_000_000_000
MAX_CHARACTERS = 2_000_000  # of one rendering
MAX_TEMPLATE_CHARACTERS = 1_000_000

FIELD = "model.id"  # the template comes with the model
CHOOSE_ANOTHER = (
    "Choose one of the standard chat templates (dataset.chat_template), or another model."
)


@dataclass(frozen=True)
class Rendering:
    """What came of one conversation: `text`, or None and the reason."""

    text: str | None
    error: str = ""


def render_safely(
    template: str, variables: Mapping[str, Any], requests: Sequence[Mapping[str, Any]]
) -> list[Rendering]:
    """Render every request in a bounded child process.

    Args:
        template: the source of a chat template.
        variables: the names of special tokens, as `bos_token`.
        requests: what a rendering gets: `messages`, and perhaps `tools` and
            `add_generation_prompt`.

    A request that the template refuses gives a `Rendering` without text. Raises `UserError`
    for a template that is no valid one, does not come to an end, or asks for too much.
    """
    document = json.dumps([template, dict(variables), list(requests)], sort_keys=True)
    return list(_cached(document))


def render_here(
    template: str, variables: Mapping[str, Any], request: Mapping[str, Any]
) -> Rendering:
    """As `render_safely`, in this process: for a template that behaved there before."""
    return Rendering(*_rendered(_compiled(template), dict(variables), dict(request)))


@functools.lru_cache(maxsize=64)
def _cached(document: str) -> tuple[Rendering, ...]:
    if len(document) > 2 * MAX_TEMPLATE_CHARACTERS:
        raise _refused("is far too long")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(theirs,), name="lorasmith-template", daemon=True)
    child.start()
    theirs.close()
    try:
        ours.send(document)
        _wait(ours, child, MAX_START_SECONDS)  # it has started
        ours.recv()
        _wait(ours, child, MAX_SECONDS)
        answer = ours.recv()
    except (EOFError, OSError):
        raise _refused("asks for more memory than a template may") from None
    finally:
        ours.close()
        child.kill()
        child.join()
    if isinstance(answer, str):
        raise _refused(answer)
    return tuple(Rendering(text, error) for text, error in answer)


def _wait(pipe: Connection, child: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    process = None
    while not pipe.poll(0.05):
        with contextlib.suppress(psutil.Error):
            process = process or psutil.Process(child.pid)
            if process.memory_info().rss > MAX_BYTES:  # where the system sets no limit itself
                raise _refused("asks for more memory than a template may")
        if time.monotonic() > until:
            raise _refused(f"does not come to an end within {seconds:.0f} seconds")


def _refused(clause: str) -> UserError:
    return UserError(
        "template_refused",
        "The chat template of this model {clause}.",
        CHOOSE_ANOTHER,
        field=FIELD,
        clause=clause,
    )


# --- in the child -----------------------------------------------------------------------


def _serve(pipe: Connection) -> None:
    document = pipe.recv()
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows; there the parent watches alone

        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Later than the parent's own limit: for a parent that was killed while it waited.
        resource.setrlimit(resource.RLIMIT_CPU, (ORPHAN_CPU_SECONDS, ORPHAN_CPU_SECONDS))
    template, variables, requests = json.loads(document)
    import jinja2

    try:
        program = _compiled(template)
    except jinja2.TemplateSyntaxError as error:
        pipe.send(None)
        pipe.send(f"is not a valid one (line {error.lineno}: {str(error.message)[:200]})")
        return
    except (MemoryError, RecursionError):
        pipe.send(None)
        pipe.send("is too large or too deeply nested")
        return
    pipe.send(None)
    pipe.send([_rendered(program, variables, request) for request in requests])


def _rendered(
    program: Any, variables: dict[str, Any], request: dict[str, Any]
) -> tuple[str | None, str]:
    given = {"tools": None, "documents": None, "add_generation_prompt": False, **request}
    pieces: list[str] = []
    length = 0
    try:
        for piece in program.generate(**variables, **given):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_CHARACTERS:
                return None, f"writes more than {MAX_CHARACTERS:,} characters"
    except MemoryError:
        return None, "asks for more memory than a template may"
    except Exception as error:  # whatever a template may raise is its refusal
        return None, str(error)[:300] or type(error).__name__
    return "".join(pieces), ""


def _compiled(source: str) -> Any:
    """The template, in an environment like that of transformers."""
    import datetime

    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks answers; here its body is simply rendered."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def as_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(source)
