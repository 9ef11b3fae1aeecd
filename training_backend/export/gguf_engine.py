"""llama.cpp's library: what a GGUF file answers, and with which certainty.

Only ever used in a process of its own (`child`), which the library may take along when it
crashes. The library is that of `ik-llama-cpp-python`, built for all platforms; it runs on
the processor, and reads the weights from the file as it needs them.

Reference: https://github.com/ikawrakow/ik_llama.cpp/blob/main/include/llama.h
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training_backend.data.safe_template import render_here
from training_backend.errors import UserError
from training_backend.export import gguf_file
from training_backend.export.proof_speaker import Messages

# Tokens that are read at once: their logits, of 150,000 words, are 38 MB.
AT_ONCE = 64
MOST_CONTEXT = 4_096

Logits = npt.NDArray[np.float32]


class CannotUse(UserError):
    """llama.cpp cannot do something with a file; `reason` follows a colon."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(
            "gguf_not_usable",
            "llama.cpp cannot use {name}: {reason}.",
            "Export it again, or in another format.",
            field="format",
            name=file.name,
            reason=reason,
        )


class Engine:
    """A GGUF file in llama.cpp, a `Speaker`. Close it, or use it as a context manager.

    Args:
        adapter: a GGUF adapter to put over the file.
        context: the most tokens that a chat and its answer may have; 0 for the tokenizer alone.
        check: look at every weight whether it is a number; reads the whole file once. Without a
            context too.

    Raises `UserError` for a damaged file, and `CannotUse`.
    """

    def __init__(
        self,
        file: Path,
        *,
        adapter: Path | None = None,
        context: int = 1_024,
        check: bool = False,
    ) -> None:
        self._context: int | None = None
        self._model: int | None = None
        self.file = gguf_file.read(file)  # the library trusts what is in it
        from ik_llama_cpp import _ctypes_api as api

        self._api = api
        self._said = _listen(api._lib)
        api.llama_backend_init()
        settings = api.llama_model_default_params()
        settings.vocab_only = context == 0 and not check
        settings.check_tensors = check
        self._model = api.llama_model_load_from_file(str(file).encode(), settings)
        if not self._model:
            raise self._failed("it does not load")
        self.vocabulary = int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model)))
        if context:
            self._begin(min(context, MOST_CONTEXT), adapter)

    def _begin(self, context: int, adapter: Path | None) -> None:
        api = self._api
        settings = api.llama_context_default_params()
        settings.n_ctx = self.context = -(-context // AT_ONCE) * AT_ONCE
        settings.n_batch = settings.n_ubatch = AT_ONCE
        settings.n_threads = settings.n_threads_batch = _threads()
        if adapter is not None:  # what is fused passes an adapter by
            settings.flash_attn = settings.fused_up_gate = settings.fused_moe_up_gate = False
        self._context = api.llama_init_from_model(self._model, settings)
        if not self._context:
            raise self._failed("there is no memory for it")
        if adapter is not None:
            self._put_on(adapter)

    def _put_on(self, adapter: Path) -> None:
        library = self._api._lib
        load, use = library.llama_lora_adapter_init, library.llama_lora_adapter_set
        load.argtypes, load.restype = (ctypes.c_void_p, ctypes.c_char_p), ctypes.c_void_p
        use.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float)
        use.restype = ctypes.c_int32
        self._adapter = load(self._model, str(adapter).encode())
        if not self._adapter or use(self._context, self._adapter, 1.0) != 0:
            raise self._failed("the adapter does not fit")

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._context:
            self._api.llama_free(self._context)
        if self._model:
            self._api.llama_free_model(self._model)  # and its adapter
        self._context = self._model = None

    def prompt(self, messages: Messages) -> str | None:
        """A chat in the file's own template, up to where the answer begins; None: it has none.

        A template of unknown origin is tried with `gguf_file.try_template` before. Raises
        `UserError` where the template refuses the chat.
        """
        if not self.file.template:
            return None
        rendering = render_here(*gguf_file.chat(self.file, messages))
        if rendering.text is None:
            raise self._failed(f"its chat template refuses a chat ({rendering.error})")
        return rendering.text

    def read(self, text: str, *, is_chat: bool) -> list[int]:
        """Token ids as llama.cpp's server makes them.

        The file's own flags say whether a beginning (BOS) and an end (EOS) are added. Where one
        is, the server takes off the BOS that a chat's template wrote (common/chat.cpp).

        Args:
            is_chat: a rendered chat, in which special tokens are written out; else plain text.
        """
        if is_chat and self.adds_bos:
            text = text.removeprefix(self.file.token_text("bos"))
        data = text.encode()
        room = len(data) + 8
        ids = (self._api.llama_token * room)()
        count = self._api.llama_tokenize(self._model, data, len(data), ids, room, True, is_chat)
        if count < 0:
            raise self._failed("it cannot read a text")
        return list(ids[:count])

    @property
    def begin(self) -> int | None:
        """The token for the beginning of a text, where the file names one."""
        token = self.file.metadata.get("tokenizer.ggml.bos_token_id")
        return token if isinstance(token, int) else None

    @property
    def adds_bos(self) -> bool:
        """Whether the file has llama.cpp put a beginning (BOS) before every text."""
        return self._flag("llama_vocab_get_add_bos")

    @property
    def adds_eos(self) -> bool:
        """Whether the file has llama.cpp put an end (EOS) after every text."""
        return self._flag("llama_vocab_get_add_eos")

    @functools.cached_property
    def ends(self) -> frozenset[int]:
        """The tokens at which llama.cpp ends an answer."""
        is_end = self._api.llama_token_is_eog
        return frozenset(token for token in range(self.vocabulary) if is_end(self._model, token))

    def logits(self, tokens: Sequence[int], last: int) -> Logits:
        """Float32 [last, vocabulary]: of what follows each of the last tokens, in order.

        Raises `CannotUse` when one is no number, `ValueError` when there are more tokens than
        the context holds.
        """
        if len(tokens) > self.context:
            raise ValueError(f"{len(tokens)} tokens do not go into a context of {self.context}")
        self._api.llama_kv_cache_clear(self._context)
        rows = np.empty((last, self.vocabulary), np.float32)
        for begin in range(0, len(tokens), AT_ONCE):
            part = tokens[begin : begin + AT_ONCE]
            skip = min(len(part), max(0, len(tokens) - last - begin))
            first = begin + skip - (len(tokens) - last)
            rows[first : first + len(part) - skip] = self._decode(part, begin, skip)
        return rows

    def answer(self, tokens: Sequence[int], most: int) -> list[int]:
        """The likeliest tokens after a prompt, one by one; an end is the last one if it came.

        Raises as `logits` does.
        """
        likeliest = int(self.logits(tokens, 1)[0].argmax())
        written = [likeliest]
        while likeliest not in self.ends and len(written) < min(most, self.context - len(tokens)):
            rows = self._decode([likeliest], len(tokens) + len(written) - 1, 0)
            likeliest = int(rows[0].argmax())
            written.append(likeliest)
        return written

    def _decode(self, tokens: Sequence[int], begin: int, skip: int) -> Logits:
        """Read tokens at places from `begin` on; what follows each but the first `skip`."""
        api = self._api
        batch = api.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for place, token in enumerate(tokens):
                batch.token[place] = token
                batch.pos[place] = begin + place
                batch.n_seq_id[place] = 1
                batch.seq_id[place][0] = 0
                batch.logits[place] = place >= skip
            if api.llama_decode(self._context, batch) != 0:
                raise self._failed("it cannot compute with it")
        finally:
            api.llama_batch_free(batch)
        rows = np.empty((len(tokens) - skip, self.vocabulary), np.float32)
        for row, place in enumerate(range(skip, len(tokens))):
            got = api.llama_get_logits_ith(self._context, place)
            rows[row] = np.ctypeslib.as_array(got, (self.vocabulary,))
        if not np.isfinite(rows).all():
            raise self._failed("what it computes are no numbers")
        return rows

    def _flag(self, name: str) -> bool:
        ask = getattr(self._api._lib, name)
        ask.argtypes, ask.restype = (ctypes.c_void_p,), ctypes.c_bool
        return bool(ask(self._api.llama_model_get_vocab(self._model)))

    def _failed(self, what: str) -> CannotUse:
        """With what the library said first; its last line only says that it failed."""
        reasons = [line.partition(": ")[2] for line in self._said[:-1]]
        return CannotUse(self.file.path, f"{what} ({'; '.join(reasons[:2])})" if reasons else what)


def _threads() -> int:
    """As many as torch would take; they wait for one another, so a busy core holds up all."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() else os.cpu_count() or 1


_ERROR = 4  # `enum ggml_log_level`
_listeners: list[Any] = []  # the library calls it for as long as the process lives


def _listen(library: Any) -> list[str]:
    """The errors that the library tells from now on, a line each; they go to the log too."""
    said: list[str] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    def hear(level: int, text: bytes, _: int | None) -> None:
        line = text.decode(errors="replace").strip()
        if level == _ERROR and line:
            print(line, file=sys.stderr)
            said.append(line)

    _listeners.append(hear)
    library.llama_log_set(hear, None)
    return said
