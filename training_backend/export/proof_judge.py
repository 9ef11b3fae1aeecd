"""From what was measured to a verdict in plain words. Pure: numbers in, sentences out. Light."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from training_backend.export.proof_reading import Measured, Reference
from training_backend.job import ExportFormat, GgufQuantization
from training_backend.protocol import ProofCheck, Verdict

# The largest mean KL of the next token that a format explains, in nats (docs/export.md).
SIXTEEN_BITS = 0.01
LIMITS: dict[str, float] = {
    "q8_0": 0.02, "q6_k": 0.05, "q5_k_m": 0.1, "q4_k_m": 0.2, "bnb_4bit": 0.5,
}  # fmt: skip
NAMES = {
    "q8_0": "8 bits (q8_0)", "q6_k": "6 bits (q6_k)", "q5_k_m": "5 bits (q5_k_m)",
    "q4_k_m": "4 bits (q4_k_m)", "bnb_4bit": "4 bits (bitsandbytes)",
}  # fmt: skip
# Models below lose so much by few bits that a limit would say nothing; up to this it is told only.
SMALL_PARAMETERS = 1_000_000_000
SMALL_LIMIT = 1.0
FEW_BITS = frozenset(LIMITS) - {"q8_0"}
# An adapter that changes less than this cannot be told from rounding.
LEAST_EFFECT = 1e-5
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Judgement:
    """The verdict, why, and what it rests on. `code` names the sentence, for translation."""

    verdict: Verdict
    code: str
    message: str
    params: dict[str, Any] = field(default_factory=dict)
    checks: tuple[ProofCheck, ...] = ()


def kind_of(format: ExportFormat, quantization: GgufQuantization) -> str:
    """What limits an export by: a key of `LIMITS`, or anything else for 16 bits."""
    return quantization if format == "gguf" else format


def judge(reference: Reference, measured: Measured, kind: str, parameters: int) -> Judgement:
    """Compare what was measured with the limits of a format.

    Args:
        kind: as `kind_of` has it.
        parameters: of the base model.
    """
    found = _Found(reference, measured, kind, parameters)
    checks = tuple(found.checks())
    failed = {check.name for check in checks if not check.passed}
    verdict, code, template, params = found.verdict(failed)
    return Judgement(verdict, code, template.format(**params), params, checks)


class _Found:
    def __init__(
        self, reference: Reference, measured: Measured, kind: str, parameters: int
    ) -> None:
        distances = measured.distances
        places = max(1, distances.places)
        self.reference, self.measured = reference, measured
        self.name = NAMES.get(kind, "16 bits")
        self.is_small = kind in FEW_BITS and parameters < SMALL_PARAMETERS
        self.format_limit = LIMITS.get(kind, SIXTEEN_BITS)
        self.limit = SMALL_LIMIT if self.is_small else self.format_limit
        self.kl = distances.kl / places
        self.base_effect = distances.base_effect / places
        self.base_kl = distances.base_kl / places
        self.share = distances.overlap / distances.effect if distances.effect else None

    def checks(self) -> Iterator[ProofCheck]:
        measured, distances = self.measured, self.measured.distances
        yield _check(
            "prompts", "{alike} of {prompts} questions are read as the same tokens as in training.",
            measured.alike / max(1, measured.prompts), 1.0,
            measured.alike == measured.prompts, alike=measured.alike, prompts=measured.prompts,
        )  # fmt: skip
        if self.reference.closings:
            yield _check(
                "ends",
                "The export's files name {tokens} as the end of an answer."
                if not measured.unnamed
                else "The export's files do not name {tokens} as the end of an answer.",
                float(len(measured.unnamed)), 0.0, not measured.unnamed,
                tokens=", ".join(measured.unnamed or tuple(self.reference.closings.values())),
            )  # fmt: skip
        yield _check(
            "kl",
            "Over {places} places of the trained model's answers the next token's probabilities "
            "differ by {kl} (mean KL divergence in nats; up to {limit} is {name})."
            if not self.is_small
            else "Over {places} places of the trained model's answers the next token's "
            "probabilities differ by {kl} (mean KL divergence in nats). A model of less than a "
            "billion parameters loses much by {name}, so this is told, not judged.",
            self.kl, self.limit, self.kl <= self.limit,
            places=distances.places, kl=_short(self.kl), limit=self.limit, name=self.name,
        )  # fmt: skip
        if self.share is not None and self.base_effect >= LEAST_EFFECT:
            yield _check(
                "adapter",
                "{share} of what training changed is in the export (the base model alone differs "
                "by {effect} from the trained one).",
                self.share, LEAST_SHARE, not self._is_nearer_to_base(),
                share=f"{self.share:.0%}", effect=_short(self.base_effect),
            )  # fmt: skip
        elif self.reference.has_base:
            yield _check(
                "adapter",
                "Training changed the answers so little ({effect}) that nothing can be told by "
                "them of the adapter.",
                self.base_effect, None, True, effect=_short(self.base_effect),
            )  # fmt: skip
        if measured.data_places:
            ours = measured.data_loss / measured.data_places
            theirs = measured.data_loss_reference / measured.data_places
            most = 0.05 + self.limit
            yield _check(
                "perplexity",
                "Perplexity of the data's own answers: {ours}, {theirs} of the trained model.",
                ours - theirs, most, ours - theirs <= most,
                ours=_short(_exp(ours)), theirs=_short(_exp(theirs)),
            )  # fmt: skip
        if measured.ends_at and self.reference.ends_at:
            ours = sum(measured.ends_at) / len(measured.ends_at)
            theirs = sum(self.reference.ends_at) / len(self.reference.ends_at)
            yield _check(
                "end_probability",
                "Where an answer is to end, the export ends it with a probability of {ours}, the "
                "trained model of {theirs}.",
                ours, theirs / 2, ours >= theirs / 2, ours=f"{ours:.0%}", theirs=f"{theirs:.0%}",
            )  # fmt: skip
        yield _check(
            "agreement",
            "{alike} of {prompts} answers are the same word for word, {share} of the words in "
            "their places. Small differences may turn a word, and all that follow.",
            distances.same_choice / max(1, distances.places), None, True,
            alike=measured.answers_alike, prompts=measured.prompts,
            share=f"{distances.same_choice / max(1, distances.places):.0%}",
        )  # fmt: skip
        if self.reference.four_bit is not None:
            yield _check(
                "four_bit",
                "For comparison: the base in 4 bits with the adapter, which training saw, differs "
                "by {kl} from the same in 16 bits.",
                self.reference.four_bit, None, True, kl=_short(self.reference.four_bit),
            )  # fmt: skip

    def verdict(self, failed: set[str]) -> tuple[Verdict, str, str, dict[str, Any]]:
        """By the first cause that would bring about the others."""
        kl = _short(self.kl)
        if not math.isfinite(self.kl):
            return (
                "different", "proof_not_finite",
                "The export computes no numbers: some of its weights are not finite.", {},
            )  # fmt: skip
        if self._is_base() and "adapter" in failed:
            return (
                "different", "proof_no_adapter",
                "The export answers as the base model does: what was trained is not in it.", {},
            )  # fmt: skip
        if "adapter" in failed or self.kl > min(3 * self.limit, SMALL_LIMIT):
            return (
                "different", "proof_other_weights",
                "The export answers neither as the trained model nor as its base model does: it "
                "is of another base model, or its weights are damaged.", {},
            )  # fmt: skip
        if self.measured.begins_twice:
            return (
                "different", "proof_begins_twice",
                "The export begins each chat with the token {token} once too often: the chat "
                "template writes it, and it is added or written again.",
                {"token": self.reference.begin_text},
            )  # fmt: skip
        if "prompts" in failed:
            return (
                "different", "proof_other_template",
                "The export reads chats otherwise than the trained model ({count} of {prompts}): "
                "its chat template or its tokenizer is another one.",
                {"count": self.measured.prompts - self.measured.alike,
                 "prompts": self.measured.prompts},
            )  # fmt: skip
        if "ends" in failed:
            return (
                "different", "proof_no_end",
                "The export's answers would not end: the model ends them with {tokens}, which its "
                "files do not name as an end.", {"tokens": ", ".join(self.measured.unnamed)},
            )  # fmt: skip
        if failed:
            return (
                "different", "proof_too_far",
                "The export differs more from the trained model ({kl}) than {name} explain.",
                {"kl": kl, "name": self.name},
            )  # fmt: skip
        if self.is_small and self.kl > self.format_limit:
            return (
                "slightly_different", "proof_small_model",
                "The export differs from the trained model ({kl}) as so small a model does in "
                "{name}: larger models lose less, and q8_0 keeps more.",
                {"kl": kl, "name": self.name},
            )  # fmt: skip
        if self.kl > SIXTEEN_BITS:
            return (
                "slightly_different", "proof_as_format",
                "The export answers nearly as the trained model does; the difference ({kl}) is "
                "that of {name}.", {"kl": kl, "name": self.name},
            )  # fmt: skip
        return "alike", "proof_alike", "The export answers as the trained model does.", {}

    def _is_nearer_to_base(self) -> bool:
        """Than to what was trained, and without most of the change."""
        return self.share is not None and self.share < LEAST_SHARE and self.base_kl < self.kl

    def _is_base(self) -> bool:
        return self._is_nearer_to_base() and self.base_kl <= max(self.limit, self.base_effect / 2)


def _check(
    check: str, template: str, value: float, most: float | None, passed: bool, /, **params: Any
) -> ProofCheck:
    return ProofCheck(
        name=check,
        message=template.format(**params),
        params=params,
        value=value if math.isfinite(value) else None,
        limit=most if most is None or math.isfinite(most) else None,
        passed=passed,
    )


def _short(value: float) -> str:
    if 0 < value < 0.0005:
        return "less than 0.001"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
