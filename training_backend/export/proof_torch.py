"""Models of the proof in transformers and PEFT: the reference, and exports that these load.

All in 32-bit arithmetic where memory allows, so that what differs are the weights.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig

from training_backend.data.bounded import bounded
from training_backend.errors import UserError
from training_backend.export.proof_speaker import Array, Messages
from training_backend.training import sampling


class TorchSpeaker:
    """A model in memory with its tokenizer; see `proof_speaker.Speaker`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        named = model.generation_config.eos_token_id
        self._ends = frozenset(named if isinstance(named, list) else [named]) - {None}
        # How its makers have it pick words is no matter here: answers are greedy.
        model.generation_config = GenerationConfig()

    @property
    def vocabulary(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def ends(self) -> frozenset[int]:
        return self._ends

    @property
    def begin(self) -> int | None:
        token: int | None = self.tokenizer.bos_token_id
        return token

    def prompt(self, messages: Messages) -> str | None:
        return self._rendered(messages, add_generation_prompt=True)

    def whole(self, messages: Messages) -> str | None:
        """A chat with its answers, closed as the template closes it."""
        return self._rendered(messages, add_generation_prompt=False)

    def _rendered(self, messages: Messages, add_generation_prompt: bool) -> str | None:
        if not self.tokenizer.chat_template:
            return None
        try:
            with bounded():
                text: str = self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
                )
        except UserError:
            raise
        except Exception as error:  # a template raises whatever it likes
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                "template_refuses",
                "The chat template refuses a chat ({reason}).",
                reason=reason[:200],
            ) from None
        return text

    def read(self, text: str, *, is_chat: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=not is_chat).input_ids
        return ids

    @torch.inference_mode()
    def logits(self, tokens: Sequence[int], last: int) -> Array:
        ids = torch.tensor([tokens], device=self.model.device)
        found = self.model(input_ids=ids, logits_to_keep=last, use_cache=False).logits[0, -last:]
        array: Array = found.float().cpu().numpy()
        return array

    @torch.inference_mode()
    def answer(self, tokens: Sequence[int], ends: frozenset[int], most: int) -> list[int]:
        """The greedy answer, with the token that ends it where it came to that."""
        ids = torch.tensor([tokens], device=self.model.device)
        whole = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=sorted(ends) or None,
            pad_token_id=self.tokenizer.pad_token_id,
            stopping_criteria=[sampling.Limits(lambda: None)],
            use_cache=True,
        )
        new: list[int] = whole[0, len(tokens) :].tolist()
        return new

    def close(self) -> None:
        self.model = None
        gc.collect()


def with_adapter(model: Any, folder: str) -> Any:
    """The model with a PEFT adapter on it, which computes in 32 bits.

    Raises `UserError` where PEFT cannot put it on.
    """
    if not (Path(folder) / "adapter_model.safetensors").is_file():  # never a pickle
        raise _unfit(folder, "adapter_model.safetensors is missing")
    try:
        return PeftModel.from_pretrained(model, folder).eval()
    except MemoryError:
        raise
    except Exception as error:
        raise _unfit(folder, (str(error).splitlines() or [type(error).__name__])[0]) from error


def _unfit(folder: str, reason: str) -> UserError:
    return UserError(
        "adapter_unfit",
        "The adapter in {folder} does not fit its base model: {reason}.",
        "Export the run again.",
        folder=Path(folder).name,
        reason=reason[:300].rstrip("."),
    )
