"""Work in a process of its own: it may crash, take all memory or hang, and can be ended any time.

It ends with the process that began it. Its output goes where ours goes. Light.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from training_backend.computer import ram
from training_backend.errors import UserError
from training_backend.lifecycle import child_process

POLL_SECONDS = 0.1
END_SECONDS = 10.0

# How far it is (0 to 1; None where that cannot be told), and with what.
Tell = Callable[[float | None, str], None]


class ChildDied(Exception):
    """The process ended without an answer.

    Attributes:
        exit_code: negative for a signal.
        out_of_memory: the system ended it for want of memory, as far as can be told.
    """

    def __init__(self, exit_code: int | None, out_of_memory: bool) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code
        self.out_of_memory = out_of_memory


class ChildFailed(Exception):
    """An error that nobody expected; its traceback is in the log."""


def in_child(
    work: Callable[..., Any],
    *arguments: Any,
    name: str,
    meanwhile: Callable[[], None] = lambda: None,
    tell: Tell | None = None,
    sees_card: bool = False,
) -> Any:
    """Have a function of some module do something in a process of its own.

    Arguments and result travel by pickle. What `meanwhile`, called ten times a second, raises ends
    the process at once.

    Args:
        work: is imported there by its name.
        name: of the process, as `gguf`.
        tell: gets what `work` tells, which then has a function for it as its first argument.
        sees_card: whether torch may use the graphics card.

    Raises `UserError`, `OSError` and `MemoryError` as `work` does; `ChildDied`; `ChildFailed`.
    """
    context = multiprocessing.get_context("spawn")
    answers, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_main,
        args=(theirs, work, arguments, tell is not None, sees_card),
        daemon=False,  # a chat template is first rendered in a child of its own
        name=f"lorasmith-{name}",
    )
    before = ram.oom_kills() or 0
    process.start()
    theirs.close()
    try:
        while True:
            while not answers.poll(POLL_SECONDS):
                meanwhile()
            kind, result = answers.recv()
            if kind != "told":
                break
            if tell is not None:
                tell(*result)
        process.join(END_SECONDS)  # a killed one would leave its semaphores
    except EOFError:
        process.join()
        killed = process.exitcode == -9 and (ram.oom_kills() or 0) > before
        raise ChildDied(process.exitcode, killed) from None
    finally:
        process.kill()
        process.join()
        answers.close()
    match kind:
        case "refused":
            raise _as_error(result)
        case "error":
            raise result
        case "failed":
            raise ChildFailed(result)
    return result


def _main(
    answers: Connection,
    work: Callable[..., Any],
    arguments: tuple[Any, ...],
    tells: bool,
    sees_card: bool,
) -> None:
    """Spawn target. Sends (kind, what): any number of `told`, then one of the others."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    child_process.set_environment()
    os.environ["HF_HUB_OFFLINE"] = "1"  # what is needed was fetched before
    if not sees_card:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def told(fraction: float | None, detail: str) -> None:
        answers.send(("told", (fraction, detail)))

    try:
        answers.send(("done", work(*([told] if tells else []), *arguments)))
    except UserError as error:
        params = {key: str(value) for key, value in error.params.items()}
        answers.send(("refused", (error.code, error.message, error.remedy, error.field, params)))
    except MemoryError:
        answers.send(("error", MemoryError()))
    except OSError as error:
        traceback.print_exc()
        answers.send(("error", OSError(error.errno, error.strerror or str(error), error.filename)))
    except Exception as error:
        traceback.print_exc()
        answers.send(("failed", f"{type(error).__name__}: {error}"[:500]))


def _as_error(sent: tuple[str, str, str, str | None, dict[str, str]]) -> UserError:
    """A `UserError` formats its texts; those that were sent are so already."""
    code, message, remedy, field, params = sent
    texts = [text.replace("{", "{{").replace("}", "}}") for text in (message, remedy)]
    return UserError(code, *texts, field=field, **params)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
