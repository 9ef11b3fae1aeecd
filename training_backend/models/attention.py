"""Which way of computing attention a model is run with."""

from __future__ import annotations

from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING


def implementation(config: Any) -> str:
    """PyTorch's own fused attention; "eager" for the few models that cannot use it (Gemma 2).

    Whatever a config asks for is passed over: it could name code on the Hub.
    """
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "eager" if model is not None and not model._supports_sdpa else "sdpa"
