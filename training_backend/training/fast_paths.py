"""Shorter ways to the same step, for training on a processor.

Each leaves out work whose result is not used; what is computed is the same to rounding, and with
`training.fast_paths` off to the last digit what TRL's trainer computes. On a card TRL's own way
is kept, whose kernels are made for it.

- The loss scores only the tokens that are learned (`fast_loss`), and no accuracy or entropy.
- Rows are padded at their ends, and no token looks at one after it; so what tells the padding
  from the rest is not needed, and attention without it leaves out half of the work.
- An adapter adds its part in one operation, without copies of its input in 32 bits.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora import Linear, Linear4bit

from training_backend.training.fast_loss import learned_loss

# What a config says of a model whose scores are changed before the loss; TRL knows them all.
_SCALED = (
    "final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier",
    "logits_scaling",
)  # fmt: skip


class FastPaths:
    """Goes before TRL's SFTTrainer in a class's bases.

    Args:
        fast_paths: whether to take them, where the model and the device allow it.
    """

    model: Any
    args: Any
    accelerator: Any

    def __init__(self, *, fast_paths: bool = True, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._tokens = 0
        fast = fast_paths and not self.args.torch_compile and self.model.device.type == "cpu"
        if fast:
            shorten_adapters(self.model)
        self._fast_loss = fast and has_plain_loss(self._causal)

    @property
    def _causal(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not self._fast_loss or return_outputs:
            trainer: Any = super()
            return trainer.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        labels, mask = inputs.pop("labels"), inputs.pop("attention_mask", None)
        if self.model.training:
            self._tokens += labels.numel() if mask is None else int(mask.sum())
        with self.accelerator.autocast():
            hidden = self._causal.base_model(**inputs, use_cache=False).last_hidden_state
            head = self._causal.get_output_embeddings()
            return learned_loss(hidden, head, labels, num_items_in_batch)

    def log(self, logs: dict[str, float], *arguments: Any) -> None:
        trainer: Any = super()
        if self._fast_loss and "loss" in logs:
            logs["num_tokens"] = self._tokens
        trainer.log(logs, *arguments)


def has_plain_loss(model: Any) -> bool:
    """Whether the loss comes straight from the last hidden states, and the head is not trained.

    A model of experts has a loss for its router as well, which must know the padding.
    """
    config, head = model.config.get_text_config(), model.get_output_embeddings()
    return not (
        hasattr(config, "output_router_logits")
        or any(getattr(config, name, None) for name in _SCALED)
        or any(parameter.requires_grad for parameter in head.parameters())
    )


def shorten_adapters(model: Any) -> None:
    """Let the layers with a plain LoRA add its part in one operation."""
    for layer in model.modules():
        if not isinstance(layer, (Linear, Linear4bit)):
            continue
        if not layer.lora_variant and all(b.bias is None for b in layer.lora_B.values()):
            layer._long_forward = layer.forward
            layer.forward = types.MethodType(_forward, layer)


def _forward(layer: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
    """`base(x) + s B A dropout(x)`."""
    # Without autocast PEFT turns numbers to the adapter's 32 bits, as for answers.
    apart = layer.disable_adapters or layer.merged or not torch.is_autocast_enabled(x.device.type)
    if apart or args or kwargs:
        return layer._long_forward(x, *args, **kwargs)
    result = layer.base_layer(x)
    shape, dtype = result.shape, result.dtype
    for name in layer.active_adapters:
        low = layer.lora_A[name](layer.lora_dropout[name](x))
        result = torch.addmm(
            result.flatten(0, -2),
            low.flatten(0, -2),
            layer.lora_B[name].weight.t(),
            alpha=layer.scaling[name],
        )
    return result.view(shape).to(dtype)
