"""From numbers to a verdict: the limits of each format, and the likeliest cause said first."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from training_backend.export.proof_judge import LIMITS, judge, kind_of
from training_backend.export.proof_measures import Distances
from training_backend.export.proof_reading import Measured, Reference

LARGE, SMALL = 8_000_000_000, 135_000_000
REFERENCE = Reference(
    asked=[], begin=1, begin_text="<s>", closings={2: "</s>"}, ends_at=[0.9, 0.7], has_base=True
)
PLACES = 100


def measured(kl: float = 0.001, **other: Any) -> Measured:
    """Means over the places for what `Measured` has as sums."""
    values = {"base_effect": 0.5, "base_kl": 0.5, "share": 1.0, "same_choice": 99, **other}
    distances = Distances(
        places=PLACES,
        kl=kl * PLACES,
        same_choice=values.pop("same_choice"),
        base_effect=values.pop("base_effect") * PLACES,
        base_kl=values.pop("base_kl") * PLACES,
        overlap=values.pop("share") * 7.0,
        effect=7.0,
    )
    return replace(
        Measured(distances, 6, 6, 0, (), 5, 50, 100.0, 100.0, ends_at=[0.9, 0.7]), **values
    )


def outcome(found: Measured, kind: str = "safetensors", size: int = LARGE) -> tuple[str, str]:
    judged = judge(REFERENCE, found, kind, size)
    assert "{" not in judged.message + "".join(check.message for check in judged.checks)
    return judged.verdict, judged.code


def test_sixteen_bits_are_alike_up_to_a_hundredth_of_a_nat() -> None:
    assert outcome(measured(0.0099)) == ("alike", "proof_alike")
    assert outcome(measured(0.0101)) == ("different", "proof_too_far")
    assert outcome(measured(0.031)) == ("different", "proof_other_weights")


@pytest.mark.parametrize("kind", ["q8_0", "q6_k", "q5_k_m", "q4_k_m", "bnb_4bit"])
def test_each_format_may_differ_as_far_as_its_bits_explain(kind: str) -> None:
    limit = LIMITS[kind]
    assert outcome(measured(0.005), kind) == ("alike", "proof_alike")
    assert outcome(measured(limit * 0.99), kind) == ("slightly_different", "proof_as_format")
    assert outcome(measured(limit * 1.01), kind)[0] == "different"


def test_of_a_small_model_few_bits_are_told_and_not_judged() -> None:
    found = measured(0.4)
    assert outcome(found, "q4_k_m", SMALL) == ("slightly_different", "proof_small_model")
    assert outcome(found, "q4_k_m", LARGE)[0] == "different"
    assert outcome(found, "q8_0", SMALL)[0] == "different", "eight bits are enough for any"
    assert outcome(measured(1.5), "q4_k_m", SMALL) == ("different", "proof_other_weights")
    kl = next(c for c in judge(REFERENCE, found, "q4_k_m", SMALL).checks if c.name == "kl")
    assert "told, not judged" in kl.message


def test_the_base_alone_is_found_also_where_the_difference_is_within_the_limit() -> None:
    """A small adapter in few bits: only the direction of the difference tells."""
    lost = measured(0.15, base_effect=0.04, base_kl=0.11, share=0.05)
    assert outcome(lost, "q4_k_m") == ("different", "proof_no_adapter")
    there = measured(0.12, base_effect=0.04, base_kl=0.15, share=0.7)
    assert outcome(there, "q4_k_m") == ("slightly_different", "proof_as_format")
    assert outcome(measured(0.5, base_kl=0.0, share=0.0)) == ("different", "proof_no_adapter")


def test_an_adapter_that_changes_nothing_is_not_looked_for() -> None:
    none = measured(1e-7, base_effect=1e-7, base_kl=1e-8, share=0.1)
    judged = judge(REFERENCE, none, "safetensors", LARGE)
    assert judged.verdict == "alike"
    told = next(check for check in judged.checks if check.name == "adapter")
    assert told.limit is None and "nothing can be told" in told.message


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"alike": 4}, "proof_other_template"),
        ({"alike": 0, "begins_twice": 6}, "proof_begins_twice"),
        ({"unnamed": ("</s>",)}, "proof_no_end"),
        ({"data_loss": 110.0}, "proof_too_far"),
        ({"ends_at": [0.1, 0.2]}, "proof_too_far"),
        ({"kl": math.nan}, "proof_not_finite"),
        # Of two faults the one that no template could bring about.
        ({"kl": 3.0, "base_kl": 3.0, "alike": 0, "unnamed": ("</s>",)}, "proof_other_weights"),
    ],
)
def test_each_fault_has_its_own_sentence(change: dict[str, Any], code: str) -> None:
    assert outcome(measured(**change)) == ("different", code)


def test_an_end_is_named_by_its_text() -> None:
    judged = judge(REFERENCE, measured(unnamed=("</s>",)), "safetensors", LARGE)
    assert "ends them with </s>, which its files do not name" in judged.message


def test_ends_that_nobody_saw_are_not_told() -> None:
    judged = judge(replace(REFERENCE, closings={}), measured(), "safetensors", LARGE)
    assert judged.verdict == "alike" and "ends" not in {check.name for check in judged.checks}


def test_what_is_no_number_is_left_out_of_the_values() -> None:
    judged = judge(REFERENCE, measured(math.nan), "safetensors", LARGE)
    kl = next(check for check in judged.checks if check.name == "kl")
    assert kl.value is None and not kl.passed


def test_the_kind_is_that_of_the_file_for_gguf_alone() -> None:
    assert kind_of("gguf", "q5_k_m") == "q5_k_m"
    assert kind_of("bnb_4bit", "q5_k_m") == "bnb_4bit"
    assert LIMITS.get(kind_of("safetensors", "q4_k_m")) is None
