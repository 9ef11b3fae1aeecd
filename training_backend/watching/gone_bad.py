"""Why the numbers of a training are numbers no more: the base, the rate, 16 bits, or a row.

The step that it happened in is computed again, batch by batch and row by row, on the weights that
it had: nothing was changed by it yet.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from training_backend.data.training_rows import TrainingRows
from training_backend.errors import UserError
from training_backend.job import TrainingJob
from training_backend.summaries import losses
from training_backend.training import sampling

Inputs = dict[str, Any]

NAMED_ROWS = 3
CONTROLS = 3  # other rows of the data that are tried where all of a batch are bad
_SOUND = "All that was learned up to then is saved."


def explain(trainer: Any, job: TrainingJob, rows: TrainingRows, step: int) -> UserError:
    """The error that ends a training whose loss or gradient is not finite in this step.

    Args:
        trainer: with `TrainerHabits`; its model, if it was updated in this step already, may
            hold numbers that are not finite itself.
        rows: what it trains on.
    """
    try:
        with sampling.random_state_kept(trainer.model.device):
            return _explained(trainer, job, rows, step)
    except Exception:  # such as too little memory: that it ends matters more than why
        traceback.print_exc()
        return _unexplained(step)
    finally:
        trainer.model.zero_grad(set_to_none=True)


def _explained(trainer: Any, job: TrainingJob, rows: TrainingRows, step: int) -> UserError:
    if name := _weight_not_finite(trainer.model, trained=False):
        return UserError(
            "model_not_finite",
            "The model {model} holds numbers that are none, in {name}: its files are damaged.",
            "Download the model again, or choose another.",
            field="model.id",
            model=job.model.id,
            name=name,
        )
    if error := _out_of_hand(trainer.state.log_history, job, step):
        return error
    if _weight_not_finite(trainer.model, trained=True):
        return _unexplained(step)
    bad = _bad_rows(trainer)
    layer = _overflowing_layer(trainer, bad[0] if bad else trainer.batches[0])
    of_rows = bad and _others_are_sound(trainer, bad)
    named = _names(bad, rows) if of_rows else ""
    if layer or (not bad and trainer.accelerator.scaler is not None):
        return UserError(
            "overflow_16_bits",
            "At step {step} a number grew too large for the 16 bits (float16) that this training "
            "computes with{layer}{rows}.",
            "Try a lower learning rate or a model that was made for float16; cards from the RTX 30 "
            "on compute with bfloat16, which is not limited so. " + _SOUND,
            step=step,
            layer=f", in {layer}" if layer else "",
            rows=f"; it comes from {named}" if named else "",
        )
    if named:
        return UserError(
            "row_not_finite",
            "The loss is no longer a number at step {step}; it comes from {rows}.",
            "Look at what stands there, correct it or take it out, and go on with Resume. "
            + _SOUND,
            field="dataset.path",
            step=step,
            rows=named,
        )
    if not bad:
        return UserError(
            "not_repeatable",
            "The loss was no number at step {step}, yet computed again from the same rows it is "
            "one.",
            "The computer or the card may miscalculate: undo any overclocking, see to its heat, "
            "and go on with Resume. " + _SOUND,
            step=step,
        )
    return _unexplained(step)


def _unexplained(step: int) -> UserError:
    return UserError(
        "loss_not_finite",
        "The loss is no longer a number at step {step}.",
        "Choose a lower learning rate and start again; checkpoints saved before are sound.",
        field="training.learning_rate",
        step=step,
    )


def _out_of_hand(log: losses.Log, job: TrainingJob, step: int) -> UserError | None:
    rate = job.training.learning_rate
    lower = {"rate": f"{rate:g}", "lower": f"{min(2e-4, rate / 10):g}"}
    remedy = (
        "The learning rate {rate} is too high: start again with a lower one, such as {lower}. "
        "Checkpoints up to step {since} are from before that."
    )
    norm = losses.divergence(losses.of_gradients(log), norms=True)
    if loss := losses.divergence(losses.of_training(log)):
        return UserError(
            "loss_diverged",
            "The loss is no longer a number at step {step}: since step {since} it rose from "
            "{before} to {last}{norms}.",
            remedy,
            field="training.learning_rate",
            step=step,
            since=loss.since,
            before=f"{loss.before:.3g}",
            last=f"{loss.last:.3g}",
            norms=f", and the gradient norm from {norm.before:.3g} to {norm.last:.3g}"
            if norm
            else "",
            **lower,
        )
    if norm:
        return UserError(
            "gradient_diverged",
            "The gradient is no longer a number at step {step}: its norm rose from about {before} "
            "to {last} before.",
            remedy,
            field="training.learning_rate",
            step=step,
            since=norm.since,
            before=f"{norm.before:.3g}",
            last=f"{norm.last:.3g}",
            **lower,
        )
    return None


# ------------------------------------------------------------------------------- the weights


def _weight_not_finite(model: Any, *, trained: bool) -> str:
    """The name of a trained, or of a frozen, weight with a number that is none; "" without one."""
    for name, weight in model.named_parameters():
        if weight.requires_grad == trained and not all(
            numbers.isfinite().all() for numbers in _floats(weight)
        ):
            return _short(name)
    return ""


def _floats(weight: Any) -> Iterator[Any]:
    """The tensors of floating-point numbers in a weight; of a 4-bit one its scales."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        yield weight.data
        return
    for holder in (state, state.state2):  # the second has the scales of the scales
        for name in ("absmax", "offset"):
            tensor: Any = getattr(holder, name, None)
            if torch.is_tensor(tensor) and tensor.is_floating_point():
                yield tensor


