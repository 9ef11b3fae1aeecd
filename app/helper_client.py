"""The window's link to its helper: a child process that does what needs a tokenizer.

Two threads per helper: one spawns it and sends, one reads. What is read reaches the GUI thread
as queued signals. Of each kind of request only the newest of its owner counts. A helper that
dies is replaced, and what it was asked is asked once more.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.process
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QObject, Qt, Signal, Slot
from shiboken6 import isValid

from training_backend import helper
from training_backend.errors import UserError, from_document

QUIT_SECONDS = 1.0

Answer = dict[str, Any]
Told = Callable[[Answer], None]

logger = logging.getLogger(__name__)


@dataclass
class _Asked:
    """A request that is under way, and who wants to hear of it."""

    document: Answer
    owner: QObject
    on_done: Told
    on_error: Callable[[Exception], None]
    on_progress: Told | None
    link: _Link | None = None
    retried: bool = False


class HelperClient(QObject):
    """Asks the helper; answers come on the GUI thread."""

    _answered = Signal(int, str, object)
    _died = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._links: dict[bool, _Link] = {}  # by whether torch is needed
        self._asked: dict[int, _Asked] = {}
        self._left: dict[int, _Link] = {}  # that still work at what is no longer wanted
        self._next_id = 0
        self._closed = False
        queued = Qt.ConnectionType.QueuedConnection
        self._answered.connect(self._on_answer, queued)
        self._died.connect(self._on_death, queued)

    def warm_up(self) -> None:
        """Start the helper, so that its first answer comes sooner."""
        self._link(needs_torch=False)

    def ask(
        self,
        kind: str,
        document: Answer,
        on_done: Told,
        on_error: Callable[[Exception], None],
        owner: QObject,
        on_progress: Told | None = None,
    ) -> None:
        """Ask for something; an earlier request of this kind and owner is forgotten.

        Args:
            kind: one of `helper.HANDLERS`.
            document: what belongs to the request, such as the job.
            owner: nothing is called once it is destroyed.
        """
        self.cancel(kind, owner)
        if self._closed:
            return
        self._next_id += 1
        document = {**document, "id": self._next_id, "kind": kind}
        asked = _Asked(document, owner, on_done, on_error, on_progress)
        self._asked[self._next_id] = asked
        self._send(asked)

    def cancel(self, kind: str, owner: QObject) -> None:
        """Forget what `owner` asked of this kind; nothing is called for it any more.

        What a destroyed one asked goes as well: the helper would do it before the next of its kind.
        """
        for id, asked in list(self._asked.items()):
            is_it = asked.document["kind"] == kind and asked.owner is owner
            if is_it or not isValid(asked.owner):
                del self._asked[id]
                if asked.link is not None:
                    self._left[id] = asked.link
                    asked.link.outgoing.put({"id": id, "kind": "cancel"})

    def is_asked(self, kind: str) -> bool:
        """Whether a request of this kind is under way."""
        return any(asked.document["kind"] == kind for asked in self._asked.values())

    def shutdown(self) -> None:
        """End the helper and wait for the threads; nothing is called any more."""
        self._closed = True
        self._asked.clear()
        links, self._links = list(self._links.values()), {}
        for link in links:
            link.close()
        for link in links:
            link.join()

    # ------------------------------------------------------------------------- under the hood

    def _link(self, needs_torch: bool) -> _Link:
        link = self._links.get(needs_torch)
        if link is None:
            link = self._links[needs_torch] = _Link(needs_torch, self._hand_over, self._bury)
        return link

    def _send(self, asked: _Asked) -> None:
        asked.link = self._link(asked.document["kind"] in helper.NEED_TORCH)
        asked.link.outgoing.put(asked.document)

    def _hand_over(self, answer: tuple[int, str, Answer]) -> None:
        with contextlib.suppress(RuntimeError):  # the window is gone
            self._answered.emit(*answer)

    def _bury(self, link: _Link) -> None:
        with contextlib.suppress(RuntimeError):
            self._died.emit(link)

    @Slot(int, str, object)
    def _on_answer(self, id: int, kind: str, document: Answer) -> None:
        asked = self._asked.get(id)
        if asked is None:  # no longer wanted
            if kind != "progress":
                self._let_go(self._left.pop(id, None))
            return
        if kind == "progress":
            if asked.on_progress is not None and isValid(asked.owner):
                asked.on_progress(document)
            return
        del self._asked[id]
        self._let_go(asked.link)
        if not isValid(asked.owner):
            return
        if kind == "done":
            asked.on_done(document)
        elif kind == "failed":
            asked.on_error(from_document(document))

    def _let_go(self, link: _Link | None) -> None:
        """End the helper that has torch, which takes hundreds of megabytes, once none asks it."""
        if link is None or link is not self._links.get(True):
            return
        links = [asked.link for asked in self._asked.values()]
        if not any(other is link for other in (*links, *self._left.values())):
            link.close()
            del self._links[True]

    @Slot(object)
    def _on_death(self, link: _Link) -> None:
        if self._closed:
            return
        self._left = {id: other for id, other in self._left.items() if other is not link}
        self._links = {key: other for key, other in self._links.items() if other is not link}
        for id, asked in list(self._asked.items()):
            if asked.link is not link:
                continue
            if asked.retried:
                del self._asked[id]
                if isValid(asked.owner):
                    asked.on_error(_died())
            else:
                asked.retried = True
                self._send(asked)


class _Link:
    """One helper process with the two threads that talk to it."""

    def __init__(
        self,
        needs_torch: bool,
        on_answer: Callable[[tuple[int, str, Answer]], None],
        on_death: Callable[[_Link], None],
    ) -> None:
        self.outgoing: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._needs_torch = needs_torch
        self._on_answer = on_answer
        self._on_death = on_death
        self._closing = False
        self._writer = threading.Thread(target=self._write, name="helper-writer", daemon=True)
        self._writer.start()

    def close(self) -> None:
        self._closing = True
        self.outgoing.put(None)

    def join(self) -> None:
        self._writer.join()

    def _write(self) -> None:
        """Spawn the helper, send what there is to send, and see it off."""
        context = multiprocessing.get_context("spawn")
        their_commands, commands = context.Pipe(duplex=False)
        answers, their_answers = context.Pipe(duplex=False)
        process = context.Process(
            target=helper.main,
            args=(their_commands, their_answers, self._needs_torch),
            name="lorasmith-helper",
        )
        try:
            process.start()
        except OSError:
            logger.exception("the helper could not be started")
            self._on_death(self)
            return
        # Python would wait at its exit for all its children.
        vars(multiprocessing.process)["_children"].discard(process)
        their_commands.close()
        their_answers.close()
        reader = threading.Thread(
            target=self._read, args=(answers,), name="helper-reader", daemon=True
        )
        reader.start()
        while (document := self.outgoing.get()) is not None:
            try:
                commands.send(document)
            except OSError:  # it is dead; the reader notices too, and sends the None
                break
        commands.close()
        if self._closing:
            process.join(QUIT_SECONDS)
            if process.is_alive():
                process.kill()
        reader.join()
        process.join()
        process.close()
        answers.close()
        if not self._closing:
            self._on_death(self)

    def _read(self, answers: Any) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._on_answer(answers.recv())
        self.outgoing.put(None)


def _died() -> UserError:
    return UserError(
        "helper_died",
        "The process that reads the data ended unexpectedly, twice.",
        "The data may need more memory than there is; its log is helper.log in the folder logs.",
    )
