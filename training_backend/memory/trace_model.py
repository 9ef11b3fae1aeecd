"""What one training step of a model allocates, found out by running it on tensors without content.

The model is built from its config alone, a few layers of it, with adapters and 4-bit layers as
training makes them (`tracing.hollow_model`), and does a forward and a backward pass under PyTorch's
`FakeTensorMode` (`tracing.layers_pass`, `tracing.loss_pass`): shapes and lifetimes are real,
numbers are never computed. Every storage is followed from its first use until it is freed
(`tracing.storages`), and its size tells how it grows (`tracing.growth`). One pass thus gives the
memory for all batch sizes, lengths and ranks; `memory_traces` says what is kept of it. What
cannot run on a computer without a card is written down instead (`tracing.card`).

    python -m training_backend.memory.trace_model --catalogue     trace what ships in resources/
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import warnings
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import peft
import torch
import transformers
import trl

from training_backend.errors import StopRequested, UserError
from training_backend.hub import hub_models
from training_backend.job import TrainingJob, parse_job
from training_backend.memory import memory_traces
from training_backend.memory.memory_traces import Attention, Trace
from training_backend.memory.tracing.growth import Sizes
from training_backend.memory.tracing.hollow_model import HollowModel
from training_backend.memory.tracing.layers_pass import trace_step
from training_backend.memory.tracing.loss_pass import trace_fast_loss, trace_loss
from training_backend.models import curated
from training_backend.models.model_config import config_of, demo_config, remember_config

MOST_LAYERS = 2_000  # no model has so many; a damaged config may say anything


def trace(
    config: dict[str, Any],
    job: TrainingJob,
    on_progress: Callable[[float], None] = lambda share: None,
    cards: tuple[bool, ...] = (False, True),
) -> Trace:
    """Trace the model of a `config.json` with the adapted layers of `job`. Takes seconds.

    Args:
        config: the document itself; nothing is loaded.
        on_progress: told the share that is done.
        cards: for cards (True), for the processor (False), or for both.

    Raises:
        UserError: `model_not_traceable`, about field `model.id`.
    """
    if _layers(config) > MOST_LAYERS:
        raise UserError(
            "model_config_broken",
            "The config.json of this model says that it has {count} layers.",
            "Download the model again, or choose another one.",
            field="model.id",
            count=f"{_layers(config):,}",
        )
    try:
        with _quiet():
            return _trace(config, job, on_progress, cards)
    except (UserError, StopRequested):
        raise
    except Exception as error:
        raise UserError(
            "model_not_traceable",
            "The memory of this model ({kind}) cannot be worked out: {reason}.",
            "Check its config.json, or choose another model.",
            field="model.id",
            kind=str(config.get("model_type", "unknown")),
            reason=(" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".: "),
        ) from error


def _layers(config: dict[str, Any]) -> int:
    value = config.get("num_hidden_layers")
    return value if isinstance(value, int) else 0


def _trace(
    config: dict[str, Any],
    job: TrainingJob,
    on_progress: Callable[[float], None],
    cards: tuple[bool, ...],
) -> Trace:
    hollow = HollowModel(config, job)
    sizes = Sizes.unlike(hollow.widths)
    attentions: list[Attention] = ["plain", "mask"]
    if hollow.has_window:
        attentions.append("window")
    variants = list(itertools.product(cards, (False, True), (False, True), attentions))
    steps = {}
    for done, variant in enumerate(variants):
        on_progress(done / len(variants))
        steps[memory_traces.step_name(*variant)] = trace_step(hollow, sizes, *variant)
    linears, quantised = hollow.linears()
    parameters = sum(p.numel() for p in hollow.whole.parameters())
    vocabulary, width = hollow.head.weight.shape
    window = getattr(hollow.config, "sliding_window", None)
    return Trace(
        format=memory_traces.FORMAT,
        fingerprint=memory_traces.fingerprint(config, job),
        versions=_versions(),
        model_type=hollow.config.model_type,
        parameters=parameters,
        layers=tuple(hollow.kinds),
        linears=linears,
        other_weights=parameters - quantised,
        hidden_size=width,
        vocabulary=vocabulary,
        sliding_window=window if hollow.has_window else None,
        skips_padding=hollow.fast_loss,
        steps=steps,
        heads={
            "cpu": trace_fast_loss(hollow, sizes)
            if hollow.fast_loss
            else trace_loss(hollow, sizes, card=False, triton=False),
            "card": trace_loss(hollow, sizes, card=True, triton=True),
            "card_without_triton": trace_loss(hollow, sizes, card=True, triton=False),
        },
    )


def _versions() -> dict[str, str]:
    return {m.__name__: m.__version__ for m in (torch, transformers, peft, trl, bnb)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What libraries say of a model without weights is not for people."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# --- for jobs, and for the catalogue -------------------------------------------------------------


def trace_job(
    job: TrainingJob, card: bool, on_progress: Callable[[float], None] = lambda share: None
) -> Trace:
    """Trace a job's model and keep the document; of a model on the Hub, fetch its config first.

    Args:
        card: for a card, else for the processor; what was traced for the other stays.

    Raises:
        UserError: the model is not known, not reachable, or cannot be traced.
    """
    config = config_of(job)
    if config is None:
        config = hub_models.fetch_config(job.model.id.strip(), job.model.revision)
        remember_config(job.model.id.strip(), job.model.revision, config)
    found = trace(config, job, on_progress, (card,))
    known = memory_traces.find(found.fingerprint)
    if known is not None and known.versions == found.versions:
        found = found.model_copy(update={"steps": {**known.steps, **found.steps}})
    memory_traces.store(found)
    return found


def trace_catalogue(folder: Path) -> None:
    """Trace the demo model and the whole catalogue with all linear layers adapted.

    What was traced with the libraries that are installed is left as it is.
    """
    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "none"}})
    assert isinstance(job, TrainingJob)
    configs = {"demo": demo_config()}
    configs |= {entry.id: curated.config(entry.id) or {} for entry in curated.models()}
    kept = set()
    for name, config in configs.items():
        print_ = memory_traces.fingerprint(config, job)
        if print_ in kept:
            continue
        kept.add(print_)
        stored = memory_traces.read(folder / f"{print_}.json")
        if stored is not None and stored.versions == _versions():
            continue
        try:
            found = trace(config, job)
        except UserError as error:
            print(f"{name}: {error}", flush=True)
            continue
        memory_traces.store(found, folder)
        print(f"{name}: {found.parameters:,} parameters", flush=True)
    for path in folder.glob("*.json"):
        if path.stem not in kept:
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training_backend.memory.trace_model")
    parser.add_argument("--catalogue", action="store_true", required=True)
    parser.parse_args()
    trace_catalogue(Path(str(resources.files("resources") / "memory_traces")))


if __name__ == "__main__":
    main()