# ---------------------------------------------------------------------------------- the rows


def _bad_rows(trainer: Any) -> list[Inputs]:
    """The rows of the step's first bad batch that are bad by themselves."""
    for batch in trainer.batches:
        if _is_bad(trainer, batch):
            return [row for row in _rows_of(batch) if _is_bad(trainer, row)]
    return []


def _others_are_sound(trainer: Any, bad: list[Inputs]) -> bool:
    """Whether it is these rows, and not the model with whatever row."""
    known = [_tokens(row) for row in bad]
    own = [row for batch in trainer.batches for row in _rows_of(batch)]
    every = range(0, len(trainer.train_dataset), max(1, len(trainer.train_dataset) // CONTROLS))
    more = (trainer.data_collator([trainer.train_dataset[at]]) for at in every)
    others = [row for row in own if _tokens(row) not in known][:CONTROLS]
    others += [row for batch in more for row in _rows_of(batch)[:1] if _tokens(row) not in known]
    return any(not _is_bad(trainer, row) for row in others)


def _is_bad(trainer: Any, inputs: Inputs) -> bool:
    """Whether the loss of some rows, or its gradient, is not finite."""
    trainer.model.zero_grad(set_to_none=True)
    loss = _loss(trainer, inputs)
    if not loss.isfinite().all():
        return True
    loss.backward()
    gradients = (p.grad for p in trainer.model.parameters() if p.grad is not None)
    return not all(gradient.isfinite().all() for gradient in gradients)


def _loss(trainer: Any, inputs: Inputs) -> Any:
    prepared = trainer._prepare_inputs(dict(inputs))
    with trainer.compute_loss_context_manager():
        return trainer.compute_loss(
            trainer.model, prepared, num_items_in_batch=trainer.learned_tokens
        )


def _rows_of(batch: Inputs) -> list[Inputs]:
    """A batch taken apart: its rows, those that are laid end to end in it, or its pairs."""
    ids, positions = batch["input_ids"], batch.get("position_ids")
    if positions is not None and len(ids) == 1:
        begins = [*(positions[0] == 0).nonzero().flatten().tolist(), ids.shape[1]]
        kept = [name for name in ("input_ids", "labels", "position_ids") if name in batch]
        return [
            {name: batch[name][:, begin:end] for name in kept}
            for begin, end in itertools.pairwise(begins)
        ]
    in_pairs = "completion_mask" in batch  # all chosen answers, then all rejected ones
    count = len(ids) // 2 if in_pairs else len(ids)
    rows = [[at, count + at] if in_pairs else [at] for at in range(count)]
    return [
        {
            name: value[row] if torch.is_tensor(value) and len(value) == len(ids) else value
            for name, value in batch.items()
        }
        for row in rows
    ]


def _tokens(row: Inputs) -> list[int]:
    """The tokens of a row, of a pair those of its first sequence, without the padding."""
    ids, mask = row["input_ids"][0], row.get("attention_mask")
    return list((ids if mask is None else ids[mask[0].bool()]).tolist())


def _names(bad: list[Inputs], rows: TrainingRows) -> str:
    """Where the rows stand in the data; "" where that cannot be found."""
    found = list(dict.fromkeys(place for row in bad if (place := _place(_tokens(row), rows))))
    more = "; ..." if len(found) > NAMED_ROWS else ""
    return "; ".join(found[:NAMED_ROWS]) + more


def _place(tokens: list[int], rows: TrainingRows) -> str:
    columns = (
        ("prompt_ids", "chosen_ids") if "chosen_ids" in rows.train.features else ("input_ids",)
    )
    for at, row in enumerate(rows.train.select_columns(list(columns))):
        if [token for column in columns for token in row[column]] == tokens:
            return rows.places.name(at)
    return ""


def _overflowing_layer(trainer: Any, row: Inputs) -> str:
    """The first layer whose numbers are none, if it computes in float16; "" if not."""
    first: list[tuple[str, bool]] = []

    def look(module: Any, output: Any, name: str) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if not first and torch.is_tensor(output) and not output.isfinite().all():
            kind = getattr(module, "compute_dtype", None) or output.dtype  # a 4-bit layer has one
            first.append((name, kind is torch.float16))

    hooks = [
        module.register_forward_hook(lambda m, _, output, name=name: look(m, output, name))
        for name, module in trainer.model.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        with torch.no_grad():
            _loss(trainer, row)
    finally:
        for hook in hooks:
            hook.remove()
    return _short(first[0][0]) if first and first[0][1] else ""


def _short(name: str) -> str:
    """The name of a layer or weight as its model has it, without the adapter's wrapping."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")
